//! What every test starts with: a server with two tenants, an identity provider, and upstreams that can be told what to say.

pub(crate) mod client;
pub(crate) mod identity;
pub(crate) mod provider;
pub(crate) mod server;
pub(crate) mod upstreams;

/// A secret that is found again wherever it leaks: the scan after the test run looks for this word.
pub(crate) fn canary(name: &str) -> String {
    format!("CANARY-{name}-{}", uuid::Uuid::new_v4().simple())
}
