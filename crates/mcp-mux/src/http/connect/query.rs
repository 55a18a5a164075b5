//! What a browser brings back in a query or a form: each name once, or it is not read at all.

use std::collections::HashMap;

use axum::http::Uri;
use secrecy::SecretString;

use crate::auth::Returned;
use crate::upstream::Callback;

/// Longest query that is read, in bytes: codes of some providers have two thousand.
const QUERY_BYTES_MAX: usize = 8 * 1024;

/// The fields of a query or form.
pub(super) struct Query(HashMap<String, String>);

impl Query {
    /// The query of an address.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        Self::parse(uri.query().unwrap_or_default().as_bytes())
    }

    /// None if a field occurs twice: two readers could take it for two different ones.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > QUERY_BYTES_MAX {
            return None;
        }
        let mut fields = HashMap::new();
        for (name, value) in url::form_urlencoded::parse(bytes) {
            if fields.insert(name.into_owned(), value.into_owned()).is_some() {
                return None;
            }
        }
        Some(Self(fields))
    }

    /// One field.
    pub(super) fn text(mut self, name: &str) -> Option<String> {
        self.take(name)
    }

    /// As the end of a sign-in.
    pub(super) fn returned(mut self) -> Returned {
        Returned {
            code: self.take("code").map(SecretString::from),
            state: self.take("state"),
            iss: self.take("iss"),
            error: self.take("error"),
        }
    }

    /// As the end of a consent.
    pub(super) fn callback(mut self) -> Callback {
        Callback {
            code: self.take("code").map(SecretString::from),
            state: self.take("state"),
            iss: self.take("iss"),
            error: self.take("error"),
        }
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_occurs_twice_makes_the_whole_unreadable() {
        assert!(Query::parse(b"code=a&state=b").is_some());
        assert!(Query::parse(b"code=a&state=b&co%64e=c").is_none());
        assert!(Query::parse("x".repeat(QUERY_BYTES_MAX + 1).as_bytes()).is_none());
    }
}
