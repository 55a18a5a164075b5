//! What is seen of a server from outside: metrics, traces and logs. Logs go to stderr, as text for people or JSON for machines, with the
//! same field names everywhere.
//!
//! | field | holds |
//! | --- | --- |
//! | `request.id` | the id of the downstream request |
//! | `tenant.id`, `upstream.id` | printed ids |
//! | `principal.issuer`, `principal.id` | the issuer's configured name and the subject |
//! | `mcp.method`, `mcp.tool`, `mcp.era` | what was asked, and by which era's rules |
//! | `duration_ms`, `status` | how long, and the HTTP status |
//! | `fault`, `error` | whose fault, and the chain of causes |
//!
//! Never logged: tokens, secrets, arguments, results, bodies.

mod context;
mod metrics;
mod operation;
mod traces;

pub(crate) use context::{Origin, as_headers, written};
pub use metrics::{EXPOSITION, Metrics, MetricsError};
pub(crate) use opentelemetry::trace::SpanContext;
pub(crate) use operation::{Decision, Ending, OTHER, Operation, Operations, Place, Side};
pub(crate) use traces::tracer;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{FilterExt as _, FilterFn, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{LogFormat, TelemetryConfig};

/// Who measures, and whose spans they are.
const METER: &str = "mcp-mux";

/// The libraries that print arguments, results or headers, and the most that each may say, whatever the configuration asks for.
const FLOOR: [(&str, Level); 5] = [
    ("rmcp", Level::ERROR),
    ("hyper", Level::WARN),
    ("hyper_util", Level::WARN),
    ("h2", Level::WARN),
    ("rustls", Level::WARN),
];

/// The filter for `directives` (the syntax of `RUST_LOG`).
///
/// An unreadable directive is left out rather than fatal: logs must never keep a server from starting.
fn filter(directives: &str) -> EnvFilter {
    EnvFilter::builder().parse_lossy(directives)
}

/// Holds for what is above the floor.
fn floor() -> FilterFn<fn(&Metadata<'_>) -> bool> {
    filter_fn(|metadata| {
        let library = metadata.target().split("::").next().unwrap_or_default();
        FLOOR.iter().all(|(name, most)| *name != library || metadata.level() <= most)
    })
}

/// Installs the log for this process, writing to stderr.
pub fn init(settings: &TelemetryConfig) -> Result<(), TryInitError> {
    init_with_writer(settings, std::io::stderr)
}

/// Installs the log for this process, writing to `writer`.
pub fn init_with_writer<W>(settings: &TelemetryConfig, writer: W) -> Result<(), TryInitError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let wanted = filter(&settings.log).and(floor());
    let registry = tracing_subscriber::registry();
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match settings.log_format {
        LogFormat::Text => registry.with(layer.with_ansi(false).with_target(false).with_filter(wanted)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true).with_filter(wanted)).try_init(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_setting_makes_the_libraries_talk_about_arguments_and_headers() {
        let lines = Lines::default();
        let writer = lines.clone();
        let directives = "trace,rmcp::service=trace,hyper::proto::h1=trace,hyper_util::client=debug";
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter(directives).and(floor())));
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "rmcp::service", "LIBRARY arguments");
            tracing::trace!(target: "hyper::proto::h1", "LIBRARY headers");
            tracing::info!(target: "hyper_util::client", "LIBRARY addresses");
            tracing::warn!(target: "hyper::server", "a warning");
            tracing::trace!(target: "mcp_mux::mux", "ours");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("ours") && text.contains("a warning"), "{text}");
        assert!(!text.contains("LIBRARY"), "{text}");
    }
}
