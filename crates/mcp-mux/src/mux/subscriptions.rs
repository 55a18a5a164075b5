//! Subscriptions: one listener of ours hears of the resources that its caller names. Each upstream among them is listened to for that
//! caller alone, with what that caller shows, and what it tells is decided about anew: it tells of parts of resources too, and grants
//! change.

mod source;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll, unfold};
use tenant_store::{Revision, TenantId, TenantScope, UpstreamId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::source::{Source, Told, Who};
use super::call::{CallError, failed};
use super::record::Came;
use super::uris::Uris;
use super::wish::{Target, Thing, Wish};
use super::{Endpoint, Mux, Sight};
use crate::caller::{Caller, Share};
use crate::upstream::{Link, Pause, Peer, UpstreamError, is_part};

/// At how many upstreams one principal may listen at once, with all its listeners together.
pub(super) const SOURCES_MAX: usize = 64;
/// The wait before an upstream is listened to again, and the longest.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(2)];
/// How long it is waited for upstreams to be listened to before a client is promised anything.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long somebody who changes subscriptions is given to change more of them.
const CHANGE_DELAY: Duration = Duration::from_millis(100);
/// How much may have changed and be unsaid, beside what was subscribed to.
const UNSAID_MAX: usize = 1_024;
/// The wait for a principal who listens at too many upstreams.
const SHARE_DELAY: Duration = Duration::from_secs(30);

type Place = (TenantId, UpstreamId);
/// The names under which the caller knows resources of an upstream, by the upstream's own.
type Things = BTreeMap<String, String>;

/// What one listener hears of.
pub struct Subscriptions {
    who: Arc<Who>,
    uris: BTreeSet<String>,
    snapshots: watch::Receiver<Revision>,
    sources: HashMap<Place, Heard>,
    told: SelectAll<BoxStream<'static, (Place, Told)>>,
    /// What may have changed and was not said yet, by the upstream's own name.
    unsaid: BTreeSet<(Place, String)>,
    /// Whether the client was promised to hear of it. What changed before it was listened to is said then.
    is_promised: bool,
    /// When it is arranged anew.
    due: Option<Instant>,
}

/// An upstream that is listened to, until it is dropped.
struct Heard {
    scope: TenantScope,
    link: Arc<Link>,
    things: Arc<Things>,
    is_begun: bool,
    pause: Arc<Mutex<Pause>>,
    share: Arc<Share>,
    _stop: DropGuard,
}

/// What is to be heard at one upstream.
struct Wanted {
    scope: TenantScope,
    link: Arc<Link>,
    things: Things,
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
            unsaid: BTreeSet::new(),
            is_promised: true,
            due: None,
        }
    }

    /// Whether `caller` may subscribe to a resource by that method, as far as is known by now. It is recorded that it was asked for.
    pub fn check_subscription(
        &self,
        caller: &Caller,
        endpoint: &Endpoint,
        (method, uri): (&'static str, &str),
    ) -> Result<(), CallError> {
        let (sight, thing) = (self.sight(caller, endpoint), Thing::Resource(uri.to_owned()));
        let came = Came { caller, endpoint };
        let Some(target) = sight.target(&thing) else {
            let unknown = CallError::Unknown(thing.word());
            if let Some(room) = self.audit.spare_room() {
                self.record_refusal(room, came, sight, (method, thing));
            }
            return Err(unknown);
        };
        let possible = self.check_telling(caller, &target);
        self.record_subscription(came, method, (&sight, &thing, &target), &possible);
        possible
    }

    /// Whether the upstream of `target` can tell of it.
    fn check_telling(&self, caller: &Caller, target: &Target<'_>) -> Result<(), CallError> {
        let link = self.link(caller, target, Peer::default()).map_err(|error| failed(target.slugs(), error))?;
        if self.pool.tells_of_resources(&link) == Some(false) {
            return Err(failed(target.slugs(), UpstreamError::TellsNothing));
        }
        Ok(())
    }
}

impl Subscriptions {
    /// Hears of these from now on, by the names under which the caller knows them, and waits a while until it does.
    pub async fn begin(&mut self, uris: BTreeSet<String>) {
        self.uris = uris;
        self.is_promised = false;
        self.arrange();
        let deadline = Instant::now() + BEGIN_TIMEOUT;
        while self.sources.values().any(|source| !source.is_begun) {
            let Ok(Some((place, told))) = timeout_at(deadline, self.told.next()).await else { break };
            self.note(place, told);
        }
        self.is_promised = true;
    }

    /// Hears of these soon, and of nothing else.
    pub fn set(&mut self, uris: BTreeSet<String>) {
        self.uris = uris;
        self.due = Some(Instant::now() + CHANGE_DELAY);
    }

    /// Those that are heard of.
    pub fn heard(&self) -> BTreeSet<&str> {
        self.sources.values().flat_map(|source| source.things.values()).map(String::as_str).collect()
    }

    /// The name of the resource that changed next. Nothing is lost when it is not waited for to its end.
    pub async fn next(&mut self) -> String {
        loop {
            while let Some((place, own)) = self.unsaid.pop_first() {
                if let Some(name) = self.name(place, &own) {
                    return name;
                }
            }
            let due = self.due;
            tokio::select! {
                changed = self.snapshots.changed() => match changed {
                    Ok(()) => self.arrange(),
                    // The catalog lives as long as the process.
                    Err(_) => std::future::pending().await,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.arrange(),
                Some((place, told)) = self.told.next() => self.note(place, told),
            }
        }
    }

    /// Who is listened to from now on may have changed before, in everything.
    fn note(&mut self, place: Place, told: Told) {
        let Some(source) = self.sources.get_mut(&place) else { return };
        let all = || source.things.keys().map(|own| (place, own.clone()));
        match told {
            Told::Updated(own) if self.unsaid.len() < UNSAID_MAX => {
                self.unsaid.insert((place, own));
            }
            // Too many parts: all of it may have changed.
            Told::Updated(_) => self.unsaid.extend(all()),
            Told::Begun => {
                if self.is_promised {
                    self.unsaid.extend(all());
                }
                source.is_begun = true;
            }
        }
    }

    /// Listens where what is to be heard of leads now, and nowhere else.
    fn arrange(&mut self) {
        self.due = None;
        let who = Arc::clone(&self.who);
        let sight = who.sight();
        let mut wanted = self.wanted(&sight);
        let mut gone = HashMap::new();
        for (place, source) in std::mem::take(&mut self.sources) {
            let stays = |wanted: &Wanted| source.link.shares_line(&wanted.link) && *source.things == wanted.things;
            if wanted.get(&place).is_some_and(stays) {
                wanted.remove(&place);
                self.sources.insert(place, source);
            } else {
                source.note_gone(place, &sight);
                gone.insert(place, (source.pause, source.share));
            }
        }
        // What is not listened to any more leaves room for the others.
        gone.retain(|place, _| wanted.contains_key(place));
        for (place, wanted) in wanted {
            match gone.remove(&place).or_else(|| who.take()) {
                Some(taken) => self.listen(place, wanted, taken),
                None => self.due = Some(Instant::now() + SHARE_DELAY),
            }
        }
        if self.due.is_some() {
            tracing::info!(request.id = %who.caller.request_id, "a caller listens at too many upstreams: some wait");
        }
    }

    fn wanted(&self, sight: &Sight) -> HashMap<Place, Wanted> {
        let Who { mux, caller, .. } = &*self.who;
        let mut all: HashMap<Place, Wanted> = HashMap::new();
        for uri in &self.uris {
            let Some(target) = sight.target(&Thing::Resource(uri.clone())) else { continue };
            let Ok(link) = mux.link(caller, &target, Peer::default()) else { continue };
            if mux.pool.tells_of_resources(&link) != Some(false) {
                let scope = target.access.scope();
                let wanted = all.entry(target.place()).or_insert_with(|| Wanted { scope, link, things: Things::new() });
                wanted.things.insert(target.local, uri.clone());
            }
        }
        all
    }

    fn listen(&mut self, place: Place, wanted: Wanted, (pause, share): (Arc<Mutex<Pause>>, Arc<Share>)) {
        let Wanted { scope, link, things } = wanted;
        let things = Arc::new(things);
        let source = Source::new((Arc::clone(&self.who), place), Arc::clone(&things), Arc::clone(&pause));
        let stopped = CancellationToken::new();
        let told = unfold(source, async |mut source| Some(((source.place, source.next().await), source)));
        self.told.push(told.take_until(stopped.clone().cancelled_owned()).boxed());
        self.sources
            .insert(place, Heard { scope, link, things, is_begun: false, pause, share, _stop: stopped.drop_guard() });
    }

    /// The name under which the caller knows what is `own` at that upstream, if the caller may know of it.
    fn name(&self, place: Place, own: &str) -> Option<String> {
        let things = &self.sources.get(&place)?.things;
        let sight = self.who.sight();
        let name = if let Some(name) = things.get(own) {
            name.clone()
        } else {
            let (_, whole) = things.iter().find(|(of, _)| is_part(own, of))?;
            let target = sight.target(&Thing::Resource(whole.clone()))?;
            Uris::of(&sight, &target, &Wish::Resource { uri: whole.into() }).name(own).into_owned()
        };
        let target = sight.target(&Thing::Resource(name.clone()))?;
        (target.place() == place).then_some(name)
    }
}

impl Who {
    /// What it takes to listen at one more upstream; nothing, if there are too many.
    fn take(&self) -> Option<(Arc<Mutex<Pause>>, Arc<Share>)> {
        let share = self.mux.listening.take(&self.caller.principal)?;
        Some((Arc::new(Mutex::new(Pause::new(AGAIN_AFTER, Instant::now()))), Arc::new(share)))
    }
}

impl Heard {
    /// It is not listened to any more. Is the upstream not there any more, nobody says goodbye to it.
    fn note_gone(&self, (_, upstream): Place, sight: &Sight) {
        let shelf = sight.snapshot.shelf_in(self.scope);
        let current = shelf.and_then(|shelf| shelf.upstreams_in_use().find(|current| current.id == upstream));
        self.link.follow(current.map(|current| &**current), shelf.and_then(|shelf| shelf.egress_hosts()));
    }
}

// By hand: what streams cannot be printed.
impl std::fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriptions").field("uris", &self.uris.len()).finish_non_exhaustive()
    }
}
