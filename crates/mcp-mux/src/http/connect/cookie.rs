//! Cookies that hold what a browser must bring back: sealed, so that nobody else can read or make one, and each good for one purpose
//! and ten minutes. Every replica understands them.

use std::time::Duration;

use axum::http::header::{COOKIE, HeaderMap, HeaderValue};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use crypto::{KeyRing, Place};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tenant_store::{TenantSlug, Timestamp, UpstreamSlug};
use zeroize::Zeroizing;

/// How long a cookie is good.
pub(super) const COOKIE_LIFE: Duration = Duration::from_mins(10);
/// Longest cookie, in bytes with its name: what every browser keeps (RFC 6265 §6.1).
const COOKIE_BYTES_MAX: usize = 4_096;
/// Room for the attributes, which some browsers count.
const ATTRIBUTE_BYTES: usize = 80;

/// What a cookie is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose<'p> {
    /// A sign-in that runs.
    SignIn,
    /// Who signed in.
    Visitor,
    /// A consent that runs, at one upstream: several may run in one browser.
    Consent(&'p TenantSlug, &'p UpstreamSlug),
}

impl Purpose<'_> {
    fn kind(self) -> &'static str {
        match self {
            Self::SignIn => "signin",
            Self::Visitor => "visitor",
            Self::Consent(..) => "consent",
        }
    }

    /// What tells cookies of one kind apart. A slug holds no dot.
    fn detail(self) -> String {
        match self {
            Self::SignIn | Self::Visitor => String::new(),
            Self::Consent(tenant, upstream) => format!(".{tenant}.{upstream}"),
        }
    }
}

/// Writes and reads the cookies.
#[derive(Debug, Clone)]
pub(super) struct Cookies {
    keys: KeyRing,
    secure: bool,
}

#[derive(Serialize)]
struct Sealing<'v, T> {
    ends_at_ms: i64,
    value: &'v T,
}

#[derive(Deserialize)]
struct Opened<T> {
    ends_at_ms: i64,
    value: T,
}

impl Cookies {
    /// Sealed with `keys`, for a server that browsers reach over https, or over http on the same machine.
    pub(super) fn new(keys: KeyRing, secure: bool) -> Self {
        Self { keys, secure }
    }

    /// A `Set-Cookie` that holds `value` from `now` on; none if it is too large for a browser to keep.
    pub(super) fn set<T: Serialize>(&self, purpose: Purpose<'_>, value: &T, now: Timestamp) -> Option<HeaderValue> {
        let sealing = Sealing { ends_at_ms: now.plus(COOKIE_LIFE).as_millis(), value };
        let plain = Zeroizing::new(serde_json::to_vec(&sealing).ok()?);
        let detail = purpose.detail();
        let sealed = crypto::seal(&self.keys, &place(purpose, &detail), &plain).ok()?;
        let header = self.header(purpose, &BASE64_URL_SAFE_NO_PAD.encode(sealed), COOKIE_LIFE);
        header.filter(|header| header.len() <= COOKIE_BYTES_MAX - ATTRIBUTE_BYTES)
    }

    /// What a browser brought back, if it is ours, of that purpose, and not too old. Two of one name are none.
    pub(super) fn read<T: DeserializeOwned>(
        &self,
        purpose: Purpose<'_>,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Option<T> {
        let name = self.name(purpose);
        let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let mut values = pairs.filter(|(named, _)| *named == name).map(|(_, value)| value);
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let sealed = BASE64_URL_SAFE_NO_PAD.decode(value).ok()?;
        let detail = purpose.detail();
        let plain = crypto::open(&self.keys, &place(purpose, &detail), &sealed).ok()?;
        let opened: Opened<T> = serde_json::from_slice(&plain).ok()?;
        (now < Timestamp::from_millis(opened.ends_at_ms)).then_some(opened.value)
    }

    /// A `Set-Cookie` that ends one.
    pub(super) fn clear(&self, purpose: Purpose<'_>) -> Option<HeaderValue> {
        self.header(purpose, "", Duration::ZERO)
    }

    /// `__Host-` keeps neighbours under the same domain from setting one (RFC 6265bis §4.1.3.2); without TLS there is no such thing.
    fn name(&self, purpose: Purpose<'_>) -> String {
        let prefix = if self.secure { "__Host-" } else { "" };
        format!("{prefix}mcp-mux-{}{}", purpose.kind(), purpose.detail())
    }

    /// Lax: it must come along when an authorization server sends the browser back.
    fn header(&self, purpose: Purpose<'_>, value: &str, life: Duration) -> Option<HeaderValue> {
        let secure = if self.secure { "; Secure" } else { "" };
        let (name, life) = (self.name(purpose), life.as_secs());
        let text = format!("{name}={value}; Path=/; Max-Age={life}; HttpOnly; SameSite=Lax{secure}");
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

fn place<'p>(purpose: Purpose<'_>, detail: &'p str) -> Place<'p> {
    Place { tenant: "", table: "cookie", column: "value", row: detail, kind: purpose.kind(), version: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_000_000)
    }

    fn cookies(secure: bool) -> Cookies {
        Cookies::new(KeyRing::new(crypto::Key::generate().unwrap(), Vec::new()), secure)
    }

    /// The headers of a browser that keeps what it was told, under whatever name.
    fn browser(set: &HeaderValue, name: Option<&str>) -> HeaderMap {
        let pair = set.to_str().unwrap().split(';').next().unwrap();
        let (own, value) = pair.split_once('=').unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, format!("a=b; {}={value}", name.unwrap_or(own)).parse().unwrap());
        headers
    }

    #[test]
    fn a_cookie_is_good_for_its_purpose_and_ten_minutes() {
        let cookies = cookies(true);
        let set = cookies.set(Purpose::Visitor, &"alice", now()).unwrap();
        let text = set.to_str().unwrap();
        assert!(text.starts_with("__Host-mcp-mux-visitor="), "{text}");
        assert!(text.ends_with("; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure"), "{text}");
        let read = |purpose, name, now| cookies.read::<String>(purpose, &browser(&set, name), now);
        assert_eq!(read(Purpose::Visitor, None, now()).as_deref(), Some("alice"));
        let last = now().plus(COOKIE_LIFE.checked_sub(Duration::from_millis(1)).unwrap());
        assert!(read(Purpose::Visitor, None, last).is_some());
        assert_eq!(read(Purpose::Visitor, None, now().plus(COOKIE_LIFE)), None, "it is over");
        assert_eq!(read(Purpose::SignIn, Some("__Host-mcp-mux-signin"), now()), None, "it is for something else");
    }

    #[test]
    fn a_consent_is_good_at_its_upstream_only() {
        let cookies = cookies(false);
        let slugs = |tenant: &str, upstream: &str| (tenant.parse().unwrap(), upstream.parse().unwrap());
        let (tenant, upstream) = slugs("acme", "jira");
        let set = cookies.set(Purpose::Consent(&tenant, &upstream), &"flow", now()).unwrap();
        for other in [slugs("acme", "wiki"), slugs("globex", "jira")] {
            let purpose = Purpose::Consent(&other.0, &other.1);
            let name = cookies.name(purpose);
            assert_eq!(cookies.read::<String>(purpose, &browser(&set, Some(&name)), now()), None, "{name}");
        }
        assert!(cookies.read::<String>(Purpose::Consent(&tenant, &upstream), &browser(&set, None), now()).is_some());
    }

    #[test]
    fn what_is_not_ours_or_comes_twice_is_nothing() {
        let (ours, theirs) = (cookies(false), cookies(false));
        let set = theirs.set(Purpose::Visitor, &"mallory", now()).unwrap();
        assert_eq!(ours.read::<String>(Purpose::Visitor, &browser(&set, None), now()), None);
        let set = ours.set(Purpose::Visitor, &"alice", now()).unwrap();
        let mut headers = browser(&set, None);
        for other in browser(&theirs.set(Purpose::Visitor, &"mallory", now()).unwrap(), None).values() {
            headers.append(COOKIE, other.clone());
        }
        assert_eq!(ours.read::<String>(Purpose::Visitor, &headers, now()), None);
    }

    #[test]
    fn what_a_browser_would_not_keep_is_not_sent() {
        assert!(cookies(true).set(Purpose::Visitor, &"x".repeat(4_000), now()).is_none());
    }
}
