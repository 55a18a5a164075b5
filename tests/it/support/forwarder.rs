//! A forwarder on this machine, for clients that cannot be told to show a token: it adds one, and passes on everything else as
//! it comes, in both directions.

use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, HOST, ORIGIN, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;

struct Way {
    client: reqwest::Client,
    /// Where the forwarder is, and where it leads: host and port.
    here: String,
    there: String,
    authorization: HeaderValue,
}

/// Starts one in front of a server at `there`, which is host and port, and returns its own.
#[expect(clippy::disallowed_methods, reason = "a test's client is not bound by our egress rules")]
pub(crate) async fn start(there: &str, token: &str) -> Result<String> {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let here = listener.local_addr()?.to_string();
    let way = Way {
        client: reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?,
        here: here.clone(),
        there: there.to_owned(),
        authorization: HeaderValue::from_str(&format!("Bearer {token}"))?,
    };
    super::server::serve(listener, Router::new().fallback(forward).with_state(Arc::new(way)));
    Ok(here)
}

/// What concerns one connection only.
fn drop_hop_headers(headers: &mut HeaderMap) {
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
}

async fn forward(State(way): State<Arc<Way>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    drop_hop_headers(&mut parts.headers);
    // Whoever calls the forwarder by its own name means the server; any other name is the server's to judge.
    for name in [HOST, ORIGIN] {
        let Some(value) = parts.headers.get(&name).and_then(|value| value.to_str().ok()) else { continue };
        let value = value.replace(&way.here, &way.there);
        if let Ok(value) = HeaderValue::from_str(&value) {
            parts.headers.insert(name, value);
        }
    }
    parts.headers.insert(AUTHORIZATION, way.authorization.clone());
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let sent = way
        .client
        .request(parts.method, format!("http://{}{path}", way.there))
        .headers(parts.headers)
        .body(reqwest::Body::wrap_stream(body.into_data_stream()))
        .send()
        .await;
    match sent {
        Ok(answer) => {
            let (status, mut headers) = (answer.status(), answer.headers().clone());
            drop_hop_headers(&mut headers);
            (status, headers, Body::from_stream(answer.bytes_stream())).into_response()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
