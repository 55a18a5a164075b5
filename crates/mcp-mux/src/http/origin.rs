//! Host and Origin: a page of another site must not reach us through a browser's or a resolver's confusion (DNS rebinding,
//! MCP 2026-07-28 `basic/transports`).

use std::collections::HashSet;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use futures::future::Either;
use tower::Service;

use super::problem;
use crate::config::PublicUrl;

/// The hosts and origins that may be named.
#[derive(Debug)]
pub(super) struct OriginGuard {
    hosts: HashSet<String>,
    origins: HashSet<String>,
}

impl OriginGuard {
    /// The public URL's own, and those that the configuration adds.
    pub(super) fn new(public_url: &PublicUrl, hosts: &[String], origins: &[String]) -> Self {
        let lower = |texts: &[String]| texts.iter().map(|text| text.to_ascii_lowercase()).collect::<HashSet<_>>();
        let (mut hosts, mut origins) = (lower(hosts), lower(origins));
        hosts.insert(public_url.authority().to_ascii_lowercase());
        origins.insert(public_url.origin().to_ascii_lowercase());
        Self { hosts, origins }
    }

    /// Why a request may not pass, if it may not.
    fn refusal(&self, request: &Request) -> Option<&'static str> {
        if !self.allows_host(request.uri(), request.headers()) {
            Some("this host name is not served: set `http.allowed_hosts` if it should be")
        } else if !self.allows_origin(request.headers()) {
            Some("this origin may not call: set `http.allowed_origins` if it should")
        } else {
            None
        }
    }

    fn allows_host(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let named = match only(headers, &HOST) {
            Ok(Some(host)) => Some(host),
            Ok(None) => uri.authority().map(http::uri::Authority::as_str),
            Err(()) => None,
        };
        named.is_some_and(|host| self.hosts.contains(&host.to_ascii_lowercase()))
    }

    /// Programs send no Origin; browsers send exactly one.
    fn allows_origin(&self, headers: &HeaderMap) -> bool {
        match only(headers, &ORIGIN) {
            Ok(None) => true,
            Ok(Some(origin)) => self.origins.contains(&origin.to_ascii_lowercase()),
            Err(()) => false,
        }
    }
}

fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, ()> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() { Err(()) } else { value.to_str().map(Some).map_err(|_| ()) }
}

/// Whatever answers the requests that the guard lets pass.
#[derive(Debug, Clone)]
pub(super) struct Guarded<S> {
    guard: Arc<OriginGuard>,
    inner: S,
}

impl<S> Guarded<S> {
    pub(super) fn new(guard: &Arc<OriginGuard>, inner: S) -> Self {
        Self { guard: Arc::clone(guard), inner }
    }
}

impl<S: Service<Request, Response = Response>> Service<Request> for Guarded<S> {
    type Response = Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.guard.refusal(&request) {
            None => Either::Left(self.inner.call(request)),
            Some(words) => Either::Right(ready(Ok(problem::plain(StatusCode::FORBIDDEN, words)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn guard() -> OriginGuard {
        let url = PublicUrl::try_from(url::Url::parse("https://mcp.example.com").unwrap()).unwrap();
        OriginGuard::new(&url, &["mux:8080".to_owned()], &["https://webui.example.com".to_owned()])
    }

    fn headers(values: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_configured_hosts_are_served() {
        let allows = |host| guard().allows_host(&Uri::from_static("/mcp"), &headers(&[("host", host)]));
        assert!(allows("mcp.example.com") && allows("MCP.example.com") && allows("mux:8080"));
        for host in ["evil.example.com", "mcp.example.com:8080", "mcp.example.com.", "", "mux"] {
            assert!(!allows(host), "{host}");
        }
        let twice = headers(&[("host", "mcp.example.com"), ("host", "evil.example.com")]);
        assert!(!guard().allows_host(&Uri::from_static("/mcp"), &twice));
    }

    #[test]
    fn only_configured_origins_may_call() {
        assert!(guard().allows_origin(&headers(&[])));
        assert!(guard().allows_origin(&headers(&[("origin", "https://webui.example.com")])));
        for origin in ["null", "https://evil.example.com", "http://webui.example.com", "https://webui.example.com:444"]
        {
            assert!(!guard().allows_origin(&headers(&[("origin", origin)])), "{origin}");
        }
        let twice = headers(&[("origin", "https://webui.example.com"), ("origin", "null")]);
        assert!(!guard().allows_origin(&twice));
    }
}
