//! Streams that tell of changed lists: `subscriptions/listen` of the modern era (MCP 2026-07-28 `basic/patterns/subscriptions`), and the
//! stream of a legacy session (2025-11-25 `basic/transports`). A stream ends with its caller's proof of identity, when that is taken
//! back, and when the server stops; then the client begins another one, at whatever replica.

use std::time::Duration;

use axum::body::Body;
use http::Response;
use serde_json::value::RawValue;
use tenant_store::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::answer::{self, EVENTS_AHEAD_MAX, KEEP_ALIVE, event};
use super::envelope::Rpc;
use super::problem::Problem;
use crate::caller::{Caller, Quota};
use crate::json::{self, Members};
use crate::lifecycle::Tasks;
use crate::mux::{Changes, Wanted};

/// Most streams of one principal.
const STREAMS_MAX: usize = 32;
/// Longest life of a stream. A proof of identity that is good for longer has the client begin anew.
const LIFE_MAX: Duration = Duration::from_hours(12);

const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// How many streams each principal has open here.
#[derive(Debug, Clone)]
pub(super) struct Streams(Quota);

/// Whose stream it is, and of which era.
#[derive(Debug)]
pub(super) enum Listener {
    /// The request that began it.
    Modern(Box<RawValue>),
    /// A session.
    Legacy,
}

/// What a modern request wants to hear of. What we do not tell of is not acknowledged.
pub(super) fn wanted(rpc: &Rpc<'_>) -> Result<Wanted, Problem> {
    let malformed = || Problem::invalid_params("`params.notifications` must be an object");
    let filter = rpc.params.get("notifications").filter(|raw| json::is_object(raw)).ok_or_else(malformed)?;
    let filter = Members::parse(filter.get()).map_err(|_| malformed())?;
    let has = |key: &str| filter.get(key).is_some_and(|raw| raw.get() == "true");
    Ok(Wanted {
        tools: has("toolsListChanged"),
        prompts: has("promptsListChanged"),
        resources: has("resourcesListChanged"),
    })
}

impl Streams {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Quota::new(STREAMS_MAX))
    }

    /// Opens a stream that tells `caller` of `changes`.
    pub(super) fn open(
        &self,
        caller: &Caller,
        (changes, wanted): (Changes, Wanted),
        listener: Listener,
        (tasks, now): (&Tasks, Timestamp),
    ) -> Result<Response<Body>, Problem> {
        let share = self.0.take(&caller.principal).ok_or_else(Problem::too_many_streams)?;
        let left = caller.proof_ends_at.as_millis().saturating_sub(now.as_millis());
        let ends_at = Instant::now() + Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(LIFE_MAX);
        let (events, receiver) = mpsc::channel(EVENTS_AHEAD_MAX);
        let (caller, shutdown) = (caller.clone(), tasks.shutdown());
        tasks.spawn_draining(async move {
            let _share = share;
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = caller.ended.cancelled() => {}
                () = tokio::time::sleep_until(ends_at) => {}
                // The client is gone: there is nobody to say goodbye to.
                () = listener.tell(changes, wanted, &events) => return,
            }
            if let Some(last) = listener.last() {
                events.try_send(event(&last)).ok();
            }
        });
        Ok(answer::stream(receiver))
    }
}

impl Listener {
    /// Tells of one change after the other, until nobody listens.
    async fn tell(&self, mut changes: Changes, wanted: Wanted, events: &mpsc::Sender<String>) {
        if let Some(first) = self.first(wanted)
            && events.send(event(&first)).await.is_err()
        {
            return;
        }
        loop {
            let texts: Vec<String> = tokio::select! {
                () = events.closed() => return,
                changed = timeout(KEEP_ALIVE, changes.next()) => match changed {
                    Err(_) => vec![": keep-alive\n\n".to_owned()],
                    Ok(changed) => changed.methods().map(|method| event(&self.notification(method, ""))).collect(),
                },
            };
            for text in texts {
                if events.send(text).await.is_err() {
                    return;
                }
            }
        }
    }

    /// What a modern stream begins with.
    fn first(&self, wanted: Wanted) -> Option<String> {
        let Self::Modern(_) = self else { return None };
        let kinds = [
            (wanted.tools, "toolsListChanged"),
            (wanted.prompts, "promptsListChanged"),
            (wanted.resources, "resourcesListChanged"),
        ];
        let kinds = kinds.iter().filter(|(is_it, _)| *is_it).map(|(_, kind)| format!("\"{kind}\":true"));
        let honoured = format!(",\"notifications\":{{{}}}", kinds.collect::<Vec<_>>().join(","));
        Some(self.notification("notifications/subscriptions/acknowledged", &honoured))
    }

    fn notification(&self, method: &str, params: &str) -> String {
        match self {
            Self::Modern(id) => {
                let meta = format!("\"_meta\":{{\"{SUBSCRIPTION_ID}\":{}}}", id.get());
                format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{{{meta}{params}}}}}")
            }
            Self::Legacy => format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\"}}"),
        }
    }

    /// What a modern stream ends with.
    fn last(&self) -> Option<String> {
        let Self::Modern(id) = self else { return None };
        let id = id.get();
        let result = format!("{{\"resultType\":\"complete\",\"_meta\":{{\"{SUBSCRIPTION_ID}\":{id}}}}}");
        Some(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}"))
    }
}
