//! What the admin listener answers: to whoever reaches it and without proof, the same to everybody. Metrics name tenants
//! and upstreams, and nobody who calls. Memory only.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use serde_json::{Value, json};

use super::problem;
use crate::catalog::Catalog;
use crate::lifecycle::Tasks;
use crate::telemetry::{EXPOSITION, Metrics};

/// From how long a silence on it is said that the database is out of reach: it is asked several times in that time.
const DEGRADED_AFTER: Duration = Duration::from_secs(15);

/// One question of an operator's program: a path, asked with GET.
#[derive(Debug)]
pub struct Probe {
    /// The path.
    pub path: &'static str,
    pub(super) asks: Asks,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asks {
    Alive,
    Ready,
    Metrics,
}

/// What the answers are made of.
#[derive(Debug)]
pub struct Probed {
    /// What is served.
    pub catalog: Arc<Catalog>,
    /// What was measured.
    pub metrics: Metrics,
    /// Whether it stops.
    pub tasks: Tasks,
}

/// The routes of the admin listener.
pub fn admin_router(probed: Probed) -> Router {
    let routes =
        super::PROBES.iter().fold(Router::new(), |router, probe| router.route(probe.path, handler(probe.asks)));
    routes.fallback(problem::no_probe).with_state(Arc::new(probed))
}

fn handler(asks: Asks) -> MethodRouter<Arc<Probed>> {
    match asks {
        Asks::Alive => get(|| async { answer(StatusCode::OK, &json!({"status": "alive"})) }),
        Asks::Ready => get(ready),
        Asks::Metrics => get(metrics),
    }
}

async fn metrics(State(probed): State<Arc<Probed>>) -> Response {
    match probed.metrics.exposed() {
        Ok(text) => ([(CONTENT_TYPE, EXPOSITION), (CACHE_CONTROL, "no-store")], text).into_response(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the metrics cannot be shown");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Whether requests are to be sent here. Without its database a replica serves what it read last as well as any other, so that is no reason
/// to send them elsewhere.
async fn ready(State(probed): State<Arc<Probed>>) -> Response {
    let revision = probed.catalog.snapshot().revision.0;
    if probed.tasks.is_draining() {
        return answer(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "draining", "revision": revision}));
    }
    let silence = probed.catalog.silence();
    if silence < DEGRADED_AFTER {
        return answer(StatusCode::OK, &json!({"status": "ready", "revision": revision}));
    }
    let why = "the database does not answer; what was read last is served, and nothing can be changed";
    answer(
        StatusCode::OK,
        &json!({"status": "degraded", "revision": revision, "why": why, "silentSeconds": silence.as_secs()}),
    )
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}
