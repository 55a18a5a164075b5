//! One MCP request, answered or made: how long it took and how it went, in metrics and, where they are exported, in a span, by OpenTelemetry's semantic conventions for MCP.
//!
//! Who called is in none of it. What a client or an upstream made up, a method or a code that nobody knows, is `_OTHER`.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;
use opentelemetry::metrics::{BoundHistogram, Histogram, Meter};
use opentelemetry::trace::{Link, Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use tenant_store::{TenantId, TenantSlug, Upstream, UpstreamId};
use tokio::time::Instant;

use super::context::Origin;

/// What stands for whatever is not known.
pub(crate) const OTHER: &str = "_OTHER";
/// The error of a result that says that it is one.
const TOOL_ERROR: &str = "tool_error";
/// The error of a request that nobody waited for to its end.
const CANCELLED: &str = "cancelled";

/// The methods that MCP has, and only these are told apart.
const METHODS: [&str; 20] = [
    "completion/complete",
    "initialize",
    "logging/setLevel",
    "ping",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "server/discover",
    "skills/get",
    "skills/list",
    "subscriptions/listen",
    "tasks/cancel",
    "tasks/get",
    "tasks/update",
    "tools/call",
    "tools/list",
];
/// The JSON-RPC codes that have a meaning in MCP, and only these are told apart.
const CODES: [(i64, &str); 14] = [
    (-32_700, "-32700"),
    (-32_600, "-32600"),
    (-32_601, "-32601"),
    (-32_602, "-32602"),
    (-32_603, "-32603"),
    (-32_000, "-32000"),
    (-32_001, "-32001"),
    (-32_002, "-32002"),
    (-32_003, "-32003"),
    (-32_004, "-32004"),
    (-32_020, "-32020"),
    (-32_021, "-32021"),
    (-32_022, "-32022"),
    (-32_042, "-32042"),
];

/// In seconds, as the conventions say.
const DURATION_BUCKETS: [f64; 14] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// How many sets of labels are found without being put together anew. There are never many more: see [`super::metrics::SERIES_MAX`].
const BOUND_MAX: usize = 2 * super::metrics::SERIES_MAX;

/// Longest id of a request that stands in a span, in bytes.
const ID_BYTES_MAX: usize = 64;

/// On which hop a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    /// A client asks us.
    Server,
    /// We ask an upstream.
    Client,
}

/// What becomes of a request before it leads anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Decision {
    /// It may be made.
    Allow,
    /// It may not be made, or there is no such thing. Nobody can tell which.
    Deny,
    /// Too many were made.
    Limited,
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ending {
    /// It was answered.
    Done,
    /// The tool says that it failed.
    ToolError,
    /// With a JSON-RPC error of that code.
    Code(i64),
    /// Without an answer, for a reason that is one of few.
    Failed(&'static str),
}

/// Which upstream a request is for.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) tenant: TenantSlug,
    pub(crate) upstream: Arc<Upstream>,
}

/// The durations of all operations of a server. Clones share them.
#[derive(Clone)]
pub(crate) struct Operations(Arc<Durations>);

struct Durations {
    server: Histogram<f64>,
    client: Histogram<f64>,
    /// Where a duration goes. The labels of each are put together once.
    bound: RwLock<HashMap<Kind, BoundHistogram<f64>, RandomState>>,
    /// Makes spans, if there are any.
    tracer: Option<SdkTracer>,
}

/// What is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    side: Side,
    method: &'static str,
    version: Option<&'static str>,
    place: Option<(TenantId, UpstreamId)>,
    decision: Option<Decision>,
    ending: Ending,
}

/// A request that runs. Dropped before its end, it was cancelled.
#[derive(Debug, Default)]
pub(crate) struct Operation(Option<Box<Begun>>);

#[derive(Debug)]
struct Begun {
    operations: Operations,
    at: Instant,
    side: Side,
    method: &'static str,
    version: Option<&'static str>,
    place: Option<Place>,
    decision: Option<Decision>,
    span: Option<Box<Span>>,
}

/// The method, if it is one of MCP's.
fn known(method: &str) -> &'static str {
    METHODS.binary_search(&method).ok().and_then(|at| METHODS.get(at)).copied().unwrap_or(OTHER)
}

impl Side {
    fn metric(self) -> (&'static str, &'static str) {
        match self {
            Self::Server => ("mcp.server.operation.duration", "How long it took to answer a request of a client"),
            Self::Client => ("mcp.client.operation.duration", "How long an upstream took to answer a request"),
        }
    }
}

impl Side {
    fn kind(self) -> SpanKind {
        match self {
            Self::Server => SpanKind::Server,
            Self::Client => SpanKind::Client,
        }
    }
}

impl Decision {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Limited => "limited",
        }
    }
}

impl Ending {
    /// The JSON-RPC code, if there is one.
    pub(super) fn code(self) -> Option<&'static str> {
        let Self::Code(code) = self else { return None };
        Some(CODES.iter().find(|(known, _)| *known == code).map_or(OTHER, |(_, text)| text))
    }

    /// What failed.
    pub(super) fn error(self) -> Option<&'static str> {
        match self {
            Self::Done => None,
            Self::ToolError => Some(TOOL_ERROR),
            Self::Code(_) => self.code(),
            Self::Failed(why) => Some(why),
        }
    }

    /// The same for all that is not told apart.
    fn folded(self) -> Self {
        match self {
            Self::Code(_) if self.code() == Some(OTHER) => Self::Code(0),
            ending => ending,
        }
    }
}

impl Place {
    fn ids(&self) -> (TenantId, UpstreamId) {
        (self.upstream.tenant, self.upstream.id)
    }
}

impl Kind {
    fn labels(&self, place: Option<&Place>) -> Vec<KeyValue> {
        let mut labels = vec![KeyValue::new("mcp.method.name", self.method), KeyValue::new("network.transport", "tcp")];
        let mut add = |key: &'static str, value: Option<&'static str>| {
            labels.extend(value.map(|value| KeyValue::new(key, value)));
        };
        add("gen_ai.operation.name", (self.method == "tools/call").then_some("execute_tool"));
        add("mcp.protocol.version", self.version);
        add("error.type", self.ending.error());
        add("rpc.response.status_code", self.ending.code());
        add("mcp_mux.decision", self.decision.map(Decision::as_str));
        if let Some(Place { tenant, upstream }) = place {
            labels.push(KeyValue::new("mcp_mux.tenant.name", tenant.to_string()));
            labels.push(KeyValue::new("mcp_mux.upstream.name", upstream.slug.to_string()));
        }
        labels
    }
}

impl Operations {
    pub(super) fn new(meter: &Meter, tracer: Option<SdkTracer>) -> Self {
        let histogram = |side: Side| {
            let (name, says) = side.metric();
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(says);
            histogram.with_boundaries(DURATION_BUCKETS.to_vec()).build()
        };
        let (server, client) = (histogram(Side::Server), histogram(Side::Client));
        Self(Arc::new(Durations { server, client, bound: RwLock::default(), tracer }))
    }

    /// A request on that hop begins. Where it comes from is looked for only where there are spans.
    pub(crate) fn begin(&self, side: Side, method: &str, origin: impl FnOnce() -> Origin) -> Operation {
        let method = known(method);
        let span = self.0.tracer.as_ref().map(|tracer| Box::new(start(tracer, (side, method), origin())));
        Operation(Some(Box::new(Begun {
            operations: self.clone(),
            at: Instant::now(),
            side,
            method,
            version: None,
            place: None,
            decision: None,
            span,
        })))
    }

    fn record(&self, kind: Kind, place: Option<&Place>, seconds: f64) {
        let Durations { server, client, bound, .. } = &*self.0;
        if let Some(bound) = bound.read().unwrap_or_else(PoisonError::into_inner).get(&kind) {
            return bound.record(seconds);
        }
        let histogram = if kind.side == Side::Server { server } else { client };
        let new = histogram.bind(&kind.labels(place));
        new.record(seconds);
        let mut bound = bound.write().unwrap_or_else(PoisonError::into_inner);
        // What was measured is not forgotten with it.
        if bound.len() >= BOUND_MAX {
            bound.clear();
        }
        bound.insert(kind, new);
    }
}

/// A span as it begins. What is not known yet is added at its end.
fn start(tracer: &SdkTracer, (side, method): (Side, &'static str), Origin { parent, link }: Origin) -> Span {
    let around = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
    let links = link.map(|link| Link::new(link, Vec::new(), 0)).into_iter().collect();
    let builder = tracer.span_builder(method).with_kind(side.kind()).with_links(links);
    tracer.build_with_context(builder, &around)
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

impl Operation {
    /// One that is nobody's, and not measured.
    pub(crate) fn unseen() -> Self {
        Self(None)
    }

    /// Which protocol version it follows.
    pub(crate) fn speaks(&mut self, version: Option<&'static str>) {
        if let Some(begun) = &mut self.0 {
            begun.version = version;
        }
    }

    /// Where it leads.
    pub(crate) fn leads_to(&mut self, place: Place) {
        if let Some(begun) = &mut self.0 {
            begun.place = Some(place);
        }
    }

    /// The span, if somebody will see it.
    fn span(&mut self) -> Option<(&'static str, &mut Span)> {
        let begun = self.0.as_mut()?;
        let method = begun.method;
        begun.span.as_deref_mut().filter(|span| span.is_recording()).map(|span| (method, span))
    }

    /// By which id its maker knows it: in spans only, and only where it is a number or a plain word.
    pub(crate) fn is_known_by(&mut self, id: &str) {
        let Some((_, span)) = self.span() else { return };
        let id = id.trim_matches('"');
        if id.len() <= ID_BYTES_MAX && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            span.set_attribute(KeyValue::new("jsonrpc.request.id", id.to_owned()));
        }
    }

    /// Which tool or prompt it is about, by its name on this hop: in spans only. It must be one that there is: anything else is
    /// somebody's own text.
    pub(crate) fn is_about(&mut self, name: &str) {
        let Some((method, span)) = self.span() else { return };
        let key = match method {
            "tools/call" => "gen_ai.tool.name",
            "prompts/get" => "gen_ai.prompt.name",
            _ => return,
        };
        span.update_name(format!("{method} {name}"));
        span.set_attribute(KeyValue::new(key, name.to_owned()));
    }

    /// What is a part of it names it by this; nothing, where there are no spans.
    pub(crate) fn context(&self) -> Option<SpanContext> {
        Some(self.0.as_ref()?.span.as_ref()?.span_context().clone())
    }

    /// Whether it may be made.
    pub(crate) fn is_decided(&mut self, decision: Decision) {
        if let Some(begun) = &mut self.0 {
            begun.decision = Some(decision);
        }
    }

    /// It goes on elsewhere.
    pub(crate) fn take(&mut self) -> Self {
        mem::take(self)
    }

    /// How it went.
    pub(crate) fn end(mut self, ending: Ending) {
        self.ends(ending);
    }

    fn ends(&mut self, ending: Ending) {
        let Some(begun) = self.0.take() else { return };
        let Begun { operations, at, side, method, version, place, decision, span } = *begun;
        let ids = place.as_ref().map(Place::ids);
        let kind = Kind { side, method, version, place: ids, decision, ending: ending.folded() };
        operations.record(kind, place.as_ref(), at.elapsed().as_secs_f64());
        if let Some(mut span) = span.filter(|span| span.is_recording()) {
            span.set_attributes(kind.labels(place.as_ref()));
            span.set_attribute(KeyValue::new("network.protocol.name", "http"));
            if kind.ending.error().is_some() {
                // In no words: they could be anybody's.
                span.set_status(Status::error(""));
            }
            span.end();
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.ends(Ending::Failed(CANCELLED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_codes_that_nobody_knows_are_one() {
        for method in METHODS {
            assert_eq!(known(method), method);
        }
        assert_eq!((known("acme/secret"), known("")), (OTHER, OTHER));
        assert_eq!((Ending::Code(-32_602).code(), Ending::Code(7).error()), (Some("-32602"), Some(OTHER)));
        assert_eq!(Ending::Code(7).folded(), Ending::Code(8).folded());
    }
}
