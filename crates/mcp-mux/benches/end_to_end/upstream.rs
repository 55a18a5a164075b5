//! The upstream: a bare MCP server of both eras. It lists as many tools as its path says (`/20/mcp`) and says what it is told.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use mcp_mux::lifecycle::Tasks;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::net::TcpListener;

use super::{child, http1, wire};

#[derive(Deserialize)]
struct Message<'b> {
    #[serde(borrow)]
    id: Option<&'b RawValue>,
    method: &'b str,
    #[serde(borrow)]
    params: Option<Params<'b>>,
}

#[derive(Deserialize)]
struct Params<'b> {
    #[serde(borrow)]
    arguments: Option<Arguments<'b>>,
}

#[derive(Deserialize)]
struct Arguments<'b> {
    #[serde(borrow)]
    text: &'b RawValue,
}

/// Plays the role.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let lists: HashMap<String, String> =
        wire::LISTS.iter().map(|count| (format!("/{count}/mcp"), wire::tools(*count))).collect();
    let (tasks, lists) = (Tasks::default(), Arc::new(lists));
    let answering = tasks.clone();
    tasks.spawn(async move {
        let answer = move |request| answer(Arc::clone(&lists), request);
        drop(http1::serve(listener, answering, answer).await);
    });
    child::ready(&json!({ "address": address.to_string() })).await
}

async fn answer(lists: Arc<HashMap<String, String>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = http1::read(body).await?;
    // Whoever measures us directly shows a caller's token; only a gateway must show the key.
    if !head.headers.contains_key(AUTHORIZATION) {
        let mut response = http1::json("{}");
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        return Ok(response);
    }
    let message: Message<'_> = serde_json::from_slice(&body)?;
    let Some(id) = message.id else {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::ACCEPTED;
        return Ok(response);
    };
    let result = match message.method {
        "tools/call" => {
            let arguments = message.params.and_then(|params| params.arguments).context("a call has arguments")?;
            wire::called(arguments.text)
        }
        "tools/list" => wire::listed(lists.get(head.uri.path()).context("a path says how many tools")?),
        "server/discover" => wire::DISCOVERED.to_owned(),
        _ => wire::INITIALIZED.to_owned(),
    };
    Ok(http1::json(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}")))
}
