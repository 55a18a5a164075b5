//! Where the messages of one session go, and what they are shown there.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::StatusCode;
use http::header::HeaderMap;
use tokio::time::Instant;
use url::Url;

use super::super::answer::{refusal, whole};
use super::super::credential::Credential;
use super::super::error::UpstreamError;
use super::super::link::Line;
use super::super::request::Outgoing;
use crate::lifecycle::Tasks;

/// Longest address that is taken, in bytes.
const ENDPOINT_BYTES_MAX: usize = 4 * 1024;
/// How much of what is said to a post is read, so that its connection can be used again, in bytes.
const RECEIPT_BYTES_MAX: usize = 16 * 1024;
/// Shortest part of a path that is taken for an id, in bytes.
const PATH_ID_BYTES_MIN: usize = 16;

/// Where messages go.
pub(super) struct Endpoint {
    line: Arc<Line>,
    url: Url,
    ids: Vec<String>,
    /// What was shown last. The upstream's own requests are answered with it.
    shown: ArcSwap<Credential>,
}

impl Endpoint {
    /// The endpoint that a stream of the line's upstream names. It has the upstream's own origin: what is posted there carries the
    /// credential.
    pub(super) fn named(name: &str, line: &Arc<Line>, credential: &Arc<Credential>) -> Result<Self, UpstreamError> {
        let own = &line.upstream().spec.url;
        let name = Some(name.trim()).filter(|name| !name.is_empty() && name.len() <= ENDPOINT_BYTES_MAX);
        let mut url = name.and_then(|name| own.join(name).ok()).ok_or(UpstreamError::NotMcp)?;
        url.set_fragment(None);
        let is_anonymous = url.username().is_empty() && url.password().is_none();
        if url.origin() != own.origin() || !is_anonymous {
            let upstream = line.upstream();
            tracing::warn!(
                tenant.id = %upstream.tenant, upstream.id = %upstream.id,
                "an upstream names an endpoint at another origin; nothing is sent there"
            );
            return Err(UpstreamError::EndpointElsewhere);
        }
        let shown = ArcSwap::new(Arc::clone(credential));
        Ok(Self { ids: ids_in(&url), line: Arc::clone(line), url, shown })
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.ids.iter().map(String::as_str)
    }

    pub(super) fn tasks(&self) -> &Tasks {
        self.line.tasks()
    }

    /// From here on, requests of the upstream are answered with this.
    pub(super) fn show(&self, credential: &Arc<Credential>) {
        self.shown.store(Arc::clone(credential));
    }

    /// Posts a message with what was shown last.
    pub(super) async fn reply(&self, body: String, deadline: Instant) -> Result<(), UpstreamError> {
        let credential = self.shown.load_full();
        self.post(&credential, body, deadline).await
    }

    /// Posts a message. That it is taken says nothing but that.
    pub(super) async fn post(
        &self,
        credential: &Credential,
        body: String,
        deadline: Instant,
    ) -> Result<(), UpstreamError> {
        let outgoing = Outgoing::message(self.url.clone(), HeaderMap::new(), body);
        let response = self.line.send(credential, outgoing, deadline).await?;
        let status = response.status();
        // What it says is of no interest.
        drop(whole(response, RECEIPT_BYTES_MAX, deadline).await);
        if let Some(refusal) = refusal(status) {
            return Err(refusal);
        }
        match status {
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::GONE => Err(UpstreamError::SessionGone),
            status if status.is_success() => Ok(()),
            status => Err(UpstreamError::Status(status.as_u16())),
        }
    }
}

/// What in an endpoint looks like the id of a session: values in its query, and long parts of its path that hold a digit.
fn ids_in(url: &Url) -> Vec<String> {
    let is_id = |part: &&str| part.len() >= PATH_ID_BYTES_MIN && part.bytes().any(|byte| byte.is_ascii_digit());
    let in_path = url.path_segments().into_iter().flatten().filter(is_id).map(ToOwned::to_owned);
    url.query_pairs().map(|(_, value)| value.into_owned()).chain(in_path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_session_is_told_apart_from_words() {
        let ids = |url: &str| ids_in(&Url::parse(url).unwrap());
        assert_eq!(ids("https://a.example/messages/?session_id=4bf92f35"), ["4bf92f35"]);
        assert_eq!(ids("https://a.example/messages/4bf92f35-77b3-4da6"), ["4bf92f35-77b3-4da6"]);
        assert!(ids("https://a.example/v1/messages/of-everybody-at-once").is_empty());
    }
}
