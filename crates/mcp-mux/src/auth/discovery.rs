//! Finding an issuer's keys: OpenID Connect Discovery 1.0, and bounded fetches. The documents are public; their addresses come
//! from the configuration or from a document whose issuer was compared with it.

use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt as _;
use openidconnect::core::CoreProviderMetadata;
use openidconnect::{HttpRequest, HttpResponse, IssuerUrl};
use url::Url;

/// How long one document may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest document, in bytes.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

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

/// The address of the key set of `issuer`, from its discovery document. The document must name the same issuer, character by
/// character.
pub(super) async fn jwks_url(http: &reqwest::Client, issuer: &str) -> Result<Url, FetchError> {
    let issuer = IssuerUrl::new(issuer.to_owned()).map_err(|_| FetchError::Discovery("the issuer is no URL"))?;
    let client = |request: HttpRequest| exchange(http.clone(), request);
    let metadata = CoreProviderMetadata::discover_async(issuer, &client).await.map_err(|error| match error {
        openidconnect::DiscoveryError::Request(error) => error,
        openidconnect::DiscoveryError::Validation(_) => FetchError::Discovery("it names another issuer"),
        _ => FetchError::Discovery("it does not follow OpenID Connect Discovery 1.0"),
    })?;
    Ok(metadata.jwks_uri().url().clone())
}

/// The document at `url`.
pub(super) async fn get(http: &reqwest::Client, url: &Url) -> Result<Vec<u8>, FetchError> {
    let response = http.get(url.clone()).timeout(FETCH_TIMEOUT).send().await.map_err(unreachable)?;
    match response.status().as_u16() {
        200 => body(response).await,
        status => Err(FetchError::Status(status)),
    }
}

/// openidconnect's requests over our own client: no redirects, no proxies, bounded bodies.
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
