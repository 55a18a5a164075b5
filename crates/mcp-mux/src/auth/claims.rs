//! What a token says, once its signature was verified or its provider has vouched for it: every rule is spelt out here.
//!
//! A claim that is absent means nothing; a claim of another shape refuses the token, because a misread list could be a wrong one.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use tenant_store::{Group, Subject, Timestamp};
use uuid::Uuid;

use super::error::{AuthError, Refusal};
use crate::config::{AppOnly, ClaimMark, ClaimPath, IssuerConfig, Profile, TokenMode, Wanted};

/// Clocks may differ by this much.
const LEEWAY: Duration = Duration::from_secs(30);
/// Most groups of a principal.
pub(super) const GROUPS_MAX: usize = 2_000;
/// What stands before a role where grants name it as a group. No group of a token may begin so.
const ROLE_PREFIX: &str = "role:";
/// What stands between the claims that together name a user. None of them may contain it.
const SUBJECT_SEPARATOR: char = '/';

/// Claims that only ID tokens carry (OpenID Connect Core §3).
const ID_TOKEN_CLAIMS: [&str; 3] = ["nonce", "at_hash", "c_hash"];

/// What Keycloak calls its other tokens in their `typ`: they are signed like access tokens, and introspected like them.
const OTHER_KINDS: [&str; 3] = ["Refresh", "Offline", "Logout"];
/// The `token_type` of an access token that whoever holds it may use (RFC 6750 §4).
const BEARER: &str = "Bearer";

/// Claims that somebody vouches for.
#[derive(Debug)]
pub(super) struct Claims {
    required: Required,
    all: Map<String, Value>,
}

/// Claims without which a token is none (RFC 9068 §2.2), in the only shapes that are accepted. Times are seconds.
#[derive(Debug, Deserialize)]
struct Required {
    iss: String,
    sub: String,
    aud: Option<Audience>,
    exp: i64,
    iat: Option<i64>,
    nbf: Option<i64>,
}

/// Where a token is good, as far as its audience goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GoodFor {
    /// On every route: an audience of the settings, or none at all from a client that is allowed.
    Everything,
    /// On routes with one of these identifiers.
    Only(Arc<[String]>),
}

impl GoodFor {
    /// Whether that includes a route with these identifiers.
    pub(super) fn includes(&self, route: &[String]) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(audiences) => audiences.iter().any(|audience| route.contains(audience)),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Claims {
    pub(super) fn parse(all: Map<String, Value>) -> Result<Self, Refusal> {
        let required = serde_json::from_value(Value::Object(all.clone())).map_err(|_| Refusal::ClaimShape)?;
        Ok(Self { required, all })
    }

    /// Checks everything that the claims say about the token itself. Scopes come last: to be told that they are missing is for
    /// those whose token is good otherwise.
    pub(super) fn check(
        &self,
        issuer: &IssuerConfig,
        profile: &Profile,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<(), AuthError> {
        if self.required.iss != issuer.url {
            return Err(Refusal::UnknownIssuer.into());
        }
        if !self.good_for(issuer)?.includes(audiences) {
            return Err(Refusal::Audience.into());
        }
        self.check_times(profile.max_lifetime, now)?;
        self.check_kind(profile)?;
        if issuer.mode == TokenMode::Introspect {
            self.check_answer()?;
        }
        if !issuer.allowed_clients.is_empty() {
            let client = self.client(profile)?.ok_or(Refusal::Client)?;
            if !issuer.allowed_clients.iter().any(|allowed| *allowed == *client) {
                return Err(Refusal::Client.into());
            }
        }
        if issuer.app_only == AppOnly::Refuse && self.is_app_only(profile)? {
            return Err(Refusal::AppOnly.into());
        }
        let scopes = self.texts(&profile.scope_claims)?;
        let has = |wanted: &String| scopes.iter().flat_map(|text| text.split(' ')).any(|scope| scope == wanted);
        if issuer.required_scopes.iter().all(has) {
            Ok(())
        } else {
            Err(AuthError::InsufficientScope(issuer.advertised_scopes().join(" ").into()))
        }
    }

    /// Where the token is good.
    pub(super) fn good_for(&self, issuer: &IssuerConfig) -> Result<GoodFor, Refusal> {
        let audiences = match &self.required.aud {
            Some(Audience::One(audience)) => std::slice::from_ref(audience),
            Some(Audience::Many(audiences)) => audiences.as_slice(),
            // RFC 7662 leaves the audience open. Then it is the client that must be one of those that call us.
            None if issuer.mode == TokenMode::Introspect && !issuer.allowed_clients.is_empty() => {
                return Ok(GoodFor::Everything);
            }
            None => return Err(Refusal::Audience),
        };
        let is_configured = |audience: &String| issuer.audiences.contains(audience);
        if audiences.iter().any(is_configured) { Ok(GoodFor::Everything) } else { Ok(GoodFor::Only(audiences.into())) }
    }

    /// What only an answer about a token says. Providers are asked about refresh tokens too, and call them active. These have no
    /// audience and no `token_type` (RFC 7662 §2.2), so one of the two must be there.
    fn check_answer(&self) -> Result<(), Refusal> {
        match self.all.get("token_type").filter(|kind| !kind.is_null()) {
            None if self.required.aud.is_some() => Ok(()),
            Some(Value::String(kind)) if kind.eq_ignore_ascii_case(BEARER) => Ok(()),
            _ => Err(Refusal::OtherKind),
        }
    }

    fn check_times(&self, max_lifetime: Duration, now: Timestamp) -> Result<(), Refusal> {
        let Required { exp, iat, nbf, .. } = &self.required;
        if now >= seconds(*exp).plus(LEEWAY) {
            return Err(Refusal::Expired);
        }
        let from_future = |moment: &Option<i64>| moment.is_some_and(|moment| now.plus(LEEWAY) < seconds(moment));
        if from_future(nbf) || from_future(iat) {
            return Err(Refusal::NotYet);
        }
        // A token that does not say when it began counts from now: what is left of it is at most its whole life.
        let begins = iat.map_or(now, seconds);
        if seconds(*exp) > begins.plus(max_lifetime) { Err(Refusal::Lifetime) } else { Ok(()) }
    }

    fn check_kind(&self, profile: &Profile) -> Result<(), Refusal> {
        let kind = self.all.get("typ").and_then(Value::as_str);
        if kind.is_some_and(|kind| OTHER_KINDS.contains(&kind)) {
            return Err(Refusal::OtherKind);
        }
        if kind == Some("ID") || ID_TOKEN_CLAIMS.iter().any(|claim| self.all.contains_key(*claim)) {
            return Err(Refusal::IdToken);
        }
        let marks = &profile.access_claims;
        if !marks.is_empty() && !marks.iter().any(|mark| self.bears(mark)) {
            return Err(Refusal::IdToken);
        }
        if self.all.contains_key("cnf") { Err(Refusal::Confirmation) } else { Ok(()) }
    }

    /// A token that a program got for itself: RFC 9068 §2.2 puts the client into its `sub`.
    fn is_app_only(&self, profile: &Profile) -> Result<bool, Refusal> {
        let is_own = self.client(profile)?.is_some_and(|client| *client == *self.required.sub);
        Ok(is_own || profile.app_only_marks.iter().any(|mark| self.bears(mark)))
    }

    fn bears(&self, ClaimMark { claim, wanted }: &ClaimMark) -> bool {
        let text = |claim| self.find(claim).and_then(Value::as_str);
        match wanted {
            Wanted::Present => self.find(claim).is_some(),
            Wanted::Absent => self.find(claim).is_none(),
            Wanted::Text(wanted) => text(claim) == Some(wanted),
            Wanted::Prefix(wanted) => text(claim).is_some_and(|text| text.starts_with(wanted)),
            Wanted::Suffix(wanted) => text(claim).is_some_and(|text| text.ends_with(wanted)),
            Wanted::SameAs(other) => text(claim).is_some_and(|own| text(other) == Some(own)),
        }
    }

    /// The user within the issuer. Never an e-mail address unless somebody configured that.
    pub(super) fn subject(&self, profile: &Profile) -> Result<Subject, Refusal> {
        let mut parts = Vec::new();
        for claim in &profile.subject_claims {
            let part = self.find(claim).and_then(Value::as_str).filter(|part| !part.is_empty());
            parts.push(part.ok_or(Refusal::ClaimShape)?);
        }
        if parts.len() > 1 && parts.iter().any(|part| part.contains(SUBJECT_SEPARATOR)) {
            return Err(Refusal::ClaimShape);
        }
        parts.join(&SUBJECT_SEPARATOR.to_string()).parse().map_err(|_| Refusal::ClaimShape)
    }

    /// The OAuth client that the token was issued to.
    pub(super) fn client(&self, profile: &Profile) -> Result<Option<Arc<str>>, Refusal> {
        match profile.client_claims.iter().find_map(|claim| self.find(claim)) {
            None => Ok(None),
            Some(Value::String(client)) => Ok(Some(client.as_str().into())),
            Some(_) => Err(Refusal::ClaimShape),
        }
    }

    /// The address to which the token's user is known elsewhere: compared with what a front says, and used for nothing else.
    pub(super) fn email(&self) -> Option<Arc<str>> {
        self.all.get("email").and_then(Value::as_str).map(Into::into)
    }

    /// Whether it says anything of groups or roles, be it that there are none.
    pub(super) fn names_groups(&self, profile: &Profile) -> bool {
        let mut claims = profile.group_claims.iter().chain(&profile.role_claims);
        claims.any(|claim| self.find(claim).is_some())
    }

    /// What people call the user, as far as a page may show it to them: it proves nothing.
    pub(super) fn shown_name(&self) -> Option<&str> {
        let names = ["email", "preferred_username", "name"];
        names.into_iter().find_map(|claim| self.all.get(claim).and_then(Value::as_str)).filter(|name| !name.is_empty())
    }

    /// Entra ID's name for the user in its directory.
    pub(super) fn object_id(&self) -> Option<Uuid> {
        self.all.get("oid").and_then(Value::as_str).and_then(|text| Uuid::try_parse(text).ok())
    }

    pub(super) fn expires_at(&self) -> Timestamp {
        seconds(self.required.exp).plus(LEEWAY)
    }

    /// Whether the issuer left one of these claims, or the one that it lies in, out of the token because it is too long.
    pub(super) fn lacks(&self, paths: &[ClaimPath]) -> bool {
        let names = self.all.get("_claim_names");
        let is_left_out = |claim: &str| {
            let is_named = names.is_some_and(|names| names.get(claim).is_some());
            is_named || (claim == "groups" && self.all.contains_key("hasgroups"))
        };
        paths.iter().map(ClaimPath::as_str).any(|path| {
            let first = path.split('.').next().unwrap_or(path);
            is_left_out(path) || is_left_out(first)
        })
    }

    /// The groups that the issuer vouches for, and its roles as groups with a prefix of their own.
    pub(super) fn groups(&self, profile: &Profile) -> Result<Vec<Group>, Refusal> {
        let mut groups = Vec::new();
        for text in self.texts(&profile.group_claims)? {
            groups.push(group(text)?);
        }
        for role in self.texts(&profile.role_claims)? {
            groups.push(format!("{ROLE_PREFIX}{role}").parse().map_err(|_| Refusal::Groups)?);
        }
        if groups.len() > GROUPS_MAX { Err(Refusal::Groups) } else { Ok(groups) }
    }

    /// A claim by its exact name, or by a dotted path into objects.
    fn find(&self, path: &ClaimPath) -> Option<&Value> {
        let path = path.as_str();
        let mut steps = path.split('.');
        let first = steps.next().and_then(|step| self.all.get(step));
        let nested = || steps.try_fold(first?, |value, step| value.get(step));
        self.all.get(path).or_else(nested).filter(|value| !value.is_null())
    }

    /// All texts of some claims, each of which is a text or a list of texts.
    fn texts(&self, paths: &[ClaimPath]) -> Result<Vec<&str>, Refusal> {
        let mut texts = Vec::new();
        for value in paths.iter().filter_map(|path| self.find(path)) {
            match value {
                Value::String(text) => texts.push(text.as_str()),
                Value::Array(values) if values.len() <= GROUPS_MAX => {
                    for value in values {
                        texts.push(value.as_str().ok_or(Refusal::Groups)?);
                    }
                }
                _ => return Err(Refusal::Groups),
            }
        }
        Ok(texts)
    }
}

/// A group as an issuer or a front calls it. One that looks like a role is neither.
pub(super) fn group(text: &str) -> Result<Group, Refusal> {
    if text.starts_with(ROLE_PREFIX) { Err(Refusal::Groups) } else { text.parse().map_err(|_| Refusal::Groups) }
}

fn seconds(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds.saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://idp.example.com";
    const ROUTE: &str = "https://mcp.example.com/mcp";

    /// What becomes of claims that are good but for `changes`, with an issuer of `settings`.
    fn judged(settings: &Value, changes: &Value) -> Result<(), AuthError> {
        let mut all = json!({"iss": ISSUER, "sub": "alice", "aud": ROUTE, "iat": 1_000, "exp": 1_300});
        let mut issuer = json!({"name": "corp", "url": ISSUER});
        for (into, from) in [(&mut all, changes), (&mut issuer, settings)] {
            for (name, value) in from.as_object().unwrap() {
                into[name] = value.clone();
            }
        }
        all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let issuer: IssuerConfig = serde_json::from_value(issuer).unwrap();
        let claims = Claims::parse(all.as_object().unwrap().clone())?;
        claims.check(&issuer, &issuer.profile(), &[ROUTE.to_owned()], Timestamp::from_millis(1_100_000))
    }

    #[test]
    fn a_programs_own_token_is_known_whatever_the_provider_leaves_out() {
        for (preset, changes) in [
            ("oidc", json!({"sub": "nightly", "client_id": "nightly"})),
            ("keycloak", json!({"preferred_username": "service-account-nightly"})),
            ("keycloak", json!({"azp": "nightly", "clientHost": "10.0.0.1", "clientAddress": "10.0.0.1"})),
            ("auth0", json!({"azp": "nightly", "gty": "client-credentials"})),
            ("auth0", json!({"sub": "nightly@clients", "azp": "nightly"})),
            ("okta", json!({"sub": "nightly", "cid": "nightly"})),
            ("entra", json!({"sub": "7f9c", "oid": "7f9c", "roles": ["acme"]})),
        ] {
            let refused = judged(&json!({"preset": preset}), &changes);
            assert_eq!(refused, Err(Refusal::AppOnly.into()), "{preset} {changes}");
            let allowed = judged(&json!({"preset": preset, "app_only": "allow"}), &changes);
            assert_eq!(allowed, Ok(()), "{preset} {changes}");
        }
        for (preset, changes) in [
            ("keycloak", json!({"azp": "open-webui", "preferred_username": "alice"})),
            ("auth0", json!({"sub": "auth0|alice", "azp": "open-webui"})),
        ] {
            assert_eq!(judged(&json!({"preset": preset}), &changes), Ok(()), "{preset} {changes}");
        }
    }

    #[test]
    fn an_answer_names_scope_and_client_as_the_standard_does_whatever_the_tokens_do() {
        let settings = json!({
            "preset": "okta", "mode": "introspect", "required_scopes": ["mcp.use"], "allowed_clients": ["open-webui"],
        });
        let answer = json!({"client_id": "open-webui", "scope": "openid mcp.use", "token_type": "Bearer"});
        assert_eq!(judged(&settings, &answer), Ok(()));
        let jwt = json!({"preset": "okta", "required_scopes": ["mcp.use"]});
        assert_eq!(judged(&jwt, &answer), Err(Refusal::IdToken.into()), "a token of Okta's names them otherwise");
    }

    #[test]
    fn permissions_of_auth0_are_no_scopes() {
        let settings = json!({"preset": "auth0", "required_scopes": ["mcp:use"]});
        let permitted = judged(&settings, &json!({"permissions": ["mcp:use"], "scope": "openid"}));
        assert_eq!(permitted, Err(AuthError::InsufficientScope("mcp:use".into())));
    }

    #[test]
    fn a_claim_that_was_left_out_is_missed_also_within_another_one() {
        let lacks = |left_out: &Value, path: &str| {
            let all = json!({"iss": ISSUER, "sub": "alice", "exp": 1, "_claim_names": left_out});
            let path: ClaimPath = serde_json::from_value(json!(path)).unwrap();
            Claims::parse(all.as_object().unwrap().clone()).unwrap().lacks(&[path])
        };
        assert!(lacks(&json!({"groups": "src1"}), "groups"));
        assert!(lacks(&json!({"realm_access": "src1"}), "realm_access.roles"));
        assert!(lacks(&json!({"https://corp.example/groups": "src1"}), "https://corp.example/groups"));
        assert!(!lacks(&json!({"groups": "src1"}), "roles"));
    }
}
