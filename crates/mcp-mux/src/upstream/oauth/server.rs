//! One authorization server as one upstream's link knows it: bounded exchanges, and where its token endpoint is.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use tenant_store::AuthorizationServer;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::super::answer::whole;
use super::super::error::UpstreamError;
use super::discovery;
use super::error::OAuthError;
use super::held::FAILURE_LIFE;
use crate::egress::{Client, Request, SendError};

/// How long one exchange may take.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// For how long discovered metadata is believed.
const METADATA_LIFE: Duration = Duration::from_hours(1);

/// One authorization server.
#[derive(Debug)]
pub(in crate::upstream) struct Server {
    http: Http,
    place: AuthorizationServer,
    discovered: ArcSwapOption<(Instant, Url)>,
    /// Whoever holds it looks for metadata. It remembers a failure.
    turn: Mutex<Option<(Instant, OAuthError)>>,
}

/// Bounded exchanges.
#[derive(Debug, Clone)]
pub(in crate::upstream) struct Http(Client);

/// What kind of answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// What was asked for.
    Ok,
    /// Not for this request.
    Refused,
    /// Not now.
    Failing,
}

/// What is posted to a token endpoint.
pub(super) struct Form {
    pub(super) body: SecretString,
    /// `Authorization`, where the client proves itself by it.
    pub(super) authorization: Option<HeaderValue>,
}

impl Server {
    pub(in crate::upstream) fn new(place: &AuthorizationServer, http: Client) -> Self {
        Self { http: Http(http), place: place.clone(), discovered: ArcSwapOption::empty(), turn: Mutex::new(None) }
    }

    /// The token endpoint, and for whom a client signs its assertions there.
    pub(super) async fn endpoint(&self) -> Result<(Url, String), OAuthError> {
        let issuer = match &self.place {
            AuthorizationServer::TokenUrl(url) => {
                let parsed = Url::parse(url.as_str()).map_err(|_| OAuthError::NotWritten)?;
                return Ok((parsed, url.to_string()));
            }
            AuthorizationServer::Issuer(issuer) => issuer,
        };
        if let Some(known) = self.known() {
            return Ok((known, issuer.to_string()));
        }
        let mut failure = self.turn.lock().await;
        if let Some(known) = self.known() {
            return Ok((known, issuer.to_string()));
        }
        if let Some((_, error)) = failure.filter(|(at, _)| at.elapsed() < FAILURE_LIFE) {
            return Err(error);
        }
        let url = discovery::metadata(&self.http, issuer).await.and_then(discovery::Metadata::own_token_endpoint);
        *failure = url.as_ref().err().map(|error| (Instant::now(), *error));
        let url = url?;
        self.discovered.store(Some(Arc::new((Instant::now(), url.clone()))));
        Ok((url, issuer.to_string()))
    }

    fn known(&self) -> Option<Url> {
        let known = self.discovered.load_full()?;
        (known.0.elapsed() < METADATA_LIFE).then(|| known.1.clone())
    }

    pub(super) async fn post(&self, url: Url, form: Form) -> Result<(Status, Bytes), OAuthError> {
        self.http.post(&url, form).await
    }
}

/// What is known of a request that got no response.
fn unsent(error: &SendError) -> OAuthError {
    tracing::debug!(error = error as &dyn std::error::Error, "an authorization server gave no response");
    match error {
        SendError::Refused(_) => OAuthError::Forbidden,
        SendError::TimedOut | SendError::Unreachable(_) => OAuthError::Unreachable,
    }
}

impl Http {
    pub(in crate::upstream) fn new(client: Client) -> Self {
        Self(client)
    }

    pub(super) async fn post(&self, url: &Url, form: Form) -> Result<(Status, Bytes), OAuthError> {
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        let request = self.0.request(Method::POST, url).map_err(|error| unsent(&error))?;
        let mut request = request.header(CONTENT_TYPE, kind);
        if let Some(authorization) = form.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        self.send(request.body(form.body.expose_secret().to_owned())).await
    }

    pub(super) async fn post_json(&self, url: &Url, body: String) -> Result<(Status, Bytes), OAuthError> {
        let kind = HeaderValue::from_static("application/json");
        let request = self.0.request(Method::POST, url).map_err(|error| unsent(&error))?;
        self.send(request.header(CONTENT_TYPE, kind).body(body)).await
    }

    pub(super) async fn get(&self, url: Url) -> Result<(Status, Bytes), OAuthError> {
        self.send(self.0.request(Method::GET, &url).map_err(|error| unsent(&error))?).await
    }

    async fn send(&self, request: Request) -> Result<(Status, Bytes), OAuthError> {
        let deadline = Instant::now() + EXCHANGE_TIMEOUT;
        let request = request.header(ACCEPT, HeaderValue::from_static("application/json"));
        let response = timeout_at(deadline, request.send()).await.map_err(|_| OAuthError::Unreachable)?;
        let response = response.map_err(|error| unsent(&error))?;
        let status = match response.status() {
            StatusCode::OK | StatusCode::CREATED => Status::Ok,
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => Status::Failing,
            _ => Status::Refused,
        };
        let body = whole(response, ANSWER_BYTES_MAX, deadline).await;
        let body = body.map_err(|error| match error {
            UpstreamError::TooLarge => OAuthError::NotUnderstood,
            _ => OAuthError::Unreachable,
        })?;
        Ok((status, body))
    }
}
