//! Keeping the catalog fresh, in the background: each upstream is listed now and then, and what it says is stored.
//!
//! An upstream that fails keeps the tools it had. Changes of configuration are noticed by looking at the revision.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::iter::successors;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::value::RawValue;
use tenant_store::{
    ExposedName, LocalName, NameGiven, NewOffer, NewTool, OfferKey, OfferKind, Replaced, StoreError, TenantSlug,
    TenantStore, Upstream,
};
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use super::definition::{Definition, DefinitionError};
use super::hearing::{self, Heard};
use super::item;
use super::lookalike::Lookalikes;
use super::name::{Origin, expose};
use super::schedule::{Due, HEARD_WAIT, Schedules};
use super::snapshot::{Catalog, Snapshot};
use crate::audit::Purpose;
use crate::upstream::{Link, ListKind, Peer, Pool, Proofs, UpstreamError, list};

/// How often it is looked for what is due, at the least.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The least time between two looks at the revision.
const RELOAD_GAP: Duration = Duration::from_millis(100);
/// How many upstreams are listed at the same time.
const LISTED_AT_ONCE_MAX: usize = 16;

/// Lists upstreams and stores what they say.
#[derive(Debug)]
pub struct Refresher {
    catalog: Arc<Catalog>,
    pool: Pool,
    every: Duration,
    name_chars_max: usize,
    /// One at a time gives names and stores them, so that two upstreams of a tenant cannot be given the same one.
    naming: Mutex<()>,
    heard: Heard,
    wake: Notify,
    /// There may be a new snapshot.
    reloaded: Notify,
}

/// Whose list is taken over.
#[derive(Clone, Copy)]
struct Listing<'l> {
    rows: &'l TenantStore,
    tenant: &'l TenantSlug,
    upstream: &'l Upstream,
}

#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error("the upstream {0}")]
    Upstream(UpstreamError),
    #[error("the upstream was configured anew while it was listed")]
    Superseded,
    #[error("what the upstream listed cannot be stored")]
    Store(#[from] StoreError),
}

impl RefreshError {
    /// Whether another list of the same upstream may fare better, and answers at once.
    fn is_of_one_list(&self) -> bool {
        match self {
            Self::Upstream(error) => matches!(
                error,
                UpstreamError::NotMcp
                    | UpstreamError::TooLarge
                    | UpstreamError::Status(_)
                    | UpstreamError::BrokeOff
                    | UpstreamError::WantsInput
            ),
            Self::Store(_) => true,
            Self::Superseded => false,
        }
    }
}

impl Refresher {
    /// Lists each upstream every `every`; exposed names are at most `name_chars_max` long.
    pub fn new(catalog: Arc<Catalog>, pool: Pool, every: Duration, name_chars_max: usize) -> Self {
        Self {
            catalog,
            pool,
            every,
            name_chars_max,
            naming: Mutex::new(()),
            heard: Heard::default(),
            wake: Notify::new(),
            reloaded: Notify::new(),
        }
    }

    /// Looks at the revision and the upstreams now.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Follows changes of configuration, for ever: beside the listing, so that no upstream delays them, and no reading of them an
    /// upstream.
    pub async fn follow(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            self.reload().await;
            self.reloaded.notify_one();
            // However many listings end one after the other.
            tokio::time::sleep(RELOAD_GAP).await;
        }
    }

    /// Lists and listens, for ever: what one replica is enough for, since all read what it stores.
    pub async fn work(&self) {
        let listen = hearing::listen(&self.catalog, &self.pool, &self.heard);
        tokio::join!(listen, self.list(Schedules::new(self.every)));
    }

    /// Lists what is due, for ever. What takes long keeps nothing else waiting, and however many tell of changes, it is looked once per
    /// wait for what is due.
    async fn list(&self, mut schedules: Schedules) {
        let mut listings = FuturesUnordered::new();
        let (mut look_at, mut has_heard, mut is_full) = (Instant::now(), false, false);
        loop {
            let now = Instant::now();
            if look_at <= now {
                let room = LISTED_AT_ONCE_MAX.saturating_sub(listings.len());
                let due = self.due(&mut schedules, room);
                (has_heard, is_full) = (false, due.len() == room);
                // Where there is room, what is due now has begun.
                let next = schedules.next_due().filter(|_| !is_full);
                look_at = next.map_or(now + LOOK_EVERY, |next| next.min(now + LOOK_EVERY));
                listings.extend(due.into_iter().map(|due| self.refresh_one(due)));
            }
            tokio::select! {
                Some(listed) = listings.next() => {
                    if note(&mut schedules, listed) {
                        self.wake.notify_one();
                    }
                    look_at = look_at.min(Instant::now() + if is_full { Duration::ZERO } else { HEARD_WAIT });
                }
                () = tokio::time::sleep_until(look_at) => {}
                told = self.heard.next(), if !has_heard => {
                    let now = Instant::now();
                    schedules.hear(&told, now);
                    (look_at, has_heard) = (look_at.min(now + HEARD_WAIT), true);
                }
                () = self.reloaded.notified() => look_at = Instant::now(),
            }
        }
    }

    /// Lists every upstream once, whatever the schedule; for start-up scripts and tests that need the lists complete.
    pub async fn refresh_all(&self) {
        self.reload().await;
        let mut schedules = Schedules::new(self.every);
        let due = self.due(&mut schedules, usize::MAX);
        let listings = due.into_iter().map(|due| self.refresh_one(due));
        let mut listings = futures::stream::iter(listings).buffer_unordered(LISTED_AT_ONCE_MAX);
        while let Some(listed) = listings.next().await {
            note(&mut schedules, listed);
        }
        self.reload().await;
    }

    async fn reload(&self) {
        if let Err(error) = self.catalog.reload().await {
            tracing::error!(
                error = &error as &dyn Error,
                "the database cannot be read; what was read last stays in use"
            );
        }
        let snapshot = self.catalog.snapshot();
        self.pool.keep(snapshot.revision, |key| snapshot.uses(key));
    }

    /// Up to `room` upstreams whose time has come; they run from now on.
    fn due(&self, schedules: &mut Schedules, room: usize) -> Vec<Due> {
        let (snapshot, now) = (self.catalog.snapshot(), Instant::now());
        schedules.follow(&snapshot, now);
        schedules.begin(&snapshot, now, room)
    }

    async fn refresh_one(&self, due: Due) -> (Due, Result<bool, RefreshError>) {
        let result = tokio::select! {
            biased;
            () = due.superseded.cancelled() => Err(RefreshError::Superseded),
            result = self.refresh(&due.snapshot, &due.upstream) => result,
        };
        self.note_health(&due.upstream, result.as_ref().err()).await;
        (due, result)
    }

    /// Remembers how the upstream fared, for operators. Nothing depends on it.
    async fn note_health(&self, upstream: &Upstream, error: Option<&RefreshError>) {
        if matches!(error, Some(RefreshError::Superseded)) {
            return;
        }
        let rows = self.catalog.store().tenant(self.catalog.administration().scope(upstream.tenant));
        let error = error.map(with_causes);
        if let Err(error) = rows.note_health(upstream.id, error.as_deref()).await {
            tracing::debug!(upstream.id = %upstream.id, error = &error as &dyn Error, "how it fared is not remembered");
        }
    }

    /// Lists one upstream and stores what it says; `true` if anything changed.
    async fn refresh(&self, snapshot: &Snapshot, upstream: &Arc<Upstream>) -> Result<bool, RefreshError> {
        let scope = self.catalog.administration().scope(upstream.tenant);
        let rows = self.catalog.store().tenant(scope);
        let shelf = snapshot.shelf_in(scope).ok_or(RefreshError::Superseded)?;
        let stored = shelf.credentials(upstream.id);

        let using = self.pool.uses().begin(scope, &upstream.slug, Purpose::List);
        let shown = using.shown().clone();
        let proofs = Proofs { caller: None, rows: &rows, stored: &stored, shown: Some(&shown) };
        let link = self
            .pool
            .link(scope, upstream, (&proofs, Peer::default()), (shelf.tenant_slug(), shelf.egress_hosts()))
            .map_err(RefreshError::Upstream)?;
        let listing = Listing { rows: &rows, tenant: shelf.tenant_slug(), upstream };
        let changed = self.take_all(&link, &proofs, listing).await;
        if changed.is_ok() {
            using.went_well();
        }
        self.heard.note((upstream.tenant, upstream.id), link.tells_of_lists());
        changed
    }

    /// Takes over every list. One that is bad costs the others nothing; the first error is answered.
    async fn take_all(
        &self,
        link: &Arc<Link>,
        proofs: &Proofs<'_>,
        listing: Listing<'_>,
    ) -> Result<bool, RefreshError> {
        let (mut changed, mut first_error) = (false, None);
        let lists = [ListKind::Tools, ListKind::Prompts, ListKind::Resources, ListKind::Templates, ListKind::Skills];
        for list in lists {
            // Tools are the first: what the others are asked for with is agreed on by then.
            match self.take(link, proofs, listing, list).await {
                Ok(is_new) => changed |= is_new,
                Err(error) if error.is_of_one_list() => {
                    first_error.get_or_insert(error);
                }
                Err(error) => return Err(first_error.unwrap_or(error)),
            }
        }
        first_error.map_or(Ok(changed), Err)
    }

    async fn take(
        &self,
        link: &Arc<Link>,
        proofs: &Proofs<'_>,
        listing: Listing<'_>,
        list: ListKind,
    ) -> Result<bool, RefreshError> {
        let listed = all_of(link, proofs, list).await?;
        match list {
            ListKind::Tools => self.take_tools(listing, &listed).await,
            ListKind::Prompts => self.take_offers(listing, OfferKind::Prompt, &listed).await,
            ListKind::Resources => self.take_offers(listing, OfferKind::Resource, &listed).await,
            ListKind::Templates => self.take_offers(listing, OfferKind::Template, &listed).await,
            ListKind::Skills => self.take_offers(listing, OfferKind::Skill, &listed).await,
        }
    }

    async fn take_tools(
        &self,
        Listing { rows, tenant, upstream }: Listing<'_>,
        listed: &[Box<RawValue>],
    ) -> Result<bool, RefreshError> {
        let mut definitions = Vec::new();
        let mut locals = HashSet::new();
        for raw in listed {
            match Definition::parse(raw) {
                Ok(definition) if locals.insert(definition.local.clone()) => definitions.push(definition),
                Ok(definition) => {
                    tracing::warn!(upstream.id = %upstream.id, mcp.tool = %definition.local, "a tool is listed twice");
                }
                Err(error) => left_out(upstream, &error),
            }
        }
        let _naming = self.naming.lock().await;
        let tools = self.named(tenant, upstream, &rows.names_given().await?, definitions);
        changed(rows.replace_tools(upstream, &tools).await?)
    }

    async fn take_offers(
        &self,
        listing: Listing<'_>,
        kind: OfferKind,
        listed: &[Box<RawValue>],
    ) -> Result<bool, RefreshError> {
        let Listing { rows, upstream, .. } = listing;
        let mut keys = HashSet::new();
        let mut offers = Vec::new();
        for raw in listed {
            match item::parse(kind, raw) {
                Ok((_, key)) if keys.insert(key.clone()) => {
                    offers.push(NewOffer { key, exposed: None, definition: raw.clone() });
                }
                Ok((_, key)) => {
                    tracing::warn!(upstream.id = %upstream.id, %kind, key = plain(&key), "it is listed twice");
                }
                Err(error) => left_out(upstream, &error),
            }
        }
        let _naming = self.naming.lock().await;
        if kind == OfferKind::Prompt && !offers.is_empty() {
            offers = self.named_prompts(listing, offers).await?;
        }
        changed(rows.replace_offers(upstream, kind, &offers).await?)
    }

    /// Gives each prompt its exposed name: the one it has, or a new one that no other prompt of the tenant has or had.
    async fn named_prompts(
        &self,
        Listing { rows, tenant, upstream }: Listing<'_>,
        offers: Vec<NewOffer>,
    ) -> Result<Vec<NewOffer>, StoreError> {
        let known = rows.prompt_names().await?;
        let given: HashMap<&OfferKey, &ExposedName> =
            known.iter().filter(|name| name.upstream == upstream.id).map(|name| (&name.key, &name.exposed)).collect();
        let mut taken: HashSet<ExposedName> = known.iter().map(|name| name.exposed.clone()).collect();
        let origin = Origin { tenant, upstream: &upstream.slug, prefix: upstream.spec.prefix.as_ref() };
        let named = offers.into_iter().filter_map(|offer| {
            let exposed = match given.get(&offer.key) {
                Some(exposed) => (*exposed).clone(),
                None => expose(origin, &offer.key.as_str().parse().ok()?, &taken, self.name_chars_max)?,
            };
            taken.insert(exposed.clone());
            Some(NewOffer { exposed: Some(exposed), ..offer })
        });
        Ok(named.collect())
    }

    /// Gives each definition its exposed name: the one it has, or a new one that nothing else in the tenant has or had.
    fn named(
        &self,
        tenant: &TenantSlug,
        upstream: &Upstream,
        known: &[NameGiven],
        definitions: Vec<Definition>,
    ) -> Vec<NewTool> {
        let given: HashMap<&LocalName, &ExposedName> =
            known.iter().filter(|name| name.upstream == upstream.id).map(|name| (&name.local, &name.exposed)).collect();
        let mut taken: HashSet<ExposedName> = known.iter().map(|name| name.exposed.clone()).collect();
        let origin = Origin { tenant, upstream: &upstream.slug, prefix: upstream.spec.prefix.as_ref() };
        // Most listings have nothing new, and need none.
        let mut lookalikes = None;
        let tools = definitions.into_iter().filter_map(|definition| {
            let local = definition.local.clone();
            let (exposed, looks_like_another) = if let Some(exposed) = given.get(&local) {
                ((*exposed).clone(), false)
            } else {
                let exposed = expose(origin, &local, &taken, self.name_chars_max)?;
                let looks_like_another = lookalikes.get_or_insert_with(|| Lookalikes::of(known)).add(&local, &exposed);
                (exposed, looks_like_another)
            };
            taken.insert(exposed.clone());
            Some(NewTool { local, exposed, definition: definition.raw().to_owned(), looks_like_another })
        });
        tools.collect()
    }
}

/// Takes over what one listing brought; `true` if anything changed.
fn note(schedules: &mut Schedules, (listed, result): (Due, Result<bool, RefreshError>)) -> bool {
    schedules.end(&listed, result.is_ok(), Instant::now());
    result.unwrap_or_else(|error| {
        if !matches!(error, RefreshError::Superseded) {
            let Upstream { tenant, id, .. } = &*listed.upstream;
            tracing::warn!(
                tenant.id = %tenant, upstream.id = %id, error = &error as &dyn Error,
                "an upstream's lists could not be taken; what is known of it stays listed"
            );
        }
        false
    })
}

/// An error and what it comes from, on one line.
fn with_causes(error: &RefreshError) -> String {
    let causes = successors(error.source(), |cause: &&dyn Error| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Whether a list brought something new. One that does not count says nothing about what is configured now.
fn changed(replaced: Replaced) -> Result<bool, RefreshError> {
    match replaced {
        Replaced::Unchanged => Ok(false),
        Replaced::Changed => Ok(true),
        Replaced::Stale => Err(RefreshError::Superseded),
    }
}

fn left_out(upstream: &Upstream, error: &DefinitionError) {
    tracing::warn!(upstream.id = %upstream.id, error = error as &dyn Error, "a definition that the upstream lists is left out");
}

/// A key without what may be a secret: the query of a signed URL, or a fragment.
fn plain(key: &OfferKey) -> &str {
    key.as_str().split(['?', '#']).next().unwrap_or_default()
}

async fn all_of(link: &Arc<Link>, proofs: &Proofs<'_>, kind: ListKind) -> Result<Vec<Box<RawValue>>, RefreshError> {
    let listed = list(link, proofs, kind).await.map_err(RefreshError::Upstream)?;
    if listed.truncated {
        let upstream = link.upstream().id;
        tracing::warn!(upstream.id = %upstream, list = ?kind, "the upstream lists more than is taken; the rest is left out");
    }
    Ok(listed.items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_logged_of_a_uri_opens_nothing() {
        for (key, logged) in [
            ("https://a.example/x?signature=s", "https://a.example/x"),
            ("https://a.example/x#token=s", "https://a.example/x"),
            ("brief", "brief"),
        ] {
            assert_eq!(plain(&key.parse().unwrap()), logged);
        }
    }
}
