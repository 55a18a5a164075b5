//! One upstream that is listened to for one listener: its streams, one after the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Place, Things};
use crate::caller::Caller;
use crate::error::Fault;
use crate::mux::wish::Thing;
use crate::mux::{Endpoint, Mux, Sight};
use crate::upstream::{Lane, Link, Notice, Pause, Peer, Proofs, Subscription, Topics, UpstreamError};

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

    /// Listens to the upstream at `place`, if that is where things lead now. With what `runs` it is only seen whether that may go on.
    async fn subscribe(
        &self,
        place: Place,
        things: &Things,
        runs: Option<&Link>,
    ) -> Result<Option<Runs>, UpstreamError> {
        let Self { mux, caller, .. } = self;
        let sight = self.sight();
        let target = things.values().find_map(|name| sight.target(&Thing::Resource(name.clone())));
        let target = target.filter(|target| target.place() == place).ok_or(UpstreamError::BrokeOff)?;
        let link = mux.link(caller, &target, Peer::default())?;
        let rows = mux.store.tenant(target.access.scope());
        let stored = target.shelf.credentials(target.upstream.id);
        let proofs = Proofs { caller: Some(caller), rows: &rows, stored: &stored };
        if let Some(runs) = runs {
            return if runs.is_called_like(&link) {
                link.check(&proofs).await.map(|()| None)
            } else {
                Err(UpstreamError::BrokeOff)
            };
        }
        let uris: Vec<String> = things.keys().cloned().collect();
        let subscription =
            link.subscribe(&proofs, &Topics { lane: Lane::Listeners, lists: false, uris: &uris }).await?;
        let begun = Instant::now();
        Ok(Some(Runs { subscription, link, begun, check_at: begun + CHECK_EVERY }))
    }
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
        match self.who.subscribe(self.place, &self.things, None).await {
            Ok(runs) => self.runs = runs,
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
        let link = self.runs.as_ref().map(|runs| Arc::clone(&runs.link));
        let checked = self.who.subscribe(self.place, &self.things, link.as_deref()).await;
        let may_go_on = |error: &UpstreamError| error.fault() != Fault::Downstream && *error != UpstreamError::BrokeOff;
        if !checked.as_ref().err().is_none_or(may_go_on) {
            self.end();
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
