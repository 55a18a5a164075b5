//! An examination of the identity providers and fronts, end to end, for an operator: what was found, what is wrong, how to mend it.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use jsonwebtoken::jwk::JwkSet;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;
use tenant_store::Clock;
use url::Url;

use super::discovery;
use super::fetch::{self, FetchError};
use super::graph::Graph;
use super::introspection::Introspection;
use super::keys;
use crate::config::{Config, FrontProof, IssuerConfig, TokenMode};
use crate::egress::{Client, Egress};

/// Clocks that differ by more than this refuse good tokens.
const SKEW_SECONDS_MAX: i64 = 30;

/// One thing that was examined.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// Whose.
    pub subject: String,
    /// What was examined.
    pub what: &'static str,
    /// What was found, in one sentence.
    pub found: String,
    /// How to mend it; nothing if it is well.
    pub mend: Option<&'static str>,
}

impl Finding {
    fn well(subject: impl Into<String>, what: &'static str, found: impl Into<String>) -> Self {
        Self { subject: subject.into(), what, found: found.into(), mend: None }
    }

    fn ill(subject: impl Into<String>, what: &'static str, found: impl Into<String>, mend: &'static str) -> Self {
        Self { mend: Some(mend), ..Self::well(subject, what, found) }
    }
}

/// Examines everything that identity depends on. Clients must find `metadata` as the document about us.
pub async fn examine(config: &Config, metadata: &Value, egress: &Egress, clock: &Arc<dyn Clock>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for issuer in &config.issuers {
        let http = &egress.client(&issuer.addresses());
        match issuer.mode {
            TokenMode::Jwt => examine_keys(issuer, http, clock.as_ref(), &mut findings).await,
            TokenMode::Introspect => findings.push(examine_introspection(issuer, http, clock).await),
        }
        if issuer.graph.is_some() {
            findings.push(examine_graph(issuer, http, clock).await);
        }
    }
    for front in &config.fronts {
        match front.resolve().map(|front| front.proof) {
            Ok(FrontProof::Session { url }) => {
                findings.push(examine_session_front(front.name.as_str(), &url, &egress.client([&url])).await);
            }
            Ok(_) => {
                findings.push(Finding::well(
                    front.name.as_str(),
                    "front",
                    "it proves itself by what it shares with us",
                ));
            }
            Err(error) => {
                findings.push(Finding::ill(front.name.as_str(), "front", error.to_string(), "see the sentence"));
            }
        }
    }
    findings.push(examine_metadata(config, metadata, egress).await);
    findings
}

async fn examine_keys(issuer: &IssuerConfig, http: &Client, clock: &dyn Clock, findings: &mut Vec<Finding>) {
    let name = issuer.name.as_str();
    let url = match &issuer.jwks_url {
        Some(url) => url.clone(),
        None => match discovery::discover(http, &issuer.url).await {
            Ok(endpoints) => {
                findings.push(Finding::well(name, "discovery", format!("{} names its endpoints", issuer.url)));
                endpoints.jwks
            }
            Err(error) => {
                let mend = "`url` must be the issuer exactly as the provider's discovery document spells it, reachable from here";
                findings.push(Finding::ill(name, "discovery", words(&error), mend));
                return;
            }
        },
    };
    match fetch::get_dated(http, &url).await {
        Ok((body, date)) => {
            findings.push(examine_key_set(name, &body));
            findings.push(examine_clock(name, date.as_deref(), clock));
        }
        Err(error) => {
            findings.push(Finding::ill(
                name,
                "keys",
                words(&error),
                "the key set must be reachable from here, without a redirect",
            ));
        }
    }
}

fn examine_key_set(name: &str, body: &[u8]) -> Finding {
    let usable = serde_json::from_slice::<JwkSet>(body).map_err(|_| FetchError::NotUnderstood);
    match usable.and_then(|set| keys::verifying_keys(&set)) {
        Ok(keys) if keys.is_empty() => Finding::ill(
            name,
            "keys",
            "no key of the set can be used",
            "the provider must sign with RSA of 2048 bits or more, or ECDSA",
        ),
        Ok(keys) => {
            let ids: Vec<&str> = keys.iter().filter_map(keys::VerifyingKey::id).collect();
            Finding::well(name, "keys", format!("{} can be used: {}", keys.len(), ids.join(", ")))
        }
        Err(error) => Finding::ill(
            name,
            "keys",
            words(&error),
            "the key set must be a JWK set (RFC 7517) without a repeated key id",
        ),
    }
}

fn examine_clock(name: &str, date: Option<&str>, clock: &dyn Clock) -> Finding {
    let theirs = date.and_then(|date| httpdate::parse_http_date(date).ok());
    let theirs = theirs.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
    let Some(theirs) = theirs.and_then(|since| i64::try_from(since.as_secs()).ok()) else {
        return Finding::well(name, "clock", "the provider does not say what time it is");
    };
    let skew = clock.now().as_millis() / 1_000 - theirs;
    let found = format!("ours and the provider's differ by {} s", skew.abs());
    if skew.abs() > SKEW_SECONDS_MAX {
        Finding::ill(name, "clock", found, "synchronise this machine's clock: tokens seem expired or not valid yet")
    } else {
        Finding::well(name, "clock", found)
    }
}

async fn examine_introspection(issuer: &IssuerConfig, http: &Client, clock: &Arc<dyn Clock>) -> Finding {
    let name = issuer.name.as_str();
    let mend = "the introspection endpoint must be reachable and accept `client_id` with its secret";
    let endpoint = issuer
        .introspection
        .as_ref()
        .map(|settings| Introspection::new(&issuer.url, settings, http.clone(), Arc::clone(clock)));
    let Some(Ok(endpoint)) = endpoint else {
        return Finding::ill(name, "introspection", "its secret cannot be read", mend);
    };
    // No provider has issued this one, so the right answer is that it is not active.
    match endpoint.ask("mcp-mux-doctor", clock.now()).await {
        Err(super::AuthError::Invalid(super::Refusal::Inactive)) => {
            Finding::well(name, "introspection", "the provider answers, and refuses an invented token")
        }
        Ok(_) => Finding::ill(
            name,
            "introspection",
            "the provider calls an invented token active",
            "do not use this provider",
        ),
        Err(error) => Finding::ill(name, "introspection", error.to_string(), mend),
    }
}

async fn examine_graph(issuer: &IssuerConfig, http: &Client, clock: &Arc<dyn Clock>) -> Finding {
    let name = issuer.name.as_str();
    let mend = "the application needs its secret and the application permissions User.ReadBasic.All and GroupMember.Read.All (or User.Read.All), with an administrator's consent";
    let graph = issuer.graph.as_ref().map(|graph| Graph::new(graph, http.clone(), Arc::clone(clock)));
    match graph {
        Some(Ok(graph)) => match graph.may_ask().await {
            Ok(()) => Finding::well(name, "graph", "Microsoft Graph answers when it is asked for somebody's groups"),
            Err(error) => Finding::ill(name, "graph", words(&error), mend),
        },
        _ => Finding::ill(name, "graph", "its secret cannot be read", mend),
    }
}

async fn examine_session_front(name: &str, url: &Url, http: &Client) -> Finding {
    let address = format!("{}/api/v1/auths/", url.as_str().trim_end_matches('/'));
    let nobody = SecretString::from("mcp-mux-doctor");
    let Ok(address) = Url::parse(&address) else {
        return Finding::ill(name, "front", "its address cannot be used", "`url` is the address that users open");
    };
    match fetch::get_as(http, &address, &nobody).await {
        Err(FetchError::Status(401 | 403)) => {
            Finding::well(name, "front", "it answers, and refuses an invented session")
        }
        Ok(_) => Finding::ill(
            name,
            "front",
            "it accepts an invented session",
            "`url` must be Open WebUI with authentication on",
        ),
        Err(error) => {
            Finding::ill(name, "front", words(&error), "`url` must be Open WebUI's address, reachable from here")
        }
    }
}

/// The document by which clients find the provider, as they get it: through whatever stands in front of us.
async fn examine_metadata(config: &Config, expected: &Value, egress: &Egress) -> Finding {
    let what = "metadata";
    let address = config.public_url.join("/.well-known/oauth-protected-resource/mcp");
    let fetched = match Url::parse(&address) {
        Ok(url) => fetch::get(&egress.client([&url]), &url).await,
        Err(_) => Err(FetchError::NotUnderstood),
    };
    let document =
        fetched.and_then(|body| serde_json::from_slice::<Value>(&body).map_err(|_| FetchError::NotUnderstood));
    let mend =
        "start `mcp-mux serve`, and let the proxy in front of it pass `/.well-known/oauth-protected-resource` on";
    match document {
        Ok(document) if document == *expected => {
            Finding::well("mcp-mux", what, format!("{address} is what clients need"))
        }
        Ok(document) => {
            let names = expected.as_object().into_iter().flat_map(serde_json::Map::keys);
            let other: Vec<&str> =
                names.filter(|name| document.get(*name) != expected.get(*name)).map(String::as_str).collect();
            let other = if other.is_empty() { "more than ours".to_owned() } else { other.join(", ") };
            Finding::ill(
                "mcp-mux",
                what,
                format!("the document at {address} is another one than these settings make: {other}"),
                "`public_url` must be what clients type, and lead to a server with these settings that was restarted since",
            )
        }
        Err(error) => Finding::ill("mcp-mux", what, format!("{address}: {}", words(&error)), mend),
    }
}

fn words(error: &FetchError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
