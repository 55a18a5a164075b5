//! The document of an upstream, as it was last fetched: at each listing, or when a call needs it and none is there.

use std::error::Error;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::api::Api;
use super::document::{DOCUMENT_BYTES_MAX, DocumentError};
use crate::upstream::answer::{refusal, whole};
use crate::upstream::credential::Credential;
use crate::upstream::error::UpstreamError;
use crate::upstream::link::Link;
use crate::upstream::request::{Outgoing, Trace};

/// What is known of an upstream's API.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Described {
    held: ArcSwapOption<Held>,
    /// However many need it, one fetches.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Held {
    api: Arc<Api>,
    /// Of the document, so that one that did not change is not read again.
    digest: [u8; 32],
}

/// The API, as its document describes it now.
pub(super) async fn fetched(
    link: &Link,
    credential: &Credential,
    (trace, deadline): (&Trace, Instant),
) -> Result<Arc<Api>, UpstreamError> {
    let document = fetch(link, credential, (trace, deadline)).await?;
    let described = link.line().described();
    let digest = Sha256::digest(&document).into();
    if let Some(held) = described.held.load_full().filter(|held| held.digest == digest) {
        return Ok(Arc::clone(&held.api));
    }
    let upstream = Arc::clone(link.line().upstream_shared());
    let read = tokio::task::spawn_blocking(move || Api::read(&document, &upstream.spec));
    let read = timeout_at(deadline, read).await.map_err(|_| UpstreamError::TimedOut)?;
    let api = read.map_err(|_| UpstreamError::Setup)?.map_err(UpstreamError::Document)?;
    if api.left_out > 0 {
        tracing::warn!(
            tenant.id = %link.upstream().tenant, upstream.id = %link.upstream().id, operations = api.left_out,
            "operations of an OpenAPI document are left out: they ask for what mcp-mux does not know, or are too many or too large"
        );
    }
    let api = Arc::new(api);
    described.held.store(Some(Arc::new(Held { api: Arc::clone(&api), digest })));
    Ok(api)
}

/// The API, as its document described it when tools were last listed.
pub(super) async fn known(
    link: &Link,
    credential: &Credential,
    (trace, deadline): (&Trace, Instant),
) -> Result<Arc<Api>, UpstreamError> {
    let described = link.line().described();
    let held = || described.held.load_full().map(|held| Arc::clone(&held.api));
    if let Some(api) = held() {
        return Ok(api);
    }
    let _turn = timeout_at(deadline, described.turn.lock()).await.map_err(|_| UpstreamError::TimedOut)?;
    match held() {
        Some(api) => Ok(api),
        None => fetched(link, credential, (trace, deadline)).await,
    }
}

/// The bytes of the document. At another origin than the upstream's, neither the credential is shown nor the trace told.
async fn fetch(
    link: &Link,
    credential: &Credential,
    (trace, deadline): (&Trace, Instant),
) -> Result<Bytes, UpstreamError> {
    let spec = &link.upstream().spec;
    let document = spec.protocol.document().ok_or(UpstreamError::Setup)?;
    let accept = HeaderValue::from_static("application/json, application/yaml;q=0.9, */*;q=0.8");
    let headers = HeaderMap::from_iter([(ACCEPT, accept)]);
    let mut outgoing = Outgoing { method: Method::GET, url: document.clone(), headers, body: String::new() };
    let is_at_home = document.origin() == spec.url.origin();
    let response = if is_at_home {
        outgoing.headers.extend(trace.headers());
        link.line().send(credential, outgoing, deadline).await?
    } else {
        let request = link.line().strangers_http().request(outgoing.method, &outgoing.url);
        let sent = async { request?.headers(outgoing.headers).send().await };
        let sent = timeout_at(deadline, sent).await.map_err(|_| UpstreamError::TimedOut)?;
        sent.map_err(|error| {
            tracing::warn!(
                tenant.id = %link.upstream().tenant, upstream.id = %link.upstream().id,
                error = &error as &dyn Error, "an OpenAPI document cannot be fetched"
            );
            UpstreamError::Document(DocumentError::Unreachable)
        })?
    };
    let status = response.status();
    if let Some(refusal) = refusal(status).filter(|_| is_at_home) {
        return Err(refusal);
    }
    if status != StatusCode::OK {
        return Err(UpstreamError::Document(DocumentError::Status(status.as_u16())));
    }
    if response.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(UpstreamError::Document(DocumentError::Compressed));
    }
    whole(response, DOCUMENT_BYTES_MAX, deadline).await.map_err(|error| match error {
        UpstreamError::TooLarge => UpstreamError::Document(DocumentError::TooLarge),
        error => error,
    })
}
