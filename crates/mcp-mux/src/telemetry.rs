//! Logs: to stderr, as text for people or JSON for machines, with the same field names everywhere.
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

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{LogFormat, TelemetryConfig};

/// Directives that no configuration can lower: rmcp prints arguments and results at debug, and the HTTP libraries print
/// headers at trace.
const FLOOR: [&str; 6] = ["rmcp=error", "hyper=warn", "hyper_util=warn", "h2=warn", "reqwest=warn", "rustls=warn"];

/// The filter for `directives` (the syntax of `RUST_LOG`), with the floor on top of it.
///
/// An unreadable directive is left out rather than fatal: logs must never keep a server from starting.
pub fn filter(directives: &str) -> EnvFilter {
    FLOOR
        .iter()
        .filter_map(|directive| directive.parse().ok())
        .fold(EnvFilter::builder().parse_lossy(directives), EnvFilter::add_directive)
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
    let registry = tracing_subscriber::registry().with(filter(&settings.log));
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match settings.log_format {
        LogFormat::Text => registry.with(layer.with_ansi(false).with_target(false)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    }
}
