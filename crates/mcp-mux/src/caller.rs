//! Who is calling. A [`Caller`] is made once per request, after its proof of identity was verified, and is the first
//! parameter of everything that acts for someone.

mod quota;

pub use quota::{Quota, Share};

use std::fmt;
use std::sync::Arc;

use secrecy::SecretString;
use tenant_store::{Group, IssuerName, Subject, TenantId, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

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

impl Principal {
    /// Anybody of that issuer, of whom nothing else is known. No provider names a person so.
    pub fn anybody_of(issuer: IssuerName) -> Self {
        #[expect(clippy::expect_used, reason = "a literal, which a test parses")]
        let subject = "(anybody in these groups)".parse().expect("a literal subject");
        Self { issuer, subject }
    }
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

/// What a proof of identity is good for at most, whatever grants say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bounds {
    /// All that grants allow.
    Everything,
    /// What grants allow in these tenants.
    Tenants(Arc<[TenantId]>),
}

impl Bounds {
    /// Nothing at all.
    pub fn nothing() -> Self {
        Self::Tenants(Arc::default())
    }

    /// Whether `tenant` lies within.
    pub fn include(&self, tenant: TenantId) -> bool {
        match self {
            Self::Everything => true,
            Self::Tenants(tenants) => tenants.contains(&tenant),
        }
    }
}

/// A principal with its groups and its deadline, for the length of one request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who it is.
    pub principal: Principal,
    /// The OAuth client that it calls through, where its proof names one.
    pub client: Option<Arc<str>>,
    /// The access token that proved it, if one did. It is good for being exchanged at an authorization server, where an upstream is
    /// configured so; nobody else is ever shown it.
    pub access_token: Option<Arc<SecretString>>,
    /// The groups that the principal's own issuer vouches for; never those of another issuer.
    pub groups: Arc<[Group]>,
    /// What its proof is good for at most.
    pub bounds: Bounds,
    /// After this moment an answer is of no use; never later than the end of its proof.
    pub deadline: Instant,
    /// When its proof ends.
    pub proof_ends_at: Timestamp,
    /// Cancelled when the proof is not good any more while the request still runs.
    pub ended: CancellationToken,
    /// The id of the request.
    pub request_id: RequestId,
}

impl Caller {
    /// Somebody who does not call, for whoever asks what they would see if they did.
    pub fn supposed(principal: Principal, groups: Arc<[Group]>, bounds: Bounds) -> Self {
        Self {
            principal,
            client: None,
            access_token: None,
            groups,
            bounds,
            deadline: Instant::now(),
            proof_ends_at: Timestamp::from_millis(0),
            ended: CancellationToken::new(),
            request_id: RequestId::new("-"),
        }
    }
}

#[cfg(test)]
impl Caller {
    /// Somebody in no group, who calls through that client.
    pub(crate) fn of_test(subject: &str, client: Option<&str>) -> Self {
        Self {
            principal: Principal { issuer: "corp".parse().unwrap(), subject: subject.parse().unwrap() },
            client: client.map(Into::into),
            access_token: None,
            groups: Vec::new().into(),
            bounds: Bounds::Everything,
            deadline: Instant::now(),
            proof_ends_at: Timestamp::from_millis(1),
            ended: CancellationToken::new(),
            request_id: RequestId::new("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anybody_is_somebody() {
        let anybody = Principal::anybody_of("corp".parse().unwrap());
        assert_eq!(anybody.subject.as_str(), "(anybody in these groups)");
    }
}
