//! A consent that runs: what must be remembered between the two visits of a browser.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tenant_store::{TenantId, Timestamp, UpstreamId};

use super::tokens::{Revealed, Source};

/// How long a consent may take.
pub(super) const FLOW_LIFE: Duration = Duration::from_mins(10);

/// What must come back with the browser. It is for the cookie of that browser, sealed: it holds what the code is good for only with.
#[derive(Serialize, Deserialize)]
pub struct Flow {
    pub(super) principal_issuer: String,
    pub(super) subject: String,
    pub(super) tenant: TenantId,
    pub(super) upstream: UpstreamId,
    /// The addresses that the account is for.
    pub(super) destination: String,
    /// Whether the authorization server says who it is in its answer.
    pub(super) says_issuer: bool,
    pub(super) source: Source,
    pub(super) verifier: Revealed,
    pub(super) state: Revealed,
    pub(super) begun_at_ms: i64,
}

/// The query with which a browser comes back.
pub struct Callback {
    /// What is exchanged for tokens.
    pub code: Option<SecretString>,
    /// What we sent along.
    pub state: Option<String>,
    /// Which authorization server says this (RFC 9207).
    pub iss: Option<String>,
    /// Why there is no code.
    pub error: Option<String>,
}

impl Flow {
    /// Whether it took too long.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        let begun = Timestamp::from_millis(self.begun_at_ms);
        now < begun || now >= begun.plus(FLOW_LIFE)
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow").field("tenant", &self.tenant).field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callback").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::ClientKind;
    use super::*;

    #[test]
    fn a_flow_ends_after_ten_minutes_and_shows_no_secret() {
        let source = Source {
            issuer: "https://as.example".parse().unwrap(),
            client: ClientKind::Document,
            client_id: "mux".parse().unwrap(),
            token_endpoint: "https://as.example/token".parse().unwrap(),
            revocation_endpoint: None,
            resource: "https://mcp.example".parse().unwrap(),
        };
        let flow = Flow {
            principal_issuer: "corp".to_owned(),
            subject: "alice".to_owned(),
            tenant: "ten_018f0000000070008000000000000000".parse().unwrap(),
            upstream: "ups_018f0000000070008000000000000000".parse().unwrap(),
            destination: "https://mcp.example".to_owned(),
            says_issuer: true,
            source,
            verifier: Revealed("CANARY-verifier".into()),
            state: Revealed("CANARY-state".into()),
            begun_at_ms: 1_000,
        };
        let at = |millis| flow.is_over(Timestamp::from_millis(millis));
        assert!(!at(1_000) && !at(600_999));
        assert!(at(601_000) && at(999), "neither later nor before it began");
        assert!(!format!("{flow:?}").contains("CANARY"));
        let sealed = serde_json::to_string(&flow).unwrap();
        let again: Flow = serde_json::from_str(&sealed).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), sealed);
        assert!(sealed.len() < 2_000, "it fits into a cookie");
    }
}
