//! Traces: a span for each request that a client makes and one for each that we make for it, exported by OTLP as protobuf over HTTP.
//!
//! A span holds names of methods, tools, tenants and upstreams, and how it went: never arguments, results, URIs, or who called. Without a
//! collector there are no spans, and traces of clients pass through as they came.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span, SpanData, SpanProcessor};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::METER;
use crate::config::OtlpConfig;
use crate::egress::{Client, Egress, SendError};
use crate::lifecycle::{Tasks, or_never};

/// How many spans wait to be exported. What finds no room is lost, and counted.
const QUEUE_SPANS_MAX: usize = 8_192;
/// How many are exported at a time, and how long one waits for others at most.
const BATCH_SPANS_MAX: usize = 512;
const BATCH_EVERY: Duration = Duration::from_secs(1);
/// How long the end of a process waits for the collector.
const LAST_TIMEOUT: Duration = Duration::from_millis(1_500);
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// Why spans did not arrive.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the collector cannot be reached")]
    Unsent(#[source] SendError),
    #[error("the collector answered {0}")]
    Refused(StatusCode),
}

/// Spans on their way to the exporter.
struct Queue {
    spans: mpsc::Sender<SpanData>,
    lost: Arc<AtomicU64>,
}

/// Brings spans to the collector.
struct Exporter {
    client: Client,
    collector: OtlpConfig,
    resource: ResourceAttributesWithSchema,
    lost: Arc<AtomicU64>,
    is_away: bool,
}

/// Makes spans, which `tasks` bring to `collector`. They end after everything else, when all are there or time is up.
pub(crate) fn tracer(collector: &OtlpConfig, egress: &Egress, tasks: &Tasks) -> SdkTracer {
    let (spans, ended) = mpsc::channel(QUEUE_SPANS_MAX);
    let lost = Arc::new(AtomicU64::new(0));
    let resource = resource(collector);
    let exporter = Exporter {
        client: egress.client([&collector.url]),
        collector: collector.clone(),
        resource: (&resource).into(),
        lost: Arc::clone(&lost),
        is_away: false,
    };
    tasks.spawn_last(|over| exporter.run(ended, over));
    let provider = SdkTracerProvider::builder().with_resource(resource).with_span_processor(Queue { spans, lost });
    provider.build().tracer(METER)
}

/// What is said of this process. What the environment says of it wins.
fn resource(collector: &OtlpConfig) -> Resource {
    let resource = Resource::builder_empty()
        .with_service_name(METER)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match &collector.service {
        Some(name) => resource.with_service_name(name.clone()).build(),
        None => resource.build(),
    }
}

impl Exporter {
    async fn run(mut self, mut spans: mpsc::Receiver<SpanData>, over: CancellationToken) {
        let mut batch = Vec::new();
        while gather(&mut spans, &mut batch, &over).await {
            let exporting = self.export(mem::take(&mut batch));
            tokio::pin!(exporting);
            tokio::select! {
                biased;
                () = &mut exporting => {}
                () = over.cancelled() => {
                    timeout(LAST_TIMEOUT, exporting).await.ok();
                }
            }
        }
        spans.close();
        let last = async {
            while spans.recv_many(&mut batch, BATCH_SPANS_MAX).await > 0 {
                self.export(mem::take(&mut batch)).await;
            }
            self.export(mem::take(&mut batch)).await;
        };
        if timeout(LAST_TIMEOUT, last).await.is_err() {
            tracing::warn!("the process ends before its last spans were exported");
        }
    }

    /// What does not arrive is lost: nobody's call waits for it, and the collector is asked again with the next ones.
    async fn export(&mut self, batch: Vec<SpanData>) {
        if batch.is_empty() {
            return;
        }
        let count = batch.len() as u64;
        match self.send(batch).await {
            Ok(()) if mem::take(&mut self.is_away) => {
                let lost = self.lost.swap(0, Ordering::Relaxed);
                tracing::info!(spans.lost = lost, "spans are exported again");
            }
            Ok(()) => {}
            Err(error) => {
                self.lost.fetch_add(count, Ordering::Relaxed);
                if !mem::replace(&mut self.is_away, true) {
                    tracing::warn!(error = &error as &dyn std::error::Error, "spans are not exported, and are lost");
                }
            }
        }
    }

    async fn send(&self, batch: Vec<SpanData>) -> Result<(), ExportError> {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec());
        let OtlpConfig { url, headers, timeout, .. } = &self.collector;
        let request = self.client.request(Method::POST, url).map_err(ExportError::Unsent)?;
        let request = request.headers(headers.clone()).header(CONTENT_TYPE, PROTOBUF).body(body).timeout(*timeout);
        let mut response = request.send().await.map_err(ExportError::Unsent)?;
        if !response.status().is_success() {
            return Err(ExportError::Refused(response.status()));
        }
        // Read, so that the connection can be used again.
        while let Some(Ok(_)) = response.chunk().await {}
        Ok(())
    }
}

/// Some spans, after a while or as soon as there are many; `false` when there will be no more.
async fn gather(spans: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>, over: &CancellationToken) -> bool {
    let mut until = None;
    while batch.len() < BATCH_SPANS_MAX {
        let room = BATCH_SPANS_MAX - batch.len();
        let is_due = or_never(until.map(sleep_until));
        tokio::select! {
            biased;
            () = over.cancelled() => return false,
            () = is_due => return true,
            count = spans.recv_many(batch, room) => {
                if count == 0 {
                    return false;
                }
                until = until.or(Some(Instant::now() + BATCH_EVERY));
            }
        }
    }
    true
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}
