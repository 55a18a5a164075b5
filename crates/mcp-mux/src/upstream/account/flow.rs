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
