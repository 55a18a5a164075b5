//! The transit engine of HashiCorp Vault and OpenBao (HTTP API v1, `secret/transit`): wraps data keys, each bound to its place by
//! `associated_data`. The wrapping key never leaves Vault.

mod session;

use std::pin::Pin;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use crypto::{Key, Zeroizing};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tenant_store::{Asking, KekError, KekId, KeyEncryption, KeyPlace};
use url::Url;

use super::KeysError;
use crate::config::VaultConfig;
use crate::egress::{Client, Egress, Response, SendError};
use session::Session;

/// How long one answer may take.
const VAULT_TIMEOUT: Duration = Duration::from_secs(4);
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Vault demands it where it is set to, against requests that a browser or a proxy was tricked into.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// One transit key.
#[derive(Debug)]
pub(super) struct Vault {
    api: Api,
    session: Session,
    mount: String,
    key: String,
}

/// Vault's HTTP API.
#[derive(Debug)]
struct Api {
    http: Client,
    address: Url,
    namespace: Option<HeaderValue>,
}

/// One request.
struct Call<'c> {
    method: Method,
    path: &'c str,
    body: Option<Value>,
}

impl Vault {
    pub(super) fn new(config: &VaultConfig, egress: &Egress) -> Result<Self, KeysError> {
        let namespace = config.namespace.as_deref().map(HeaderValue::from_str).transpose();
        let namespace = namespace.map_err(|_| crate::config::ConfigError::Setting {
            setting: "keys.vault.namespace".to_owned(),
            problem: "must be plain text".to_owned(),
        })?;
        let api = Api { http: egress.client([&config.address]), address: config.address.clone(), namespace };
        let session = Session::new(config.login()?);
        Ok(Self { api, session, mount: config.mount.clone(), key: config.key.clone() })
    }

    /// Asks as the session's holder. A token that Vault does not take any more is replaced, once in a while.
    async fn ask(&self, call: &Call<'_>) -> Result<Value, KekError> {
        let token = self.session.token(&self.api).await?;
        match self.api.send(Some(&token), call).await {
            Err(KekError::Denied) => {
                let token = self.session.another(&self.api, &token).await?;
                self.api.send(Some(&token), call).await
            }
            answer => answer,
        }
    }

    fn path(&self, action: &str) -> String {
        format!("{}/{action}/{}", self.mount, self.key)
    }

    fn id_of(&self, version: &str) -> Result<KekId, KekError> {
        format!("{}{version}", self.prefix()).parse().map_err(|_| KekError::Malformed)
    }

    fn prefix(&self) -> String {
        format!("vault:{}/{}:", self.mount, self.key)
    }

    async fn encrypt(&self, place: &KeyPlace, key: &Key) -> Result<(KekId, Vec<u8>), KekError> {
        let plaintext = Zeroizing::new(BASE64_STANDARD.encode(key.bytes()));
        let body = json!({ "plaintext": *plaintext, "associated_data": BASE64_STANDARD.encode(place.context()) });
        let path = self.path("encrypt");
        let answer = self.ask(&Call { method: Method::POST, path: &path, body: Some(body) }).await?;
        let ciphertext = answer.pointer("/data/ciphertext").and_then(Value::as_str).ok_or(KekError::Malformed)?;
        let version = ciphertext.strip_prefix("vault:").and_then(|rest| rest.split_once(':'));
        let (version, _) = version.ok_or(KekError::Malformed)?;
        Ok((self.id_of(version)?, ciphertext.as_bytes().to_vec()))
    }

    async fn decrypt(&self, place: &KeyPlace, wrapped: &[u8]) -> Result<Key, KekError> {
        let ciphertext = std::str::from_utf8(wrapped).map_err(|_| KekError::Malformed)?;
        let body = json!({ "ciphertext": ciphertext, "associated_data": BASE64_STANDARD.encode(place.context()) });
        let path = self.path("decrypt");
        let mut answer = self.ask(&Call { method: Method::POST, path: &path, body: Some(body) }).await?;
        let plaintext = answer.pointer_mut("/data/plaintext").map(Value::take);
        let Some(Value::String(plaintext)) = plaintext else { return Err(KekError::Malformed) };
        Key::parse(&SecretString::from(plaintext)).map_err(|_| KekError::Malformed)
    }

    async fn latest(&self) -> Result<KekId, KekError> {
        let path = self.path("keys");
        let answer = self.ask(&Call { method: Method::GET, path: &path, body: None }).await?;
        let version = answer.pointer("/data/latest_version").and_then(Value::as_u64).ok_or(KekError::Malformed)?;
        self.id_of(&format!("v{version}"))
    }
}

impl KeyEncryption for Vault {
    fn primary(&self) -> Asking<'_, KekId> {
        Box::pin(self.latest())
    }

    fn wrap<'a>(&'a self, place: KeyPlace, key: &'a Key) -> Asking<'a, (KekId, Vec<u8>)> {
        Box::pin(async move { self.encrypt(&place, key).await })
    }

    fn unwrap<'a>(&'a self, place: KeyPlace, _: &'a KekId, wrapped: &'a [u8]) -> Asking<'a, Key> {
        Box::pin(async move { self.decrypt(&place, wrapped).await })
    }

    fn knows(&self, kek: &KekId) -> bool {
        kek.as_str().starts_with(&self.prefix())
    }

    fn describe(&self) -> String {
        format!("{}*", self.prefix())
    }

    fn keep_alive(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.session.keep_alive(&self.api))
    }
}

impl Api {
    async fn send(&self, token: Option<&SecretString>, call: &Call<'_>) -> Result<Value, KekError> {
        let url = self.address.join(&format!("/v1/{}", call.path)).map_err(|_| KekError::Malformed)?;
        let request = self.http.request(call.method.clone(), &url).map_err(|error| unreachable(&error))?;
        let mut request = request.timeout(VAULT_TIMEOUT).header(REQUEST, HeaderValue::from_static("true"));
        if let Some(namespace) = &self.namespace {
            request = request.header(NAMESPACE, namespace.clone());
        }
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token.expose_secret()).map_err(|_| KekError::Refused)?;
            value.set_sensitive(true);
            request = request.header(TOKEN, value);
        }
        if let Some(body) = &call.body {
            let json = HeaderValue::from_static("application/json");
            request = request.header(CONTENT_TYPE, json).body(body.to_string());
        }
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        let body = read(response).await?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body).map_err(|_| KekError::Malformed),
            StatusCode::NO_CONTENT => Ok(Value::Null),
            // Not with this token, or not at all: Vault does not say which.
            StatusCode::FORBIDDEN => Err(KekError::Denied),
            // A wrong context or ciphertext, no such key: it will not be otherwise the next time. What is not in Vault's form was
            // said by something in between.
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND if is_of_vault(&body) => Err(KekError::Refused),
            status => {
                tracing::warn!(status = status.as_u16(), "Vault cannot answer now");
                Err(KekError::Unreachable)
            }
        }
    }
}

/// Whether it is an answer of Vault's that tells what is wrong.
fn is_of_vault(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|answer| answer.get("errors").is_some_and(Value::is_array))
}

/// The body may hold a key. It lies in one place, which is wiped.
async fn read(mut response: Response) -> Result<Zeroizing<Vec<u8>>, KekError> {
    let mut body = Zeroizing::new(Vec::with_capacity(ANSWER_BYTES_MAX));
    while let Some(chunk) = response.chunk().await {
        let chunk = chunk.map_err(|error| unreachable(&error))?;
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(KekError::Malformed);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn unreachable(error: &SendError) -> KekError {
    tracing::warn!(error = error as &dyn std::error::Error, "Vault cannot be reached");
    KekError::Unreachable
}
