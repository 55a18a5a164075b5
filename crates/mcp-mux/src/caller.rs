//! Who is calling. A [`Caller`] is made once per request, after its proof of identity was verified, and is the first
//! parameter of everything that acts for someone.

use std::fmt;
use std::sync::Arc;

use tenant_store::{Group, IssuerName, Subject};
use tokio::time::Instant;

/// Who acts: a person or a service, known by issuer and subject. It belongs to no tenant.
///
/// A subject is unique only within its issuer (RFC 7519 §4.1.2), so the two are never separated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The configured name of the identity provider.
    pub issuer: IssuerName,
    /// The provider's name for the principal.
    pub subject: Subject,
}

/// The id that joins the log lines and the answer of one request.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Takes an id made by the request-id layer.
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A principal with its groups and its deadline, for the length of one request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who it is.
    pub principal: Principal,
    /// The groups that the principal's own issuer vouches for; never those of another issuer.
    pub groups: Arc<[Group]>,
    /// After this moment an answer is of no use.
    pub deadline: Instant,
    /// The id of the request.
    pub request_id: RequestId,
}
