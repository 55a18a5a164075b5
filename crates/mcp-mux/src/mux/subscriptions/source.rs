//! One upstream that is listened to for one listener: its streams, one after the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Place, Things};
use crate::caller::Caller;
use crate::error::Fault;
use crate::mux::wish::{Target, Thing};
use crate::mux::{Endpoint, Mux, Sight};
use crate::upstream::{Lane, Link, Notice, Pause, Peer, Subscription, Topics, UpstreamError};

/// How often it is looked whether what the caller shows there is still good: an account may be disconnected, here or at another replica.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// For whom is listened.
#[derive(Debug)]
pub(super) struct Who {
    pub(super) mux: Mux,
    pub(super) caller: Caller,
    pub(super) endpoint: Endpoint,
}

/// What a source says.
pub(super) enum Told {
    /// It is listened to from now on; what changed before is unknown.
    Begun,
    /// The resource with this name of the upstream's own is another one.
    Updated(String),
}

/// An upstream's streams, one after the other.
pub(super) struct Source {
    who: Arc<Who>,
    pub(super) place: Place,
    things: Arc<Things>,
    runs: Option<Runs>,
    /// Shared with the source that follows, so that nobody is asked more often for being asked anew.
    pause: Arc<Mutex<Pause>>,
    /// The upstream does not tell of changes.
    is_mute: bool,
}

/// The stream that runs.
struct Runs {
    subscription: Subscription,
    link: Arc<Link>,
    begun: Instant,
    check_at: Instant,
}

impl Who {
    pub(super) fn sight(&self) -> Sight {
        self.mux.sight(&self.caller, &self.endpoint)
    }

    /// Listens to the upstream at `place`, if that is where things lead now.
    async fn subscribe(&self, place: Place, things: &Things) -> Result<Runs, UpstreamError> {
        let sight = self.sight();
        let target = reached(&sight, place, things)?;
        let stored = target.stored(&self.mux);
        let proofs = stored.proofs(&self.caller);
        let link = self.mux.link_by(&target, (&proofs, Peer::default()))?;
        let uris: Vec<String> = things.keys().cloned().collect();
        let topics = Topics { lane: Lane::Listeners, lists: false, uris: &uris };
        let subscription = link.subscribe(&proofs, &topics).await?;
        let begun = Instant::now();
        Ok(Runs { subscription, link, begun, check_at: begun + CHECK_EVERY })
    }

    /// Whether what runs over a link may go on: the upstream is still called like that, and there is something to show.
    async fn check(&self, place: Place, things: &Things, runs: &Link) -> Result<(), UpstreamError> {
        let sight = self.sight();
        let target = reached(&sight, place, things)?;
        let stored = target.stored(&self.mux);
        let proofs = stored.proofs(&self.caller);
        let link = self.mux.link_by(&target, (&proofs, Peer::default()))?;
        if !runs.is_called_like(&link) {
            return Err(UpstreamError::BrokeOff);
        }
        link.check(&proofs).await
    }
}

/// Where things lead, which must be `place`.
fn reached<'s>(sight: &'s Sight, place: Place, things: &Things) -> Result<Target<'s>, UpstreamError> {
    let target = things.values().find_map(|name| sight.target(&Thing::Resource(name.clone())));
    target.filter(|target| target.place() == place).ok_or(UpstreamError::BrokeOff)
}

impl Source {
    pub(super) fn new((who, place): (Arc<Who>, Place), things: Arc<Things>, pause: Arc<Mutex<Pause>>) -> Self {
        Self { who, place, things, runs: None, pause, is_mute: false }
    }

    /// What is told next.
    pub(super) async fn next(&mut self) -> Told {
        loop {
            let Some(runs) = &mut self.runs else {
                self.begin().await;
                continue;
            };
            tokio::select! {
                notice = runs.subscription.next() => match notice {
                    Some(Notice::Updated(own)) => return Told::Updated(own),
                    Some(Notice::Begun) => return Told::Begun,
                    Some(Notice::Lists) => {}
                    None => self.end(),
                },
                () = sleep_until(runs.check_at) => {
                    runs.check_at += CHECK_EVERY;
                    self.check().await;
                }
            }
        }
    }

    /// Listens, as soon as that may be tried.
    async fn begin(&mut self) {
        if self.is_mute {
            std::future::pending::<()>().await;
        }
        let until = self.pause().until();
        sleep_until(until).await;
        match self.who.subscribe(self.place, &self.things).await {
            Ok(runs) => self.runs = Some(runs),
            Err(error) => {
                let upstream = self.place.1;
                tracing::info!(
                    request.id = %self.who.caller.request_id, upstream.id = %upstream,
                    error = &error as &dyn std::error::Error, "an upstream cannot be listened to for a caller"
                );
                self.is_mute = error == UpstreamError::TellsNothing;
                self.pause().begin(Duration::ZERO, Instant::now());
            }
        }
    }

    /// Ends what runs with an account that is not the caller's any more.
    async fn check(&mut self) {
        let Some(link) = self.runs.as_ref().map(|runs| Arc::clone(&runs.link)) else { return };
        match self.who.check(self.place, &self.things, &link).await {
            Err(error) if error.fault() == Fault::Downstream || error == UpstreamError::BrokeOff => self.end(),
            _ => {}
        }
    }

    fn end(&mut self) {
        if let Some(runs) = self.runs.take() {
            self.pause().begin(runs.begun.elapsed(), Instant::now());
        }
    }

    fn pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
