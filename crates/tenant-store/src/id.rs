//! Ids: one type per kind, printed with the kind's prefix (`ups_0192f0c1…`), so that no id can be mistaken for another.

use std::fmt;
use std::str::FromStr;

use sea_orm::{DbErr, DeriveValueType, TryFromU64};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::{NoContext, Uuid};

use crate::clock::Timestamp;

/// Length of the printed number behind the prefix, in hexadecimal digits.
const DIGITS: usize = 32;

/// A text that is not such an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}'s id is `{prefix}` and {DIGITS} lower-case hexadecimal digits")]
pub struct IdError {
    what: &'static str,
    prefix: &'static str,
}

/// Defines a kind of id: a version 7 UUID, kept in the database as the text that is printed.
macro_rules! id {
    ($(#[$docs:meta])+ $name:ident, $prefix:literal, $what:literal) => {
        $(#[$docs])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
        #[sea_orm(value_type = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// A new id. Ids made later sort behind earlier ones.
            pub fn new(at: Timestamp) -> Self {
                Self(uuid_at(at))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.simple())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let uuid = text.strip_prefix($prefix).and_then(parse_digits);
                uuid.map(Self).ok_or(IdError { what: $what, prefix: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        // Part of a primary key; no database makes ids for us.
        impl TryFromU64 for $name {
            fn try_from_u64(_: u64) -> Result<Self, DbErr> {
                Err(DbErr::ConvertFromU64(stringify!($name)))
            }
        }
    };
}

id!(
    /// Which tenant.
    TenantId, "ten_", "a tenant"
);
id!(
    /// Which upstream.
    UpstreamId, "ups_", "an upstream"
);
id!(
    /// Which grant.
    GrantId, "grt_", "a grant"
);

id!(
    /// Which API key. Not the key.
    ApiKeyId, "key_", "an API key"
);

id!(
    /// Which replica: one process that serves, from its start to its end.
    ReplicaId, "rep_", "a replica"
);

id!(
    /// Which user of a directory.
    DirectoryUserId, "dus_", "a user of a directory"
);
id!(
    /// Which group of a directory.
    DirectoryGroupId, "dgr_", "a group of a directory"
);

id!(
    /// Which writer of the audit record: one process, from its start to its end.
    AuditWriterId, "wri_", "a writer of the audit record"
);

impl AuditWriterId {
    /// Behind all others.
    pub fn last() -> Self {
        Self(Uuid::max())
    }
}

fn uuid_at(at: Timestamp) -> Uuid {
    let millis = u64::try_from(at.as_millis()).unwrap_or(0);
    let nanos = u32::try_from(millis % 1_000).unwrap_or(0) * 1_000_000;
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, millis / 1_000, nanos))
}

/// Only what `Display` prints: no hyphens, no braces, no capitals.
fn parse_digits(digits: &str) -> Option<Uuid> {
    let canonical = digits.len() == DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    canonical.then(|| Uuid::try_parse(digits).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_printed_with_its_kind_and_read_back() {
        let id = UpstreamId::new(Timestamp::from_millis(1_700_000_000_000));
        let text = id.to_string();
        assert!(text.starts_with("ups_018bcfe56800"), "{text}");
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<UpstreamId>(&format!("\"{text}\"")).unwrap(), id);
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let text = UpstreamId::new(Timestamp::from_millis(0)).to_string();
        let error = text.parse::<TenantId>().unwrap_err();
        assert_eq!(error.to_string(), "a tenant's id is `ten_` and 32 lower-case hexadecimal digits");
    }

    #[test]
    fn ids_made_later_sort_behind() {
        let ids = [0, 1, 999, 1_000, 1_700_000_000_000].map(|millis| TenantId::new(Timestamp::from_millis(millis)));
        assert!(ids.is_sorted());
        assert_ne!(TenantId::new(Timestamp::from_millis(5)), TenantId::new(Timestamp::from_millis(5)));
    }

    proptest! {
        #[test]
        fn only_the_printed_form_is_an_id(text in "(ten_)?[0-9a-fA-F-]{30,36}") {
            if let Ok(id) = text.parse::<TenantId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
