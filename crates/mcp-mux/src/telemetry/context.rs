//! Where a request comes from, and where it goes on: W3C Trace Context, in `_meta` and in HTTP headers (SEP-414).

use http::header::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, TraceContextExt as _, TraceFlags};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use crate::json::{self, Members};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// Longest value that is looked at, in bytes.
const VALUE_BYTES_MAX: usize = 8 * 1024;

/// Where a request comes from.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    /// What it is a part of.
    pub(super) parent: Option<SpanContext>,
    /// What brought it here besides.
    pub(super) link: Option<SpanContext>,
}

/// The two values that a context is written as.
struct Written<'w> {
    parent: Option<&'w str>,
    state: Option<&'w str>,
}

impl Extractor for Written<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = match key {
            TRACEPARENT => self.parent,
            TRACESTATE => self.state,
            _ => None,
        };
        value.filter(|value| value.len() <= VALUE_BYTES_MAX)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

impl Written<'_> {
    /// The context, if it is one.
    fn read(&self) -> Option<SpanContext> {
        self.parent?;
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), self);
        let context = context.span().span_context().clone();
        context.is_valid().then_some(context)
    }
}

impl Origin {
    /// What `_meta` says, which is about the request; the headers are about the HTTP exchange, and stand in where it says nothing.
    pub(crate) fn of(meta: Option<&Members<'_>>, headers: &HeaderMap) -> Self {
        let said = |key: &str| meta.and_then(|meta| meta.get_str(key));
        let (parent, state) = (said(TRACEPARENT), said(TRACESTATE));
        let parent = Written { parent: parent.as_deref(), state: state.as_deref() }.read();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let around = Written { parent: header(TRACEPARENT), state: header(TRACESTATE) }.read();
        match parent {
            Some(parent) => Self { link: around.filter(|around| *around != parent), parent: Some(parent) },
            None => Self { parent: around, link: None },
        }
    }

    /// A part of what we do ourselves.
    pub(crate) fn within(parent: Option<SpanContext>) -> Self {
        Self { parent, link: None }
    }
}

fn parent(context: &SpanContext) -> String {
    let (trace, span) = (context.trace_id(), context.span_id());
    let sampled = (context.trace_flags() & TraceFlags::SAMPLED).to_u8();
    format!("00-{trace}-{span}-{sampled:02x}")
}

/// What `_meta` says as headers, for an upstream that has no `_meta`. What is no context is none there.
pub(crate) fn as_headers(meta: &Members<'_>) -> HeaderMap {
    let Some(context) = Origin::of(Some(meta), &HeaderMap::new()).parent else { return HeaderMap::new() };
    let said = [(TRACEPARENT, parent(&context)), (TRACESTATE, context.trace_state().header())];
    let header = |(name, value): (&'static str, String)| {
        let value = HeaderValue::from_str(&value).ok().filter(|value| !value.is_empty())?;
        Some((HeaderName::from_static(name), value))
    };
    said.into_iter().filter_map(header).collect()
}

/// `,"key":value` for `_meta`.
pub(crate) fn written(context: &SpanContext) -> String {
    let mut text = format!(",\"{TRACEPARENT}\":\"{}\"", parent(context));
    let state = context.trace_state().header();
    if !state.is_empty() {
        text = text + ",\"" + TRACESTATE + "\":" + &json::quote(&state);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const HEADER: &str = "00-11111111111111111111111111111111-2222222222222222-00";

    fn origin(meta: &str, header: Option<&str>) -> (Option<String>, Option<String>) {
        let meta = Members::parse(meta).unwrap();
        let headers = header.map(|value| (TRACEPARENT.parse().unwrap(), value.parse().unwrap()));
        let Origin { parent, link } = Origin::of(Some(&meta), &headers.into_iter().collect());
        (parent.as_ref().map(written), link.as_ref().map(written))
    }

    #[test]
    fn what_meta_says_is_the_parent_and_the_headers_are_a_link_or_stand_in() {
        let text = |value: &str| Some(format!(",\"traceparent\":\"{value}\""));
        let meta = format!("{{\"traceparent\":\"{META}\"}}");
        assert_eq!(origin(&meta, None), (text(META), None));
        assert_eq!(origin(&meta, Some(HEADER)), (text(META), text(HEADER)));
        assert_eq!(origin(&meta, Some(META)), (text(META), None));
        assert_eq!(origin("{}", Some(HEADER)), (text(HEADER), None));
        assert_eq!(origin(r#"{"traceparent":"nonsense"}"#, Some(HEADER)), (text(HEADER), None));
        assert_eq!(origin(r#"{"traceparent":7}"#, Some("00-0-0-00")), (None, None));
        let with_state = format!("{{\"traceparent\":\"{META}\",\"tracestate\":\"a=1,b=2\"}}");
        let written = format!(",\"traceparent\":\"{META}\",\"tracestate\":\"a=1,b=2\"");
        assert_eq!(origin(&with_state, None), (Some(written), None));
    }
}
