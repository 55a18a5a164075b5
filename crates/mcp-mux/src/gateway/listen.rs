//! Streams that tell of changed lists and resources: `subscriptions/listen` of the modern era (MCP 2026-07-28
//! `basic/patterns/subscriptions`), and the
//! stream of a legacy session (2025-11-25 `basic/transports`). A stream ends with its caller's proof of identity, when that is taken
//! back, and when the server stops; then the client begins another one, at whatever replica.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Body;
use http::Response;
use serde_json::value::RawValue;
use tenant_store::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::ask::{self, NAME_BYTES_MAX};
use super::envelope::Rpc;
use super::era::Era;
use super::events::{self, EVENTS_AHEAD_MAX, KEEP_ALIVE, event};
use super::problem::Problem;
use super::subscribed::{SUBSCRIPTIONS_MAX, SessionStream};
use crate::caller::{Caller, Quota};
use crate::json::{self, Members};
use crate::lifecycle::Tasks;
use crate::mux::{Changes, Subscriptions, Wanted};
use crate::upstream::Load;

/// Most streams of one principal.
const STREAMS_MAX: usize = 32;
/// Longest life of a stream. A proof of identity that is good for longer has the client begin anew.
const LIFE_MAX: Duration = Duration::from_hours(12);

/// How long a client may take to read what it is told.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The member of a filter that names resources.
const SUBSCRIPTIONS: &str = "resourceSubscriptions";
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
    Legacy(SessionStream),
}

/// What is told.
#[derive(Debug)]
pub(super) struct Topics {
    pub(super) changes: Changes,
    pub(super) wanted: Wanted,
    pub(super) subscriptions: Subscriptions,
    /// What a modern request subscribes to.
    pub(super) uris: BTreeSet<String>,
}

/// What a modern request wants to hear of. What we do not tell of is not acknowledged.
pub(super) fn wanted(rpc: &Rpc<'_>) -> Result<(Wanted, BTreeSet<String>), Problem> {
    let malformed = || Problem::invalid_params("`params.notifications` must be an object");
    let filter = rpc.params.get("notifications").filter(|raw| json::is_object(raw)).ok_or_else(malformed)?;
    let filter = Members::parse(filter.get()).map_err(|_| malformed())?;
    // Nobody is told of tasks, who asks for their state hears of it. But who does not know them must not ask for it.
    let names_tasks = filter.get("taskIds").is_some_and(|raw| raw.get() != "null");
    if names_tasks && !ask::takes_tasks(Era::Modern, rpc) {
        return Err(Problem::lacks_tasks());
    }
    let has = |key: &str| filter.get(key).is_some_and(|raw| raw.get() == "true");
    let wanted = Wanted {
        tools: has("toolsListChanged"),
        prompts: has("promptsListChanged"),
        resources: has("resourcesListChanged"),
    };
    let uris = filter.get(SUBSCRIPTIONS).map_or("[]", |raw| raw.get());
    let uris: BTreeSet<String> = serde_json::from_str(uris).map_err(|_| {
        Problem::invalid_params(format!("`params.notifications.{SUBSCRIPTIONS}` must be a list of URIs"))
    })?;
    // What is longer than anything that is listed is nobody's.
    let uris: BTreeSet<String> = uris.into_iter().filter(|uri| uri.len() <= NAME_BYTES_MAX).collect();
    if uris.len() > SUBSCRIPTIONS_MAX {
        return Err(Problem::too_many_subscriptions());
    }
    Ok((wanted, uris))
}

impl Streams {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Quota::new(STREAMS_MAX))
    }

    /// Opens a stream that tells `caller` of `topics`.
    pub(super) fn open(
        &self,
        caller: &Caller,
        topics: Topics,
        listener: Listener,
        (tasks, now): (&Tasks, Timestamp),
    ) -> Result<Response<Body>, Problem> {
        let share = self.0.take(&caller.principal).ok_or_else(Problem::too_many_streams)?;
        if let Listener::Legacy(session) = &listener {
            session.begin();
        }
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
                () = listener.tell(topics, &events) => return,
                () = listener.superseded() => return,
            }
            if let Some(last) = listener.last() {
                events.try_send(event(&last)).ok();
            }
        });
        Ok(events::stream(receiver, |text| (text, Load::default())))
    }
}

impl Listener {
    /// Tells of one change after the other, until nobody listens.
    async fn tell(&self, topics: Topics, events: &mpsc::Sender<String>) {
        let Topics { mut changes, wanted, mut subscriptions, uris } = topics;
        subscriptions.begin(uris).await;
        let mut watched = match self {
            Self::Modern(_) => None,
            Self::Legacy(session) => Some(session.uris()),
        };
        if let Some(first) = self.first(wanted, &subscriptions)
            && events.send(event(&first)).await.is_err()
        {
            return;
        }
        loop {
            let next = async {
                tokio::select! {
                    changed = changes.next() => changed.methods().map(|method| self.notification(method, "")).collect(),
                    uri = subscriptions.next() => {
                        vec![self.notification("notifications/resources/updated", &format!("\"uri\":{}", json::quote(&uri)))]
                    }
                    uris = subscribed(&mut watched) => {
                        subscriptions.set(uris);
                        Vec::new()
                    }
                }
            };
            let texts: Vec<String> = tokio::select! {
                () = events.closed() => return,
                told = timeout(KEEP_ALIVE, next) => match told {
                    Err(_) => vec![self.keep_alive()],
                    Ok(told) => told.iter().map(|text| event(text)).collect(),
                },
            };
            for text in texts {
                // Who does not read is not listened for.
                if !matches!(timeout(READ_TIMEOUT, events.send(text)).await, Ok(Ok(()))) {
                    return;
                }
            }
        }
    }

    /// Waits until there is another stream in the place of this one.
    async fn superseded(&self) {
        match self {
            Self::Modern(_) => std::future::pending().await,
            Self::Legacy(session) => session.superseded().await,
        }
    }

    /// That the stream is alive, and that what it tells of is to be remembered.
    fn keep_alive(&self) -> String {
        if let Self::Legacy(session) = self {
            session.keep();
        }
        ": keep-alive\n\n".to_owned()
    }

    /// What a modern stream begins with.
    fn first(&self, wanted: Wanted, subscriptions: &Subscriptions) -> Option<String> {
        let Self::Modern(_) = self else { return None };
        let kinds = [
            (wanted.tools, "toolsListChanged"),
            (wanted.prompts, "promptsListChanged"),
            (wanted.resources, "resourcesListChanged"),
        ];
        let mut honoured = serde_json::Map::new();
        honoured.extend(kinds.iter().filter(|(is_it, _)| *is_it).map(|(_, kind)| ((*kind).to_owned(), true.into())));
        let heard = subscriptions.heard();
        if !heard.is_empty() {
            honoured.insert(SUBSCRIPTIONS.to_owned(), serde_json::json!(heard));
        }
        let honoured = format!("\"notifications\":{}", serde_json::Value::Object(honoured));
        Some(self.notification("notifications/subscriptions/acknowledged", &honoured))
    }

    /// A notification with these members in its `params`.
    fn notification(&self, method: &str, params: &str) -> String {
        let meta = match self {
            Self::Modern(id) => format!("\"_meta\":{{\"{SUBSCRIPTION_ID}\":{}}}", id.get()),
            Self::Legacy(_) => String::new(),
        };
        let comma = if meta.is_empty() || params.is_empty() { "" } else { "," };
        match format!("{meta}{comma}{params}") {
            params if params.is_empty() => format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\"}}"),
            params => format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{{{params}}}}}"),
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

/// What a legacy session is subscribed to, when that has changed.
async fn subscribed(watched: &mut Option<watch::Receiver<BTreeSet<String>>>) -> BTreeSet<String> {
    if let Some(watched) = watched
        && watched.changed().await.is_ok()
    {
        return watched.borrow_and_update().clone();
    }
    std::future::pending().await
}
