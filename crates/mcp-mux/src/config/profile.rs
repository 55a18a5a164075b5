//! What a provider's tokens are like: which of them are accepted, and where they say what. A preset is one such profile.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::issuer::Preset;

/// The header `typ` of a JWT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum TokenType {
    /// `at+jwt`, which says that it is an access token (RFC 9068 §2.1).
    #[serde(rename = "at+jwt")]
    AccessToken,
    /// `JWT`, or nothing.
    #[serde(rename = "JWT")]
    Any,
}

/// Signature algorithms (RFC 7518 §3.1, RFC 8037): asymmetric ones only, so that no public key can pass for a shared secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256
    #[serde(rename = "RS256")]
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-512
    #[serde(rename = "RS512")]
    Rs512,
    /// RSASSA-PSS with SHA-256
    #[serde(rename = "PS256")]
    Ps256,
    /// ECDSA on P-256
    #[serde(rename = "ES256")]
    Es256,
    /// ECDSA on P-384
    #[serde(rename = "ES384")]
    Es384,
    /// Ed25519
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// Where a claim is: its exact name, or a path into objects with dots between its steps.
#[derive(Clone, PartialEq, Eq)]
pub struct ClaimPath(String);

/// A claim that tells something about a token: `claim` for one that is there, `!claim` for one that is absent, `claim=value`,
/// `claim=prefix*`, `claim=*suffix`, or `claim=@other` for one that says the same as another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimMark {
    /// Where it looks.
    pub claim: ClaimPath,
    /// What it wants to find there.
    pub wanted: Wanted,
}

/// What a [`ClaimMark`] wants to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Anything.
    Present,
    /// Nothing.
    Absent,
    /// Exactly this text.
    Text(String),
    /// A text that begins so.
    Prefix(String),
    /// A text that ends so.
    Suffix(String),
    /// The text of another claim.
    SameAs(ClaimPath),
}

/// What an issuer's tokens are like and which of them are accepted: the preset with the settings over it.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Accepted values of the header `typ`.
    pub token_types: Vec<TokenType>,
    /// Accepted algorithms.
    pub algorithms: Vec<SigningAlgorithm>,
    /// Claims that list OAuth scopes.
    pub scope_claims: Vec<ClaimPath>,
    /// Claims that name the OAuth client.
    pub client_claims: Vec<ClaimPath>,
    /// Claims that list groups.
    pub group_claims: Vec<ClaimPath>,
    /// Claims that list roles.
    pub role_claims: Vec<ClaimPath>,
    /// Claims that together name the user.
    pub subject_claims: Vec<ClaimPath>,
    /// What an access token has at least one of, and an ID token none; empty when nothing tells.
    pub access_claims: Vec<ClaimMark>,
    /// What tells a token without a user.
    pub app_only_marks: Vec<ClaimMark>,
    /// Longest life of a token.
    pub max_lifetime: Duration,
}

impl Profile {
    /// What is known about a provider's tokens.
    pub(super) fn preset(preset: Preset) -> Self {
        use SigningAlgorithm::{EdDsa, Es256, Es384, Ps256, Rs256, Rs512};
        let oidc = Self {
            token_types: vec![TokenType::AccessToken, TokenType::Any],
            algorithms: vec![Rs256, Rs512, Ps256, Es256, Es384, EdDsa],
            scope_claims: paths(&["scope", "scp"]),
            client_claims: paths(&["client_id", "azp"]),
            group_claims: paths(&["groups"]),
            role_claims: Vec::new(),
            subject_claims: paths(&["sub"]),
            access_claims: Vec::new(),
            app_only_marks: Vec::new(),
            max_lifetime: Duration::from_hours(24),
        };
        match preset {
            Preset::Oidc => oidc,
            Preset::Entra => Self {
                algorithms: vec![Rs256],
                scope_claims: paths(&["scp"]),
                client_claims: paths(&["azp", "appid"]),
                role_claims: paths(&["roles"]),
                subject_claims: paths(&["tid", "oid"]),
                // Roles tell nothing: ID tokens have them too. A program's own token names the same object twice.
                access_claims: vec![present("scp"), text("idtyp", "app"), same("sub", "oid")],
                app_only_marks: vec![text("idtyp", "app"), absent("scp")],
                max_lifetime: Duration::from_hours(2),
                ..oidc
            },
            Preset::Keycloak => Self {
                scope_claims: paths(&["scope"]),
                client_claims: paths(&["azp", "client_id"]),
                role_claims: paths(&["realm_access.roles"]),
                // The name is there with the scope `profile` only, so what the scope `service_account` adds counts as well.
                app_only_marks: vec![
                    prefix("preferred_username", "service-account-"),
                    present("clientHost"),
                    present("clientAddress"),
                    present("clientId"),
                ],
                ..oidc
            },
            Preset::Okta => Self {
                algorithms: vec![Rs256],
                scope_claims: paths(&["scp"]),
                client_claims: paths(&["cid"]),
                access_claims: vec![present("cid")],
                ..oidc
            },
            Preset::Auth0 => Self {
                algorithms: vec![Rs256, Ps256],
                scope_claims: paths(&["scope"]),
                client_claims: paths(&["azp", "client_id"]),
                app_only_marks: vec![text("gty", "client-credentials"), suffix("sub", "@clients")],
                ..oidc
            },
        }
    }
}

impl Profile {
    /// The same for a provider that is asked: its answers name scope and client as RFC 7662 §2.2 wants it, whatever its tokens do.
    pub(super) fn of_answers(mut self) -> Self {
        let (scope, client) = (ClaimPath("scope".to_owned()), ClaimPath("client_id".to_owned()));
        if !self.access_claims.is_empty() {
            self.access_claims.push(ClaimMark { claim: client.clone(), wanted: Wanted::Present });
        }
        for (claims, claim) in [(&mut self.scope_claims, scope), (&mut self.client_claims, client)] {
            if !claims.contains(&claim) {
                claims.push(claim);
            }
        }
        self
    }
}

fn paths(names: &[&str]) -> Vec<ClaimPath> {
    names.iter().map(|name| ClaimPath((*name).to_owned())).collect()
}

fn mark(claim: &str, wanted: Wanted) -> ClaimMark {
    ClaimMark { claim: ClaimPath(claim.to_owned()), wanted }
}

fn present(claim: &str) -> ClaimMark {
    mark(claim, Wanted::Present)
}

fn absent(claim: &str) -> ClaimMark {
    mark(claim, Wanted::Absent)
}

fn text(claim: &str, text: &str) -> ClaimMark {
    mark(claim, Wanted::Text(text.to_owned()))
}

fn prefix(claim: &str, text: &str) -> ClaimMark {
    mark(claim, Wanted::Prefix(text.to_owned()))
}

fn suffix(claim: &str, text: &str) -> ClaimMark {
    mark(claim, Wanted::Suffix(text.to_owned()))
}

fn same(claim: &str, other: &str) -> ClaimMark {
    mark(claim, Wanted::SameAs(ClaimPath(other.to_owned())))
}

impl ClaimPath {
    /// The path as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for ClaimPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() { Err(de::Error::custom("a claim has a name")) } else { Ok(Self(text)) }
    }
}

impl<'de> Deserialize<'de> for ClaimMark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_mark(&text).ok_or_else(|| {
            de::Error::custom(
                "a mark is `claim`, `!claim`, `claim=value`, `claim=prefix*`, `claim=*suffix` or `claim=@other`",
            )
        })
    }
}

fn parse_mark(mark: &str) -> Option<ClaimMark> {
    let parsed = match (mark.strip_prefix('!'), mark.split_once('=')) {
        (Some(claim), _) => absent(claim),
        (None, None) => present(mark),
        (None, Some((claim, value))) => {
            match (value.strip_prefix('*'), value.strip_suffix('*'), value.strip_prefix('@')) {
                (Some(end), None, _) => suffix(claim, end),
                (None, Some(begin), _) => prefix(claim, begin),
                (None, None, Some(other)) if !other.is_empty() => same(claim, other),
                (None, None, None) => text(claim, value),
                _ => return None,
            }
        }
    };
    (!parsed.claim.as_str().is_empty()).then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_what_it_wants_to_find() {
        for (written, wanted) in [
            ("scp", Some(Wanted::Present)),
            ("!scp", Some(Wanted::Absent)),
            ("scp=app", Some(Wanted::Text("app".to_owned()))),
            ("scp=service-*", Some(Wanted::Prefix("service-".to_owned()))),
            ("scp=*@clients", Some(Wanted::Suffix("@clients".to_owned()))),
            ("scp=@oid", Some(Wanted::SameAs(ClaimPath("oid".to_owned())))),
            ("", None),
            ("!", None),
            ("=x", None),
            ("scp=@", None),
            ("scp=*x*", None),
        ] {
            let mark = parse_mark(written);
            assert_eq!(mark.as_ref().map(|mark| &mark.wanted), wanted.as_ref(), "{written}");
            assert!(mark.is_none_or(|mark| mark.claim.as_str() == "scp"), "{written}");
        }
    }
}
