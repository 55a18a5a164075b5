//! Asking a provider: bounded exchanges over our own client (no redirects, no proxies, no decompression), and OpenID Connect
//! Discovery 1.0. Addresses come from the configuration, or from a document whose issuer was compared with it.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::BytesMut;
use futures::StreamExt as _;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue};
use openidconnect::core::{
    CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGrantType, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreResponseMode, CoreResponseType,
    CoreSubjectIdentifierType,
};
use openidconnect::{AdditionalProviderMetadata, HttpRequest, HttpResponse, IssuerUrl, ProviderMetadata};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

/// How long one document may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest document, in bytes.
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// A document that could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("it cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("it is too large")]
    TooLarge,
    #[error("it is not what it should be")]
    NotUnderstood,
    #[error("the issuer's discovery document cannot be used: {0}")]
    Discovery(&'static str),
}

/// What we need of a provider's discovery document.
#[derive(Debug, Clone)]
pub(super) struct Endpoints {
    pub(super) jwks: Url,
    pub(super) introspection: Option<Url>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Introspection {
    introspection_endpoint: Option<Url>,
}

impl AdditionalProviderMetadata for Introspection {}

type Metadata = ProviderMetadata<
    Introspection,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// Finds an issuer's endpoints. Its document must name the same issuer, character by character, and may not lead from https to
/// anything less.
pub(super) async fn discover(http: &reqwest::Client, issuer: &str) -> Result<Endpoints, FetchError> {
    let url = IssuerUrl::new(issuer.to_owned()).map_err(|_| FetchError::Discovery("the issuer is no URL"))?;
    let is_https = url.url().scheme() == "https";
    let client = |request: HttpRequest| exchange(http.clone(), request);
    let metadata = Metadata::discover_async(url, &client).await.map_err(|error| match error {
        openidconnect::DiscoveryError::Request(error) => error,
        openidconnect::DiscoveryError::Validation(_) => FetchError::Discovery("it names another issuer"),
        _ => FetchError::Discovery("it does not follow OpenID Connect Discovery 1.0"),
    })?;
    let jwks = metadata.jwks_uri().url().clone();
    let introspection = metadata.additional_metadata().introspection_endpoint.clone();
    if is_https && [Some(&jwks), introspection.as_ref()].into_iter().flatten().any(|url| url.scheme() != "https") {
        return Err(FetchError::Discovery("it leads from https to an unprotected address"));
    }
    Ok(Endpoints { jwks, introspection })
}

/// The document at `url`.
pub(super) async fn get(http: &reqwest::Client, url: &Url) -> Result<Vec<u8>, FetchError> {
    ok_body(http.get(url.clone())).await
}

/// The document at `url`, which only the holder of `token` may read.
pub(super) async fn get_as(http: &reqwest::Client, url: &Url, token: &SecretString) -> Result<Vec<u8>, FetchError> {
    ok_body(http.get(url.clone()).header(AUTHORIZATION, bearer(token)?)).await
}

/// The document at `url`, and what time its server says it is.
pub(super) async fn get_dated(http: &reqwest::Client, url: &Url) -> Result<(Vec<u8>, Option<String>), FetchError> {
    let response = http.get(url.clone()).timeout(FETCH_TIMEOUT).send().await.map_err(unreachable)?;
    let date = response.headers().get(DATE).and_then(|date| date.to_str().ok()).map(ToOwned::to_owned);
    match response.status().as_u16() {
        200 => Ok((body(response).await?, date)),
        status => Err(FetchError::Status(status)),
    }
}

/// Posts a JSON document as the holder of `token`.
pub(super) async fn post_json_as(
    http: &reqwest::Client,
    url: &Url,
    token: &SecretString,
    body: String,
) -> Result<Vec<u8>, FetchError> {
    let authorization = bearer(token)?;
    let json = HeaderValue::from_static("application/json");
    ok_body(http.post(url.clone()).header(AUTHORIZATION, authorization).header(CONTENT_TYPE, json).body(body)).await
}

/// Posts a form as the client `id` with its secret (RFC 6749 §2.3.1).
pub(super) async fn post_form(
    http: &reqwest::Client,
    url: &Url,
    (id, secret): (&str, &SecretString),
    form: &[(&str, &str)],
) -> Result<Vec<u8>, FetchError> {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let credentials = SecretString::from(format!("{}:{}", encoded(id), encoded(secret.expose_secret())));
    let authorization = sensitive(&format!("Basic {}", BASE64_STANDARD.encode(credentials.expose_secret())))?;
    let body = Serializer::new(String::new()).extend_pairs(form).finish();
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
    ok_body(http.post(url.clone()).header(AUTHORIZATION, authorization).header(CONTENT_TYPE, kind).body(body)).await
}

fn bearer(token: &SecretString) -> Result<HeaderValue, FetchError> {
    sensitive(&format!("Bearer {}", token.expose_secret()))
}

fn sensitive(text: &str) -> Result<HeaderValue, FetchError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| FetchError::NotUnderstood)?;
    value.set_sensitive(true);
    Ok(value)
}

async fn ok_body(request: reqwest::RequestBuilder) -> Result<Vec<u8>, FetchError> {
    let request = request.header(ACCEPT, HeaderValue::from_static("application/json")).timeout(FETCH_TIMEOUT);
    let response = request.send().await.map_err(unreachable)?;
    match response.status().as_u16() {
        200 => body(response).await,
        status => Err(FetchError::Status(status)),
    }
}

/// openidconnect's requests over our own client.
async fn exchange(http: reqwest::Client, request: HttpRequest) -> Result<HttpResponse, FetchError> {
    let (parts, request_body) = request.into_parts();
    let url = Url::parse(&parts.uri.to_string()).map_err(|_| FetchError::Discovery("the issuer is no URL"))?;
    let sent = http.request(parts.method, url).headers(parts.headers).body(request_body).timeout(FETCH_TIMEOUT).send();
    let response = sent.await.map_err(unreachable)?;
    let mut answer = http::Response::builder().status(response.status());
    if let Some(headers) = answer.headers_mut() {
        headers.clone_from(response.headers());
    }
    answer.body(body(response).await?).map_err(|_| FetchError::NotUnderstood)
}

async fn body(response: reqwest::Response) -> Result<Vec<u8>, FetchError> {
    let mut chunks = response.bytes_stream();
    let mut body = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(unreachable)?;
        if body.len() + chunk.len() > DOCUMENT_BYTES_MAX {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.to_vec())
}

fn unreachable(error: reqwest::Error) -> FetchError {
    FetchError::Unreachable(error.without_url())
}
