//! Subscriptions: one listener of ours hears of the resources that its caller names. Each upstream among them is listened to for that
//! caller alone, with what that caller shows, and what it tells is decided about anew: it tells of parts of resources too, and grants
//! change.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll, unfold};
use tenant_store::{Revision, TenantId, UpstreamId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::call::{CallError, failed};
use super::uris::Uris;
use super::wish::{Target, Thing, Wish};
use super::{Endpoint, Mux, Sight};
use crate::caller::{Caller, Share};
use crate::upstream::{Lane, Link, Notice, Pause, Peer, Proofs, Subscription, Topics, UpstreamError};

/// At how many upstreams one principal may listen at once, with all its listeners together.
pub(super) const SOURCES_MAX: usize = 64;
/// The wait before an upstream is listened to again, and the longest.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(2)];

type Place = (TenantId, UpstreamId);

/// What one listener hears of.
pub struct Subscriptions {
    who: Arc<Who>,
    uris: BTreeSet<String>,
    snapshots: watch::Receiver<Revision>,
    sources: HashMap<Place, Heard>,
    told: SelectAll<BoxStream<'static, (Place, String)>>,
}

/// For whom is listened.
#[derive(Debug)]
struct Who {
    mux: Mux,
    caller: Caller,
    endpoint: Endpoint,
}

/// An upstream that is listened to, until it is dropped.
struct Heard {
    link: Arc<Link>,
    things: Arc<Things>,
    _stop: DropGuard,
}

/// The names under which the caller knows resources of an upstream, by the upstream's own.
type Things = BTreeMap<String, String>;

/// An upstream's streams, one after the other.
struct Source {
    who: Arc<Who>,
    place: Place,
    things: Arc<Things>,
    /// What runs, and since when.
    runs: Option<(Subscription, Instant)>,
    pause: Pause,
    was_heard: bool,
    unsaid: VecDeque<String>,
    _share: Share,
}

impl Mux {
    /// What `caller` hears of at `endpoint`: nothing yet.
    pub fn subscriptions(&self, caller: &Caller, endpoint: &Endpoint) -> Subscriptions {
        Subscriptions {
            snapshots: self.catalog.changes(),
            who: Arc::new(Who { mux: self.clone(), caller: caller.clone(), endpoint: endpoint.clone() }),
            uris: BTreeSet::new(),
            sources: HashMap::new(),
            told: SelectAll::new(),
        }
    }

    /// Whether `caller` may subscribe to a resource, as far as is known by now.
    pub fn check_subscription(&self, caller: &Caller, endpoint: &Endpoint, uri: &str) -> Result<(), CallError> {
        let (sight, thing) = (self.sight(caller, endpoint), Thing::Resource(uri.to_owned()));
        let target = sight.target(&thing).ok_or(CallError::Unknown(thing.word()))?;
        let link = self.link(caller, &target, Peer::default()).map_err(|error| failed(target.slugs(), error))?;
        if self.pool.tells_of_resources(&link) == Some(false) {
            return Err(failed(target.slugs(), UpstreamError::TellsNothing));
        }
        Ok(())
    }
}

impl Subscriptions {
    /// Hears of these from now on, by the names under which the caller knows them, and of nothing else.
    pub fn set(&mut self, uris: BTreeSet<String>) {
        self.uris = uris;
        self.arrange();
    }

    /// Those that are heard of.
    pub fn heard(&self) -> BTreeSet<&str> {
        self.sources.values().flat_map(|source| source.things.values()).map(String::as_str).collect()
    }

    /// The name of the resource that changed next. Nothing is lost when it is not waited for to its end.
    pub async fn next(&mut self) -> String {
        loop {
            tokio::select! {
                changed = self.snapshots.changed() => match changed {
                    Ok(()) => self.arrange(),
                    // The catalog lives as long as the process.
                    Err(_) => std::future::pending().await,
                },
                Some((place, own)) = self.told.next() => {
                    if let Some(name) = self.name(place, &own) {
                        return name;
                    }
                }
            }
        }
    }

    /// Listens where what is to be heard of leads now, and nowhere else.
    fn arrange(&mut self) {
        let who = Arc::clone(&self.who);
        let sight = who.sight();
        let mut wanted: HashMap<Place, (Arc<Link>, Things)> = HashMap::new();
        for uri in &self.uris {
            let Some(target) = sight.target(&Thing::Resource(uri.clone())) else { continue };
            let Ok(link) = who.mux.link(&who.caller, &target, Peer::default()) else { continue };
            if who.mux.pool.tells_of_resources(&link) != Some(false) {
                let (_, things) = wanted.entry(target.place()).or_insert_with(|| (link, Things::new()));
                things.insert(target.local, uri.clone());
            }
        }
        self.sources.retain(|place, source| {
            let stays =
                |(link, things): &(Arc<Link>, Things)| source.link.shares_line(link) && *source.things == *things;
            wanted.get(place).is_some_and(stays)
        });
        for (place, (link, things)) in wanted {
            if !self.sources.contains_key(&place) {
                self.listen(place, link, Arc::new(things));
            }
        }
    }

    fn listen(&mut self, place: Place, link: Arc<Link>, things: Arc<Things>) {
        let Some(share) = self.who.mux.listening.take(&self.who.caller.principal) else { return };
        let source = Source {
            who: Arc::clone(&self.who),
            place,
            things: Arc::clone(&things),
            runs: None,
            pause: Pause::new(AGAIN_AFTER, Instant::now()),
            was_heard: false,
            unsaid: VecDeque::new(),
            _share: share,
        };
        let stopped = CancellationToken::new();
        let told = unfold(source, async |mut source| Some(((source.place, source.next().await), source)));
        self.told.push(told.take_until(stopped.clone().cancelled_owned()).boxed());
        self.sources.insert(place, Heard { link, things, _stop: stopped.drop_guard() });
    }

    /// The name under which the caller knows what is `own` at that upstream, if the caller may know of it.
    fn name(&self, place: Place, own: &str) -> Option<String> {
        let things = &self.sources.get(&place)?.things;
        let sight = self.who.sight();
        let name = if let Some(name) = things.get(own) {
            name.clone()
        } else {
            // In one session it is told of what others of the same principal's listen for, too.
            let (_, whole) = things.iter().find(|(of, _)| is_part(own, of))?;
            let target = sight.target(&Thing::Resource(whole.clone()))?;
            Uris::of(&sight, &target, &Wish::Resource { uri: whole.into() }).name(own).into_owned()
        };
        let target = sight.target(&Thing::Resource(name.clone()))?;
        (target.place() == place).then_some(name)
    }
}

/// Whether the resource `own` lies below the resource `of`.
fn is_part(own: &str, of: &str) -> bool {
    let below = own.strip_prefix(of).is_some_and(|rest| of.ends_with('/') || rest.starts_with(['/', '?', '#']));
    below && own.len() > of.len()
}

impl Who {
    fn sight(&self) -> Sight {
        self.mux.sight(&self.caller, &self.endpoint)
    }

    /// Listens to the upstream at `place`, if that is where things lead now.
    async fn subscribe(&self, place: Place, things: &Things) -> Result<Subscription, UpstreamError> {
        let Self { mux, caller, .. } = self;
        let sight = self.sight();
        let uris: Vec<String> = things.keys().cloned().collect();
        let target = things.values().find_map(|name| sight.target(&Thing::Resource(name.clone())));
        let target = target.filter(|target| target.place() == place).ok_or(UpstreamError::BrokeOff)?;
        let link = mux.link(caller, &target, Peer::default())?;
        let rows = mux.store.tenant(target.access.scope());
        let stored = target.shelf.credentials(target.upstream.id);
        let proofs = Proofs { caller: Some(caller), rows: &rows, stored: &stored };
        link.subscribe(&proofs, &Topics { lane: Lane::Listeners, lists: false, uris: &uris }).await
    }
}

impl Source {
    /// The next resource that is another one, by the upstream's own name.
    async fn next(&mut self) -> String {
        loop {
            if let Some(own) = self.unsaid.pop_front() {
                return own;
            }
            let Some((subscription, begun)) = &mut self.runs else {
                sleep_until(self.pause.until()).await;
                self.begin().await;
                continue;
            };
            match subscription.next().await {
                Some(Notice::Updated(own)) => return own,
                // What changed while nobody listened is unknown, so that all of it may have.
                Some(Notice::Begun) if std::mem::replace(&mut self.was_heard, true) => {
                    self.unsaid.extend(self.things.keys().cloned());
                }
                Some(Notice::Begun | Notice::Lists) => {}
                None => {
                    self.pause.begin(begun.elapsed(), Instant::now());
                    self.runs = None;
                }
            }
        }
    }

    async fn begin(&mut self) {
        match self.who.subscribe(self.place, &self.things).await {
            Ok(subscription) => self.runs = Some((subscription, Instant::now())),
            Err(error) => {
                let upstream = self.place.1;
                tracing::info!(
                    request.id = %self.who.caller.request_id, upstream.id = %upstream, error = &error as &dyn std::error::Error,
                    "an upstream cannot be listened to for a caller"
                );
                self.pause.begin(Duration::ZERO, Instant::now());
            }
        }
    }
}

impl Target<'_> {
    fn place(&self) -> Place {
        (self.upstream.tenant, self.upstream.id)
    }
}

// By hand: what streams cannot be printed.
impl std::fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriptions").field("uris", &self.uris.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_below_what_they_are_parts_of() {
        for (own, of, is_it) in [
            ("note://one/a", "note://one", true),
            ("note://one#a", "note://one", true),
            ("note://one?a", "note://one", true),
            ("file:///srv/a", "file:///srv/", true),
            ("note://one", "note://one", false),
            ("note://one-and-only", "note://one", false),
            ("note://two/a", "note://one", false),
        ] {
            assert_eq!(is_part(own, of), is_it, "{own} {of}");
        }
    }
}
