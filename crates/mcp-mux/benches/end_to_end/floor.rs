//! The floor: what a gateway must do at least. It reads the envelope, puts its own id and the tool's own name into it, sends it on
//! over a pooled connection with a fixed key, and puts the client's id back. It knows nobody, decides nothing, checks nothing,
//! bounds nothing and logs nothing. Nobody should run it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mcp_mux::lifecycle::Tasks;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::net::TcpListener;

use super::{child, http1, wire};
use crate::tenants::BEARER;

const IDLE_CONNECTIONS_MAX: usize = 64;

#[derive(Deserialize)]
struct Envelope<'b> {
    #[serde(borrow)]
    id: Option<&'b RawValue>,
    #[serde(borrow)]
    params: Option<&'b RawValue>,
}

#[derive(Deserialize)]
struct Params<'b> {
    #[serde(borrow)]
    name: Option<&'b RawValue>,
}

struct Floor {
    upstream: String,
    client: Client<HttpConnector, Full<Bytes>>,
    next_id: AtomicU64,
}

/// Plays the role, in front of the upstream at the address that `settings` names.
pub(crate) async fn serve(settings: &str) -> Result<()> {
    let upstream: String = serde_json::from_str(settings)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    #[expect(clippy::disallowed_methods, reason = "the floor has no guard")]
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(IDLE_CONNECTIONS_MAX).build(connector);
    let floor = Arc::new(Floor { upstream, client, next_id: AtomicU64::new(1) });
    let tasks = Tasks::default();
    let answering = tasks.clone();
    tasks.spawn(async move {
        let answer = move |request| Arc::clone(&floor).answer(request);
        drop(http1::serve(listener, answering, answer).await);
    });
    child::ready(&json!({ "address": address.to_string() })).await
}

impl Floor {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let (mut head, body) = request.into_parts();
        let body = http1::read(body).await?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed).to_string();
        let (body, theirs) = outgoing(&body, &id, &mut head.headers)?;
        let path = head.uri.path_and_query().context("a request has a path")?;
        let mut request = Request::post(format!("http://{}{path}", self.upstream).parse::<Uri>()?).body(body)?;
        *request.headers_mut() = head.headers;
        let response = self.client.request(request).await?;
        let (head, body) = response.into_parts();
        let body = http1::read(body).await?;
        let mut response = Response::new(Full::new(match theirs {
            Some(theirs) => incoming(&body, &theirs)?,
            None => body,
        }));
        *response.status_mut() = head.status;
        response.headers_mut().extend(head.headers.get(CONTENT_TYPE).map(|kind| (CONTENT_TYPE, kind.clone())));
        Ok(response)
    }
}

/// The request as it goes on, and the client's id.
fn outgoing(body: &[u8], id: &str, headers: &mut HeaderMap) -> Result<(Full<Bytes>, Option<String>)> {
    let text = std::str::from_utf8(body)?;
    let envelope: Envelope<'_> = serde_json::from_str(text)?;
    let params: Option<Params<'_>> = envelope.params.map(|params| serde_json::from_str(params.get())).transpose()?;
    let mut edits = Vec::new();
    if let Some(theirs) = envelope.id {
        edits.push((span(text, theirs.get()), id.to_owned()));
    }
    if let Some(name) = params.and_then(|params| params.name) {
        let local = name.get().trim_matches('"').trim_start_matches(wire::PREFIX);
        edits.push((span(text, name.get()), format!("\"{local}\"")));
        headers.insert(HeaderName::from_static("mcp-name"), HeaderValue::from_str(local)?);
    }
    headers.remove(HOST);
    headers.remove(http::header::CONTENT_LENGTH);
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {BEARER}"))?);
    let theirs = envelope.id.map(|id| id.get().to_owned());
    Ok((Full::new(spliced(text, edits).into()), theirs))
}

/// The answer under the client's id.
fn incoming(body: &[u8], id: &str) -> Result<Bytes> {
    let text = std::str::from_utf8(body)?;
    let envelope: Envelope<'_> = serde_json::from_str(text)?;
    let ours = envelope.id.context("an answer has an id")?;
    Ok(spliced(text, vec![(span(text, ours.get()), id.to_owned())]).into())
}

/// Where `part` lies in `text`.
fn span(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - text.as_ptr().addr();
    start..start + part.len()
}

fn spliced(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(span, _)| span.start);
    let mut out = String::with_capacity(text.len() + 64);
    let mut from = 0;
    for (span, new) in edits {
        out.push_str(text.get(from..span.start).unwrap_or_default());
        out.push_str(&new);
        from = span.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}
