//! The smallest HTTP server there is: what upstream and floor are made of.

use anyhow::Result;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mcp_mux::lifecycle::Tasks;
use tokio::net::TcpListener;

/// Answers every request on `listener` with `answer`, for ever.
pub(crate) async fn serve<F, R>(listener: TcpListener, tasks: Tasks, answer: F) -> Result<()>
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Response<Full<Bytes>>>> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service_fn(answer.clone());
        tasks.spawn_draining(async move {
            // A client that hangs up ends its connection and nothing else.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

/// The whole body of a message.
pub(crate) async fn read(body: Incoming) -> Result<Bytes> {
    Ok(body.collect().await?.to_bytes())
}

/// A response with a JSON body.
pub(crate) fn json(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
