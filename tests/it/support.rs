//! What every test starts with: a server with two tenants, an identity provider, and upstreams that can be told what to say.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use sha2::{Digest as _, Sha256};

pub(crate) mod accounts;
pub(crate) mod api;
pub(crate) mod balancer;
pub(crate) mod bridge;
pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod conformance;
pub(crate) mod driver;
pub(crate) mod forwarder;
pub(crate) mod identity;
pub(crate) mod old_sse;
pub(crate) mod process;
pub(crate) mod provider;
pub(crate) mod raw_session;
pub(crate) mod rich;
pub(crate) mod server;
pub(crate) mod suite;
pub(crate) mod tls;
pub(crate) mod tokens;
pub(crate) mod upstreams;
pub(crate) mod vault;
pub(crate) mod watched;

/// A secret that is found again wherever it leaks: the scan after the test run looks for this word.
pub(crate) fn canary(name: &str) -> String {
    format!("CANARY-{name}-{}", uuid::Uuid::new_v4().simple())
}

/// A key in the form that the program makes; the checksum is a part of it.
pub(crate) fn api_key(seed: &str) -> String {
    let secret = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(seed));
    let sum: String = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&secret)).chars().take(6).collect();
    format!("mcpmux_{secret}{sum}")
}
