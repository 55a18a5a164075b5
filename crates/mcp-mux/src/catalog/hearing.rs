//! Listening to upstreams that tell when their lists change.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tenant_store::{EgressHosts, SealedCredential, TenantId, Upstream, UpstreamId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::snapshot::{Catalog, Snapshot};
use crate::upstream::{Peer, Pool, Proofs, UpstreamError, hear};

/// How often it is looked for upstreams that are not listened to.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The wait before a stream that ended is begun anew.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How many upstreams are listened to at once; the others are listed at their regular times.
const HEARD_MAX: usize = 1_000;

pub(super) type Key = (TenantId, UpstreamId);

/// Which upstreams said that their lists changed.
#[derive(Debug, Default)]
pub(super) struct Heard {
    changed: Mutex<HashSet<Key>>,
    told: Notify,
}

/// One upstream as it is listened to: at an address, with credentials, to hosts.
#[derive(Clone, PartialEq)]
struct Source {
    upstream: Arc<Upstream>,
    stored: Vec<SealedCredential>,
    hosts: Option<EgressHosts>,
}

impl Heard {
    fn tell(&self, key: Key) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        self.told.notify_one();
    }

    /// Those who said so since the last time; waits until there is one.
    pub(super) async fn next(&self) -> HashSet<Key> {
        self.told.notified().await;
        mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Listens to whoever can be listened to, for ever.
pub(super) async fn listen(catalog: &Catalog, pool: &Pool, heard: &Heard) {
    let mut running: HashMap<Key, (Source, CancellationToken)> = HashMap::new();
    let mut streams = FuturesUnordered::new();
    let mut snapshot = catalog.snapshot();
    let mut sources = sources_of(&snapshot);
    loop {
        let current = catalog.snapshot();
        if !Arc::ptr_eq(&current, &snapshot) {
            sources = sources_of(&current);
            snapshot = current;
        }
        running.retain(|key, (source, ended)| {
            let stays = sources.get(key) == Some(source);
            if !stays {
                ended.cancel();
            }
            stays
        });
        for (key, source) in &sources {
            if running.len() < HEARD_MAX && !running.contains_key(key) && tells(catalog, pool, source) {
                let ended = CancellationToken::new();
                running.insert(*key, (source.clone(), ended.clone()));
                streams.push(stream(catalog, pool, heard, (*key, source.clone(), ended)));
            }
        }
        tokio::select! {
            Some((key, ended)) = streams.next() => {
                // Under the same key another one may run by now.
                if !CancellationToken::is_cancelled(&ended) {
                    running.remove(&key);
                }
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn sources_of(snapshot: &Snapshot) -> HashMap<Key, Source> {
    let mut sources = HashMap::new();
    for (tenant, shelf) in snapshot.shelves() {
        for upstream in shelf.upstreams().filter(|upstream| upstream.spec.enabled) {
            let stored = shelf.credentials(upstream.id).into_iter().cloned().collect();
            let source = Source { upstream: Arc::clone(upstream), stored, hosts: shelf.egress_hosts().cloned() };
            sources.insert((tenant, upstream.id), source);
        }
    }
    sources
}

/// Whether it can be listened to, without asking it.
fn tells(catalog: &Catalog, pool: &Pool, source: &Source) -> bool {
    let scope = catalog.administration().scope(source.upstream.tenant);
    let (rows, stored) = (catalog.store().tenant(scope), source.stored.iter().collect::<Vec<_>>());
    let proofs = Proofs { caller: None, rows: &rows, stored: &stored };
    let link = pool.link(scope, &source.upstream, (&proofs, Peer::default()), source.hosts.as_ref());
    link.is_ok_and(|link| link.tells_of_lists())
}

async fn stream(
    catalog: &Catalog,
    pool: &Pool,
    heard: &Heard,
    (key, source, ended): (Key, Source, CancellationToken),
) -> (Key, CancellationToken) {
    let listening = async {
        let result = once(catalog, pool, heard, (key, &source)).await;
        if let Err(error) = result {
            let upstream = source.upstream.id;
            tracing::info!(upstream.id = %upstream, error = &error as &dyn Error, "an upstream cannot be listened to");
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    };
    tokio::select! {
        () = ended.cancelled() => {}
        () = listening => {}
    }
    (key, ended)
}

async fn once(
    catalog: &Catalog,
    pool: &Pool,
    heard: &Heard,
    (key, source): (Key, &Source),
) -> Result<(), UpstreamError> {
    let scope = catalog.administration().scope(source.upstream.tenant);
    let (rows, stored) = (catalog.store().tenant(scope), source.stored.iter().collect::<Vec<_>>());
    let proofs = Proofs { caller: None, rows: &rows, stored: &stored };
    let link = pool.link(scope, &source.upstream, (&proofs, Peer::default()), source.hosts.as_ref())?;
    hear(&link, &proofs, || heard.tell(key)).await
}
