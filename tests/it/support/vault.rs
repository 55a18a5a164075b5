//! A stand-in for Vault that speaks the documented API of transit and of three ways to sign in, with real encryption, versions of
//! its key, tokens that end, and a switch that puts it out of reach.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Result;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use crypto::{Key, KeyRing, Place};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use super::server::serve;

/// Vault as a test sees it.
#[derive(Clone)]
pub(crate) struct Vault {
    /// Where it listens.
    pub url: String,
    state: Arc<Mutex<Inside>>,
}

struct Inside {
    versions: Vec<KeyRing>,
    /// Those that are good, and until when.
    tokens: HashMap<String, Option<Instant>>,
    lease: Duration,
    sign_ins: HashMap<String, usize>,
    secret_id: String,
    service_account: String,
    is_sealed: bool,
    renewals: watch::Sender<usize>,
}

type Answer = Result<Json<Value>, (StatusCode, Json<Value>)>;

impl Vault {
    /// One with a transit key `mcp-mux`, a root token, an AppRole and a service account, each known by what is given.
    pub(crate) async fn start(root: &str, secret_id: &str, service_account: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let inside = Inside {
            versions: vec![KeyRing::new(Key::generate()?, Vec::new())],
            tokens: HashMap::from([(root.to_owned(), None)]),
            lease: Duration::from_hours(1),
            sign_ins: HashMap::new(),
            secret_id: secret_id.to_owned(),
            service_account: service_account.to_owned(),
            is_sealed: false,
            renewals: watch::Sender::new(0),
        };
        let vault = Self { url, state: Arc::new(Mutex::new(inside)) };
        let routes = Router::new()
            .route("/v1/transit/encrypt/mcp-mux", post(encrypt))
            .route("/v1/transit/decrypt/mcp-mux", post(decrypt))
            .route("/v1/transit/keys/mcp-mux", get(key))
            .route("/v1/auth/{method}/login", post(login))
            .route("/v1/auth/token/renew-self", post(renew))
            .route("/v1/auth/token/lookup-self", get(look_up))
            .with_state(vault.clone());
        serve(listener, routes);
        Ok(vault)
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.state.lock().expect("no test panics inside Vault")
    }

    /// Makes a new version of the key, as `vault write -f transit/keys/mcp-mux/rotate` does.
    pub(crate) fn rotate(&self) -> Result<()> {
        let key = KeyRing::new(Key::generate()?, Vec::new());
        self.inside().versions.push(key);
        Ok(())
    }

    /// How long the tokens of later sign-ins and renewals are good.
    pub(crate) fn lend_for(&self, lease: Duration) {
        self.inside().lease = lease;
    }

    /// Waits until tokens were renewed so often.
    pub(crate) async fn renewed(&self, times: usize) -> Result<()> {
        let mut renewals = self.inside().renewals.subscribe();
        tokio::time::timeout(Duration::from_secs(30), renewals.wait_for(|count| *count >= times)).await??;
        Ok(())
    }

    /// Out of reach, or back.
    pub(crate) fn seal(&self, sealed: bool) {
        self.inside().is_sealed = sealed;
    }

    /// Revokes every token that came of signing in.
    pub(crate) fn revoke_all(&self) {
        self.inside().tokens.retain(|token, _| !token.starts_with("hvs."));
    }

    /// How often somebody signed in by `method`.
    pub(crate) fn sign_ins(&self, method: &str) -> usize {
        self.inside().sign_ins.get(method).copied().unwrap_or_default()
    }
}

fn refuse<T>(status: StatusCode) -> Result<T, (StatusCode, Json<Value>)> {
    Err((status, Json(json!({ "errors": ["CANARY-vault-says: permission denied"] }))))
}

fn check(vault: &Vault, headers: &HeaderMap) -> Result<String, (StatusCode, Json<Value>)> {
    let inside = vault.inside();
    if inside.is_sealed {
        return refuse(StatusCode::SERVICE_UNAVAILABLE);
    }
    let token = headers.get("x-vault-token").and_then(|token| token.to_str().ok()).unwrap_or_default();
    let is_real_request = headers.get("x-vault-request").is_some_and(|value| value == "true");
    let good = inside.tokens.get(token).is_some_and(|ends_at| ends_at.is_none_or(|end| Instant::now() < end));
    if is_real_request && good { Ok(token.to_owned()) } else { refuse(StatusCode::FORBIDDEN) }
}

/// Calls `act` with the place that stands for the request's associated data.
fn in_context<T>(body: &Value, act: impl FnOnce(&Place<'_>) -> Option<T>) -> Result<T, (StatusCode, Json<Value>)> {
    let context = body["associated_data"].as_str().unwrap_or_default();
    let place = Place { tenant: context, table: "vault", column: "", row: "", kind: "", version: 1 };
    act(&place).map_or_else(|| refuse(StatusCode::BAD_REQUEST), Ok)
}

async fn encrypt(State(vault): State<Vault>, headers: HeaderMap, Json(body): Json<Value>) -> Answer {
    check(&vault, &headers)?;
    let inside = vault.inside();
    let ciphertext = in_context(&body, |place| {
        let plaintext = BASE64_STANDARD.decode(body["plaintext"].as_str()?).ok()?;
        let sealed = crypto::seal(inside.versions.last()?, place, &plaintext).ok()?;
        Some(format!("vault:v{}:{}", inside.versions.len(), BASE64_STANDARD.encode(sealed)))
    })?;
    Ok(Json(json!({ "data": { "ciphertext": ciphertext, "key_version": inside.versions.len() } })))
}

async fn decrypt(State(vault): State<Vault>, headers: HeaderMap, Json(body): Json<Value>) -> Answer {
    check(&vault, &headers)?;
    let inside = vault.inside();
    let plaintext = in_context(&body, |place| {
        let (version, sealed) = body["ciphertext"].as_str()?.strip_prefix("vault:v")?.split_once(':')?;
        let ring = inside.versions.get(version.parse::<usize>().ok()?.checked_sub(1)?)?;
        crypto::open(ring, place, &BASE64_STANDARD.decode(sealed).ok()?).ok()
    })?;
    Ok(Json(json!({ "data": { "plaintext": BASE64_STANDARD.encode(&*plaintext) } })))
}

async fn key(State(vault): State<Vault>, headers: HeaderMap) -> Answer {
    check(&vault, &headers)?;
    Ok(Json(json!({ "data": { "name": "mcp-mux", "latest_version": vault.inside().versions.len() } })))
}

async fn login(State(vault): State<Vault>, Path(method): Path<String>, Json(body): Json<Value>) -> Answer {
    let mut inside = vault.inside();
    if inside.is_sealed {
        return refuse(StatusCode::SERVICE_UNAVAILABLE);
    }
    let is_known = match method.as_str() {
        "approle" => body["role_id"] == "mux" && body["secret_id"] == inside.secret_id,
        "kubernetes" => body["role"] == "mux" && body["jwt"] == inside.service_account,
        _ => false,
    };
    if !is_known {
        return refuse(StatusCode::BAD_REQUEST);
    }
    *inside.sign_ins.entry(method).or_default() += 1;
    let token = format!("hvs.CANARY-{}", uuid::Uuid::new_v4().simple());
    Ok(lend(&mut inside, &token))
}

/// Lends a token, anew or for the first time.
fn lend(inside: &mut Inside, token: &str) -> Json<Value> {
    inside.tokens.insert(token.to_owned(), Some(Instant::now() + inside.lease));
    let auth = json!({ "client_token": token, "lease_duration": inside.lease.as_secs(), "renewable": true });
    Json(json!({ "auth": auth }))
}

async fn renew(State(vault): State<Vault>, headers: HeaderMap) -> Answer {
    let token = check(&vault, &headers)?;
    let mut inside = vault.inside();
    inside.renewals.send_modify(|count| *count += 1);
    Ok(lend(&mut inside, &token))
}

async fn look_up(State(vault): State<Vault>, headers: HeaderMap) -> Answer {
    let token = check(&vault, &headers)?;
    let ends_at = vault.inside().tokens.get(&token).copied().flatten();
    let ttl = ends_at.map_or(0, |end| end.saturating_duration_since(Instant::now()).as_secs());
    Ok(Json(json!({ "data": { "ttl": ttl, "renewable": ttl > 0 } })))
}
