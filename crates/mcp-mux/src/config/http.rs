//! The listeners: one for clients, and one for operators' own programs.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::secret::setting;
use super::{ConfigError, Network};

/// Longest time from the signal to stop until nothing new is accepted, and longest time for what runs then, in seconds.
const DRAIN_SECONDS_MAX: u64 = 600;
/// Most connections that can be asked for.
const CONNECTIONS_MAX: usize = 1_000_000;

/// The listener and what it lets in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Hosts accepted besides that of `public_url`, as `host` or `host:port`.
    pub allowed_hosts: Vec<String>,
    /// Origins of browser pages that may call, as `https://webui.example.com`; none by default.
    pub allowed_origins: Vec<String>,
    /// Networks of the proxies before this server, as `10.20.0.0/16`: what they say in `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// Most connections that are open at once; others wait until one ends.
    pub connections_max: usize,
    /// Seconds that a connection may take for the headers of a request, and may be silent between two requests.
    pub header_timeout_seconds: u64,
    /// Seconds after which the caller of an open stream is judged again: how long one goes on that was taken its access.
    pub recheck_seconds: u64,
    /// Seconds for which everything is served after the signal to stop, as something that is not ready any more: in that time load balancers
    /// take it out.
    pub drain_delay_seconds: u64,
    /// Seconds that running calls have then to end.
    pub drain_timeout_seconds: u64,
}

/// The listener for operators' own programs, which ask whether the process lives and is ready.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// The address to listen on; port 0 takes a free one. Without it there is no such listener.
    pub listen: Option<SocketAddr>,
}

impl HttpConfig {
    /// The time after which the caller of an open stream is judged again.
    pub fn recheck_every(&self) -> Duration {
        Duration::from_secs(self.recheck_seconds)
    }

    /// The time that a connection has for the headers of a request.
    pub fn header_timeout(&self) -> Duration {
        Duration::from_secs(self.header_timeout_seconds)
    }

    /// The time for which everything is served after the signal to stop.
    pub fn drain_delay(&self) -> Duration {
        Duration::from_secs(self.drain_delay_seconds)
    }

    /// The time that running calls have then to end.
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout_seconds)
    }

    /// Checks what types cannot say.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if let Some(text) = self.allowed_origins.iter().find(|text| !is_origin(text)) {
            let problem =
                format!("has `{text}`: an origin is scheme, host and port only, as https://webui.example.com");
            return Err(setting("http.allowed_origins", problem));
        }
        if !(1..=30).contains(&self.recheck_seconds) {
            return Err(setting("http.recheck_seconds", "must be from 1 to 30"));
        }
        if !(1..=CONNECTIONS_MAX).contains(&self.connections_max) {
            return Err(setting("http.connections_max", "must be from 1 to 1000000"));
        }
        if !(1..=300).contains(&self.header_timeout_seconds) {
            return Err(setting("http.header_timeout_seconds", "must be from 1 to 300"));
        }
        if self.drain_delay_seconds > DRAIN_SECONDS_MAX {
            return Err(setting("http.drain_delay_seconds", "must be at most 600"));
        }
        if !(1..=DRAIN_SECONDS_MAX).contains(&self.drain_timeout_seconds) {
            return Err(setting("http.drain_timeout_seconds", "must be from 1 to 600"));
        }
        Ok(())
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            connections_max: 20_000,
            header_timeout_seconds: 60,
            recheck_seconds: 30,
            drain_delay_seconds: 5,
            drain_timeout_seconds: 18,
        }
    }
}

/// Whether a text is an origin as browsers send it, which knows no path, no `*` and no port that its scheme has anyway.
fn is_origin(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text.to_ascii_lowercase())
}
