//! Each request has an id of ours, whatever id it came with, and there is one line about it in the log.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::Response;
use axum::http::header::{HeaderName, HeaderValue};
use tokio::time::Instant;
use tower::Service;
use uuid::Uuid;

use crate::caller::RequestId;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Whatever answers the requests, and they have ids.
#[derive(Debug, Clone)]
pub(super) struct Identified<S>(pub(super) S);

impl<S, B> Service<Request> for Identified<S>
where
    S: Service<Request, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let started = Instant::now();
        let id = Uuid::now_v7().simple().to_string();
        request.extensions_mut().insert(RequestId::new(&id));
        let method = request.method().clone();
        let answered = self.0.call(request);
        Box::pin(async move {
            let mut response = answered.await?;
            let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(
                request.id = %id, http.method = %method, status = response.status().as_u16(), duration_ms, "answered"
            );
            if let Ok(id) = HeaderValue::from_str(&id) {
                response.headers_mut().insert(REQUEST_ID, id);
            }
            Ok(response)
        })
    }
}
