//! Whose a credential is within its tenant.

use std::fmt;
use std::str::FromStr;

use sea_orm::{DbErr, DeriveValueType, TryFromU64};

use crate::name::{IssuerName, NameError, Subject};

/// The tenant itself, or one principal. Nobody's credential ever stands in for somebody else's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
#[sea_orm(value_type = "String")]
pub enum CredentialOwner {
    /// All who may call the upstream use it.
    Tenant,
    /// It is that principal's alone.
    Principal {
        /// Who says who it is.
        issuer: IssuerName,
        /// Who it is there.
        subject: Subject,
    },
}

const TENANT: &str = "tenant";
const PRINCIPAL: &str = "principal:";

impl fmt::Display for CredentialOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant => f.write_str(TENANT),
            // The issuer's name holds no slash.
            Self::Principal { issuer, subject } => write!(f, "{PRINCIPAL}{issuer}/{subject}"),
        }
    }
}

/// A text that names no owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// Neither of the two forms.
    #[error("an owner is `tenant` or `principal:ISSUER/SUBJECT`")]
    Form,
    /// A part of it is no such name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl FromStr for CredentialOwner {
    type Err = OwnerError;

    fn from_str(text: &str) -> Result<Self, OwnerError> {
        if text == TENANT {
            return Ok(Self::Tenant);
        }
        let principal = text.strip_prefix(PRINCIPAL).and_then(|text| text.split_once('/'));
        let (issuer, subject) = principal.ok_or(OwnerError::Form)?;
        Ok(Self::Principal { issuer: issuer.parse()?, subject: subject.parse()? })
    }
}

// Part of a primary key; no database makes owners for us.
impl TryFromU64 for CredentialOwner {
    fn try_from_u64(_: u64) -> Result<Self, DbErr> {
        Err(DbErr::ConvertFromU64("CredentialOwner"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_neither_form_is_refused() {
        for text in ["", "Tenant", "principal:", "principal:corp", "principal:corp/", "principal:a_b/c", "corp/alice"] {
            assert!(text.parse::<CredentialOwner>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_owner_is_printed_and_read_back(issuer in "[a-z]{1,10}", subject in "[ -~ü/]{1,40}") {
            let owner = CredentialOwner::Principal { issuer: issuer.parse().unwrap(), subject: subject.parse().unwrap() };
            prop_assert_eq!(owner.to_string().parse(), Ok(owner));
        }
    }
}
