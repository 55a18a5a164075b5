//! Asking a provider: bounded exchanges. Addresses come from the configuration, or from a document whose issuer was compared with
//! it; the latter are vetted before they are called.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::BytesMut;
use http::Method;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use crate::egress::{Broken, Client, Refused, Request, Response, SendError};

/// How long one document may take.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest document that a provider publishes, in bytes: a discovery document or a key set.
const PUBLISHED_BYTES_MAX: usize = 256 * 1024;
/// Largest answer about one person, in bytes: eleven thousand groups fit.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A document that could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("it cannot be reached")]
    Unreachable(#[source] Broken),
    #[error("its address may not be called: it {0}")]
    Refused(Refused),
    #[error("it did not answer in time")]
    Late,
    #[error("it failed a moment ago, and is not asked again yet")]
    FailedBefore,
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("it is too large")]
    TooLarge,
    #[error("it is not what it should be")]
    NotUnderstood,
    #[error("the issuer's discovery document cannot be used: {0}")]
    Discovery(&'static str),
}

/// The document at `url`.
pub(super) async fn get(http: &Client, url: &Url) -> Result<Vec<u8>, FetchError> {
    ok_body(http.request(Method::GET, url)?, PUBLISHED_BYTES_MAX).await
}

/// The document at `url`, which only the holder of `token` may read.
pub(super) async fn get_as(http: &Client, url: &Url, token: &SecretString) -> Result<Vec<u8>, FetchError> {
    ok_body(http.request(Method::GET, url)?.header(AUTHORIZATION, bearer(token)?), ANSWER_BYTES_MAX).await
}

/// The document at `url`, and what time its server says it is.
pub(super) async fn get_dated(http: &Client, url: &Url) -> Result<(Vec<u8>, Option<String>), FetchError> {
    let response = http.request(Method::GET, url)?.timeout(FETCH_TIMEOUT).send().await?;
    let date = response.headers().get(DATE).and_then(|date| date.to_str().ok()).map(ToOwned::to_owned);
    match response.status().as_u16() {
        200 => Ok((body(response, PUBLISHED_BYTES_MAX).await?, date)),
        status => Err(FetchError::Status(status)),
    }
}

/// Posts a JSON document as the holder of `token`.
pub(super) async fn post_json_as(
    http: &Client,
    url: &Url,
    token: &SecretString,
    body: String,
) -> Result<Vec<u8>, FetchError> {
    let authorization = bearer(token)?;
    let json = HeaderValue::from_static("application/json");
    let request = http.request(Method::POST, url)?;
    let request = request.header(AUTHORIZATION, authorization).header(CONTENT_TYPE, json).body(body);
    ok_body(request, ANSWER_BYTES_MAX).await
}

/// Posts a form as the client `id` with its secret (RFC 6749 §2.3.1).
pub(super) async fn post_form(
    http: &Client,
    url: &Url,
    (id, secret): (&str, &SecretString),
    form: &[(&str, &str)],
) -> Result<Vec<u8>, FetchError> {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let credentials = SecretString::from(format!("{}:{}", encoded(id), encoded(secret.expose_secret())));
    let authorization = sensitive(&format!("Basic {}", BASE64_STANDARD.encode(credentials.expose_secret())))?;
    let body = Serializer::new(String::new()).extend_pairs(form).finish();
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
    let request = http.request(Method::POST, url)?;
    let request = request.header(AUTHORIZATION, authorization).header(CONTENT_TYPE, kind).body(body);
    ok_body(request, ANSWER_BYTES_MAX).await
}

/// Sends a request that a library has built, and returns whatever is answered.
pub(super) async fn exchange(
    http: &Client,
    request: http::Request<Vec<u8>>,
) -> Result<http::Response<Vec<u8>>, FetchError> {
    let (parts, sent) = request.into_parts();
    let url = Url::parse(&parts.uri.to_string()).map_err(|_| FetchError::NotUnderstood)?;
    let request = http.request(parts.method, &url)?.headers(parts.headers).body(sent).timeout(FETCH_TIMEOUT);
    let response = request.send().await?;
    let mut answer = http::Response::new(Vec::new());
    *answer.status_mut() = response.status();
    *answer.headers_mut() = response.headers().clone();
    *answer.body_mut() = body(response, PUBLISHED_BYTES_MAX).await?;
    Ok(answer)
}

fn bearer(token: &SecretString) -> Result<HeaderValue, FetchError> {
    sensitive(&format!("Bearer {}", token.expose_secret()))
}

fn sensitive(text: &str) -> Result<HeaderValue, FetchError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| FetchError::NotUnderstood)?;
    value.set_sensitive(true);
    Ok(value)
}

async fn ok_body(request: Request, bytes_max: usize) -> Result<Vec<u8>, FetchError> {
    let request = request.header(ACCEPT, HeaderValue::from_static("application/json")).timeout(FETCH_TIMEOUT);
    let response = request.send().await?;
    match response.status().as_u16() {
        200 => body(response, bytes_max).await,
        status => Err(FetchError::Status(status)),
    }
}

async fn body(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, FetchError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await {
        let chunk = chunk?;
        if body.len() + chunk.len() > bytes_max {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.to_vec())
}

impl From<SendError> for FetchError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Refused(refused) => Self::Refused(refused),
            SendError::TimedOut => Self::Late,
            SendError::Unreachable(error) => Self::Unreachable(error),
        }
    }
}
