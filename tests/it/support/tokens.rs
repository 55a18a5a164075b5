//! An upstream's view of access tokens: it verifies them with the issuer's keys, notes whose they are, and can be told to refuse some.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use super::provider::Provider;
use super::upstreams::Guard;

/// For what the tests' tokens are issued.
pub(crate) const RESOURCE: &str = "https://mcp.acme.example/mcp";

/// One request that showed a good token.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    /// The token.
    pub token: String,
    /// Whose it is.
    pub subject: String,
    /// The body of the request.
    pub body: String,
}

/// What was shown, and what is refused.
#[derive(Clone)]
pub(crate) struct TokenGuard {
    keys: Arc<JwkSet>,
    shown: Arc<Mutex<Vec<Shown>>>,
    refused: Arc<Mutex<HashSet<String>>>,
    refuses_all: Arc<Mutex<bool>>,
    refuses_first_of: Arc<Mutex<Option<String>>>,
    refuses_bodies_with: Arc<Mutex<Option<String>>>,
}

impl TokenGuard {
    /// Lets in whoever shows a token that `provider` issued for [`RESOURCE`].
    pub(crate) async fn of(provider: &Provider) -> Result<Self> {
        let keys = serde_json::from_value(provider.keys().await?)?;
        Ok(Self {
            keys: Arc::new(keys),
            shown: Arc::default(),
            refused: Arc::default(),
            refuses_all: Arc::default(),
            refuses_first_of: Arc::default(),
            refuses_bodies_with: Arc::default(),
        })
    }

    /// What decides about each request.
    pub(crate) fn guard(&self) -> Guard {
        let this = self.clone();
        Arc::new(move |parts, body| {
            let header = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
            let token = header.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
            this.lets_in(token, body)
        })
    }

    fn lets_in(&self, token: &str, body: &[u8]) -> bool {
        let Ok(subject) = self.subject(token) else { return false };
        let body = String::from_utf8_lossy(body).into_owned();
        if held(&self.refuses_first_of).take_if(|refused| *refused == subject).is_some() {
            self.refuse(token);
        }
        let refuses_body = held(&self.refuses_bodies_with).as_ref().is_some_and(|text| body.contains(text));
        held(&self.shown).push(Shown { token: token.to_owned(), subject, body });
        !refuses_body && !*held(&self.refuses_all) && !held(&self.refused).contains(token)
    }

    fn subject(&self, token: &str) -> Result<String> {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&[RESOURCE]);
        validation.leeway = 0;
        let kid = jsonwebtoken::decode_header(token)?.kid.context("a key id")?;
        let key = DecodingKey::from_jwk(self.keys.find(&kid).context("a key")?)?;
        let claims: Value = jsonwebtoken::decode(token, &key, &validation)?.claims;
        Ok(claims["sub"].as_str().context("a subject")?.to_owned())
    }

    /// Everything that was shown so far.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        held(&self.shown).clone()
    }

    /// The token that was shown last.
    pub(crate) fn last(&self) -> Result<Shown> {
        held(&self.shown).last().cloned().context("a token was shown")
    }

    /// Answers 401 to what holds `text`, whatever token is shown.
    pub(crate) fn refuse_bodies_with(&self, text: &str) {
        *held(&self.refuses_bodies_with) = Some(text.to_owned());
    }

    /// Refuses that token from now on.
    pub(crate) fn refuse(&self, token: &str) {
        held(&self.refused).insert(token.to_owned());
    }

    /// Refuses the next token of `subject` that is shown.
    pub(crate) fn refuse_first_of(&self, subject: &str) {
        *held(&self.refuses_first_of) = Some(subject.to_owned());
    }

    /// Refuses whatever is shown from now on, or not.
    pub(crate) fn refuse_all(&self, refuses: bool) {
        *held(&self.refuses_all) = refuses;
    }
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
