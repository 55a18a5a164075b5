//! Sending one HTTP request to an upstream, and what a caller hears if there is no response.

use http::StatusCode;
use http::header::HeaderMap;
use tokio::time::{Instant, timeout_at};

use super::super::answer::{events, is_events};
use super::super::credential::Credential;
use super::super::error::UpstreamError;
use super::super::event_stream::EventStream;
use super::super::redact::Redactor;
use super::super::request::Outgoing;
use super::Line;
use crate::egress::{Response, SendError};

impl Line {
    /// Proves a request with `credential`, sends it and waits for the head of the response.
    pub(in crate::upstream) async fn send(
        &self,
        credential: &Credential,
        mut outgoing: Outgoing,
        deadline: Instant,
    ) -> Result<Response, UpstreamError> {
        credential.prove(&mut outgoing, self.now())?;
        let sent = async {
            let request = credential.http.request(outgoing.method, &outgoing.url)?;
            request.headers(outgoing.headers).body(outgoing.body).send().await
        };
        let sent = timeout_at(deadline, sent).await.map_err(|_| UpstreamError::TimedOut)?;
        sent.map_err(|error| self.unsent(&error))
    }

    /// Begins the stream of a session, which `headers` name, without the secrets that `redactor` knows; nothing, if there is none.
    pub(in crate::upstream) async fn listen(
        &self,
        credential: &Credential,
        headers: HeaderMap,
        redactor: &Redactor,
        deadline: Instant,
    ) -> Option<EventStream> {
        // At an upstream that was taken away or moved nothing is begun any more.
        if self.is_silent() {
            return None;
        }
        let mut outgoing = Outgoing::for_events(self.upstream().spec.url.clone());
        outgoing.headers.extend(headers);
        let response = self.send(credential, outgoing, deadline).await.ok()?;
        let is_begun = response.status() == StatusCode::OK && is_events(&response);
        is_begun.then(|| events(response).without(redactor.clone()))
    }

    /// What a caller hears about a request that got no response. Nothing but the log says more.
    fn unsent(&self, error: &SendError) -> UpstreamError {
        let cause = error as &dyn std::error::Error;
        let upstream = self.upstream();
        match error {
            SendError::Refused(refused) => {
                tracing::warn!(
                    tenant.id = %upstream.tenant, upstream.id = %upstream.id, error = cause,
                    "an upstream is not called"
                );
                // Callers do not learn which names lead where.
                let is_name = upstream.spec.url.domain().is_some();
                if is_name && refused.is_about_addresses() {
                    UpstreamError::Unreachable
                } else {
                    UpstreamError::Forbidden
                }
            }
            SendError::TimedOut | SendError::Unreachable(_) => {
                tracing::debug!(upstream.id = %upstream.id, error = cause, "no response");
                if matches!(error, SendError::TimedOut) { UpstreamError::TimedOut } else { UpstreamError::Unreachable }
            }
        }
    }
}
