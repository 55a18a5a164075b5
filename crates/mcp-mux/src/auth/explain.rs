//! What a token would be taken for, and why it would be refused: the same verification that requests go through, told to an
//! operator. The token itself is never repeated, nor is anything that could be used as one.

use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::{Map, Value};

use super::issuer::Judgement;
use super::token::Token;
use super::{AuthError, Authenticator, Refusal};
use crate::caller::Bounds;

/// Most groups that are printed.
const GROUPS_SHOWN: usize = 25;

/// What a token says of itself, and what became of it.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// What the token says, before anybody believes it.
    pub says: Vec<Fact>,
    /// What is made of it; nothing if it is refused.
    pub taken_for: Vec<Fact>,
    /// Why it is refused.
    pub refused: Option<Why>,
}

/// One thing that is known.
#[derive(Debug, Serialize)]
pub struct Fact {
    /// About what.
    pub name: &'static str,
    /// What it is.
    pub value: String,
}

/// A refusal, for operators.
#[derive(Debug, Serialize)]
pub struct Why {
    /// The status of the answer that a client would get.
    pub status: u16,
    /// What is wrong.
    pub reason: String,
    /// How to mend it.
    pub mend: &'static str,
}

impl Authenticator {
    /// Explains `token` as a request to the endpoint with these audiences would find it.
    pub async fn explain(&self, token: &SecretString, audiences: &[String]) -> Explanation {
        let text = token.expose_secret();
        let now = self.clock.now();
        if self.fronts.of_key(text).is_some() {
            return Explanation::of_front_key();
        }
        let judged = match self.by_api_key(text, now) {
            Some(identity) => identity,
            None => self.verify(text, Judgement { audiences, now }).await.map(|verified| verified.identity),
        };
        let says = self.says(text);
        match judged {
            Ok(identity) => {
                let groups: Vec<&str> =
                    identity.groups.iter().take(GROUPS_SHOWN).map(tenant_store::Group::as_str).collect();
                let more = identity.groups.len().saturating_sub(GROUPS_SHOWN);
                let groups =
                    if more > 0 { format!("{} and {more} more", groups.join(", ")) } else { groups.join(", ") };
                let bounds = match &identity.bounds {
                    Bounds::Everything => "all that grants allow".to_owned(),
                    Bounds::Tenants(tenants) => format!("what grants allow in {} tenants", tenants.len()),
                };
                let taken_for = vec![
                    fact("issuer", identity.principal.issuer.as_str()),
                    fact("subject", identity.principal.subject.as_str()),
                    fact("client", identity.client.as_deref().unwrap_or("not named")),
                    fact("groups", if groups.is_empty() { "none" } else { &groups }),
                    fact("good for", &bounds),
                    fact("ends in", &seconds(self.remaining(&identity).as_secs())),
                ];
                Explanation { says, taken_for, refused: None }
            }
            Err(error) => Explanation { says, taken_for: Vec::new(), refused: Some(Why::of(&error)) },
        }
    }

    /// What a JWT says, claim by claim, as far as it tells why it may be refused.
    fn says(&self, text: &str) -> Vec<Fact> {
        let mut facts = Vec::new();
        if text.starts_with(crate::api_key::PREFIX) {
            return vec![fact("kind", "an API key of mcp-mux")];
        }
        if !Token::is_jwt(text) {
            facts.push(fact("kind", "opaque: it is not a JWT"));
            return facts;
        }
        facts.push(fact("kind", "JWT"));
        let (Some(header), Some(payload)) = (part(text, 0), part(text, 1)) else {
            facts.push(fact("shape", "its parts are not base64url of JSON"));
            return facts;
        };
        for (name, member) in [("algorithm", "alg"), ("type", "typ"), ("key", "kid")] {
            facts.push(fact(name, &shown(header.get(member))));
        }
        let issuer = payload.get("iss").and_then(Value::as_str).and_then(|issuer| self.issuers.get(issuer));
        let known =
            issuer.map_or("not configured".to_owned(), |issuer| format!("configured as `{}`", issuer.config.name));
        facts.push(fact("issuer", &format!("{} ({known})", shown(payload.get("iss")))));
        for (name, claim) in [("audience", "aud"), ("subject", "sub"), ("scope", "scope"), ("scp", "scp")] {
            facts.push(fact(name, &shown(payload.get(claim))));
        }
        for (name, claim) in [("issued", "iat"), ("ends", "exp")] {
            facts.push(fact(name, &self.moment(payload.get(claim))));
        }
        let names: Vec<&str> = payload.keys().map(String::as_str).collect();
        facts.push(fact("claims", &names.join(", ")));
        facts
    }

    /// A moment relative to now, which is what matters of it.
    fn moment(&self, value: Option<&Value>) -> String {
        let Some(at) = value.and_then(Value::as_i64) else { return shown(value) };
        let from_now = at.saturating_sub(self.clock.now().as_millis() / 1_000);
        let span = seconds(from_now.unsigned_abs());
        if from_now < 0 { format!("{span} ago") } else { format!("in {span}") }
    }
}

impl Explanation {
    fn of_front_key() -> Self {
        let taken_for = vec![fact("front", "whoever the front names in its headers; nobody without them")];
        Self { says: vec![fact("kind", "the shared key of a trusted front")], taken_for, refused: None }
    }
}

impl Why {
    fn of(error: &AuthError) -> Self {
        let reason = match error {
            AuthError::Invalid(refusal) => refusal.to_string(),
            error => error.to_string(),
        };
        Self { status: error.status().as_u16(), reason, mend: mend(error) }
    }
}

fn part(text: &str, index: usize) -> Option<Map<String, Value>> {
    super::token::part(text.split('.').nth(index)?).ok()
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None => "absent".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

fn seconds(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

fn fact(name: &'static str, value: &str) -> Fact {
    Fact { name, value: value.to_owned() }
}

/// How an operator mends a refusal.
fn mend(error: &AuthError) -> &'static str {
    match error {
        AuthError::Missing
        | AuthError::MissingProof
        | AuthError::Malformed
        | AuthError::FrontHeader(_)
        | AuthError::InQuery => error.advice(),
        AuthError::GroupsOverage => {
            "use app roles, or emit only the groups that are assigned to the application; or set `issuers.graph`, so that Microsoft Graph is asked"
        }
        AuthError::InsufficientScope(_) => {
            "let the client ask for the scope in `required_scopes`; where it is spelt otherwise, set `scope_claims`"
        }
        AuthError::Revoked => "`mcp-mux revocations` says since when and why, and `mcp-mux reinstate` takes it back",
        AuthError::ProviderUnavailable => "run `mcp-mux doctor`: the provider's keys or answers cannot be had",
        AuthError::TooManyAttempts(_) => {
            "find who sends bad tokens from that address; behind a proxy, name it in `http.trusted_proxies`"
        }
        AuthError::Invalid(refusal) => mend_refusal(*refusal),
    }
}

fn mend_refusal(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NotJwt => {
            "an opaque token needs `mode = \"introspect\"`; or have the provider issue JWTs for this audience"
        }
        Refusal::TooLong => "leave claims out at the provider: group names above all",
        Refusal::Algorithm => "sign with an algorithm in `algorithms`; symmetric ones are never accepted",
        Refusal::Critical => "the provider must not use critical header extensions",
        Refusal::Type => "it may be another kind of token; if it is an access token, name its type in `token_types`",
        Refusal::UnknownIssuer => "configure an issuer whose `url` is this `iss`, character by character",
        Refusal::UnknownKey => {
            "the provider's key set does not have this key: is it the issuer's, or has it just been rotated?"
        }
        Refusal::Signature => "the token was changed on its way, or is not this issuer's",
        Refusal::ClaimShape => "`iss`, `sub`, `aud` and `exp` are needed, and so is each of `subject_claims`",
        Refusal::Audience => "have the provider issue tokens for the endpoint's URL, or add its `aud` to `audiences`",
        Refusal::Expired => "sign in again; if it should still be good, compare the clocks with `mcp-mux doctor`",
        Refusal::NotYet => "compare the clocks with `mcp-mux doctor`",
        Refusal::Client => "add the client to `allowed_clients`, if it should be allowed",
        Refusal::AppOnly => {
            "set `app_only = \"allow\"` if programs may call without a user; an API key is the simpler way"
        }
        Refusal::Inactive => "sign in again: the provider does not know it, or not any more",
        Refusal::ForeignKey => "this is another product's API key; make one with `mcp-mux key create`",
        Refusal::ApiKey => "`mcp-mux key list` shows which keys are good; `mcp-mux key create` makes one",
        Refusal::Pending => "an administrator of the front must let the user in",
        Refusal::Contradiction => "the front sends one user's token with another user's name",
        Refusal::Lifetime => "shorten the life of access tokens at the provider, or raise `max_lifetime_seconds`",
        Refusal::IdToken => "send the access token, not the ID token",
        Refusal::OtherKind => {
            "send the access token; the provider's answer about one has an `aud`, or the `token_type` Bearer"
        }
        Refusal::Confirmation => {
            "have the provider issue bearer tokens: proofs of possession (DPoP, mTLS) are not supported"
        }
        Refusal::Groups => "`group_claims`, `role_claims` and `scope_claims` must point to lists of names",
    }
}
