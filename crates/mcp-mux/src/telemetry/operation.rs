//! One MCP request, answered or made: how long it took and how it went, by OpenTelemetry's semantic conventions for MCP.
//!
//! Who called is in none of it. What a client or an upstream made up, a method or a code that nobody knows, is `_OTHER`.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundHistogram, Histogram, Meter};
use tenant_store::{TenantId, TenantSlug, Upstream, UpstreamId};
use tokio::time::Instant;

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
    pub(super) fn new(meter: &Meter) -> Self {
        let histogram = |side: Side| {
            let (name, says) = side.metric();
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(says);
            histogram.with_boundaries(DURATION_BUCKETS.to_vec()).build()
        };
        let (server, client) = (histogram(Side::Server), histogram(Side::Client));
        Self(Arc::new(Durations { server, client, bound: RwLock::default() }))
    }

    /// A request on that hop begins.
    pub(crate) fn begin(&self, side: Side, method: &str) -> Operation {
        Operation(Some(Box::new(Begun {
            operations: self.clone(),
            at: Instant::now(),
            side,
            method: known(method),
            version: None,
            place: None,
            decision: None,
        })))
    }

    fn record(&self, kind: Kind, place: Option<&Place>, seconds: f64) {
        let Durations { server, client, bound } = &*self.0;
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
        let Begun { operations, at, side, method, version, place, decision } = *begun;
        let ids = place.as_ref().map(Place::ids);
        let kind = Kind { side, method, version, place: ids, decision, ending: ending.folded() };
        operations.record(kind, place.as_ref(), at.elapsed().as_secs_f64());
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
