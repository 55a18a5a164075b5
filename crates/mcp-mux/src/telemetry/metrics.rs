//! Metrics: what a server counts and measures, for operators' systems that ask it now and then (Prometheus).
//!
//! Names are OpenTelemetry's; Prometheus reads them with `_` for `.`, the unit behind them. No metric has a label that is a person.

use std::fmt;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Gauge, Histogram, Meter, MeterProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{Instrument, MeterProviderBuilder, SdkMeterProvider, Stream};
use opentelemetry_sdk::trace::SdkTracer;
use prometheus::{Encoder as _, Registry, TextEncoder};
use tenant_store::{Revision, TenantSlug, UpstreamSlug};

use super::METER;
use super::operation::Operations;

/// What Prometheus is told that its text is (exposition format 0.0.4).
pub const EXPOSITION: &str = prometheus::TEXT_FORMAT;
/// Seconds until a revocation is in force: what is promised is two, and ten where nobody is told.
const DELAY_BUCKETS: [f64; 10] = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// Most sets of labels of one metric. What comes then is counted together, under `otel_metric_overflow="true"`.
pub(super) const SERIES_MAX: usize = 10_000;

const HEALTHY: &str = "mcp_mux.upstream.healthy";

/// Tells of each upstream that was called lately: whether it is called, or left alone.
type Healths = dyn Fn(&mut dyn FnMut(&TenantSlug, &UpstreamSlug, bool)) + Send + Sync;

/// The metrics cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("the metrics cannot be kept")]
pub struct MetricsError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// The metrics of one server. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// As long as it is there, what is measured arrives in the registry.
    _provider: SdkMeterProvider,
    meter: Meter,
    revision: Gauge<u64>,
    revocation_delay: Histogram<f64>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Metrics that can be read.
    pub fn new() -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let exporter =
            opentelemetry_prometheus::exporter().with_registry(registry.clone()).scope_info_enabled(false).build();
        let exporter = exporter.map_err(|error| MetricsError(error.into()))?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder_empty().with_service_name(METER).with_attribute(version).build();
        Ok(Self::of(registry, SdkMeterProvider::builder().with_resource(resource).with_reader(exporter)))
    }

    /// Metrics that nobody will ask for.
    pub fn unread() -> Self {
        Self::of(Registry::new(), SdkMeterProvider::builder())
    }

    fn of(registry: Registry, provider: MeterProviderBuilder) -> Self {
        // Room for so many is made at once, so only what has labels is given it.
        let bounded = |instrument: &Instrument| {
            let has_labels = instrument.name().starts_with("mcp.") || instrument.name() == HEALTHY;
            has_labels.then(|| Stream::builder().with_cardinality_limit(SERIES_MAX).build().ok())?
        };
        let provider = provider.with_view(bounded).build();
        let meter: Meter = provider.meter(METER);
        Self {
            registry,
            revision: meter
                .u64_gauge("mcp_mux.config.revision")
                .with_description("The revision of the configuration that is served")
                .build(),
            revocation_delay: meter
                .f64_histogram("mcp_mux.revocation.delay")
                .with_unit("s")
                .with_boundaries(DELAY_BUCKETS.to_vec())
                .with_description(
                    "From the moment of a revocation until this replica enforces it, by both machines' clocks",
                )
                .build(),
            meter,
            _provider: provider,
        }
    }

    /// Where it is noted how long requests take. `tracer` makes a span of each.
    pub(crate) fn operations(&self, tracer: Option<SdkTracer>) -> Operations {
        Operations::new(&self.meter, tracer)
    }

    /// Shows, whenever somebody looks, which upstreams are called and which are left alone.
    pub(crate) fn show_upstreams(&self, healths: Box<Healths>) {
        let gauge = self.meter.u64_observable_gauge(HEALTHY);
        let gauge = gauge.with_description("1 where an upstream is called, 0 where its breaker leaves it alone");
        let gauge = gauge.with_callback(move |seen| {
            healths(&mut |tenant, upstream, is_healthy| {
                let tenant = KeyValue::new("mcp_mux.tenant.name", tenant.to_string());
                let upstream = KeyValue::new("mcp_mux.upstream.name", upstream.to_string());
                seen.observe(u64::from(is_healthy), &[tenant, upstream]);
            });
        });
        // The meter keeps it.
        let _gauge = gauge.build();
    }

    /// Shows, whenever somebody looks, how many audit events wait to be written, and how many were lost.
    pub(crate) fn show_audit(
        &self,
        waiting: impl Fn() -> u64 + Send + Sync + 'static,
        lost: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        let gauge = self.meter.u64_observable_gauge("mcp_mux.audit.backlog");
        let gauge = gauge.with_description("How many lines of the audit record wait for the database");
        let _gauge = gauge.with_callback(move |seen| seen.observe(waiting(), &[])).build();
        let counter = self.meter.u64_observable_counter("mcp_mux.audit.lost");
        let counter = counter.with_description("How many audit events found no room and are lost");
        let _counter = counter.with_callback(move |seen| seen.observe(lost(), &[])).build();
    }

    /// Shows, whenever somebody looks, how many calls are missing in what tenants use.
    pub(crate) fn show_usage(&self, lost: impl Fn() -> u64 + Send + Sync + 'static) {
        let counter = self.meter.u64_observable_counter("mcp_mux.usage.lost");
        let counter =
            counter.with_description("How many calls of tools found no room to be counted in, and are missing");
        let _counter = counter.with_callback(move |seen| seen.observe(lost(), &[])).build();
    }

    /// All that was measured, in the text format of Prometheus.
    pub fn exposed(&self) -> Result<Vec<u8>, MetricsError> {
        let mut text = Vec::new();
        let encoded = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        encoded.map_err(|error| MetricsError(error.into()))?;
        Ok(text)
    }

    /// That revision is served from now on.
    pub fn serves(&self, Revision(revision): Revision) {
        self.revision.record(revision, &[]);
    }

    /// A revocation is in force, so long after it was made.
    pub fn revoked(&self, after: Duration) {
        self.revocation_delay.record(after.as_secs_f64(), &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_units_and_buckets_are_these() {
        let metrics = Metrics::new().unwrap();
        metrics.serves(Revision(7));
        metrics.revoked(Duration::from_millis(150));
        let text = String::from_utf8(metrics.exposed().unwrap()).unwrap();
        insta::assert_snapshot!(text.replace(env!("CARGO_PKG_VERSION"), "VERSION"), @r#"
        # HELP mcp_mux_config_revision The revision of the configuration that is served
        # TYPE mcp_mux_config_revision gauge
        mcp_mux_config_revision 7
        # HELP mcp_mux_revocation_delay_seconds From the moment of a revocation until this replica enforces it, by both machines' clocks
        # TYPE mcp_mux_revocation_delay_seconds histogram
        mcp_mux_revocation_delay_seconds_bucket{le="0.05"} 0
        mcp_mux_revocation_delay_seconds_bucket{le="0.1"} 0
        mcp_mux_revocation_delay_seconds_bucket{le="0.2"} 1
        mcp_mux_revocation_delay_seconds_bucket{le="0.5"} 1
        mcp_mux_revocation_delay_seconds_bucket{le="1"} 1
        mcp_mux_revocation_delay_seconds_bucket{le="2"} 1
        mcp_mux_revocation_delay_seconds_bucket{le="5"} 1
        mcp_mux_revocation_delay_seconds_bucket{le="10"} 1
        mcp_mux_revocation_delay_seconds_bucket{le="30"} 1
        mcp_mux_revocation_delay_seconds_bucket{le="60"} 1
        mcp_mux_revocation_delay_seconds_bucket{le="+Inf"} 1
        mcp_mux_revocation_delay_seconds_sum 0.15
        mcp_mux_revocation_delay_seconds_count 1
        # HELP target_info Target metadata
        # TYPE target_info gauge
        target_info{service_name="mcp-mux",service_version="VERSION"} 1
        "#);
        let unread = Metrics::unread();
        unread.revoked(Duration::from_secs(1));
        assert!(unread.exposed().unwrap().is_empty());
    }
}
