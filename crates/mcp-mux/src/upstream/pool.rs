//! The links to all upstreams, found by tenant and upstream together.

use std::sync::Arc;

use moka::sync::Cache;
use tenant_store::{SealedCredential, TenantId, TenantScope, Upstream, UpstreamId};

use super::error::UpstreamError;
use super::link::Link;
use crate::lifecycle::Tasks;

/// Most links held at once; the least used are made again when needed.
const LINKS_MAX: u64 = 10_000;

/// The links to all upstreams.
#[derive(Debug, Clone)]
pub struct Pool {
    links: Cache<(TenantId, UpstreamId), Arc<Link>>,
    tasks: Tasks,
}

impl Pool {
    /// An empty pool whose background work runs on `tasks`.
    pub fn new(tasks: Tasks) -> Self {
        Self { links: Cache::new(LINKS_MAX), tasks }
    }

    /// The link to `upstream`, which must belong to the tenant of `scope`. One that no longer fits what is configured is
    /// replaced, together with its connections and session.
    pub fn link(
        &self,
        scope: TenantScope,
        upstream: &Arc<Upstream>,
        stored: &[&SealedCredential],
    ) -> Result<Arc<Link>, UpstreamError> {
        assert_eq!(scope.tenant(), upstream.tenant, "an upstream is linked within its own tenant only");
        let versions: Vec<u32> = stored.iter().map(|sealed| sealed.version()).collect();
        let key = (upstream.tenant, upstream.id);
        if let Some(link) = self.links.get(&key).filter(|link| link.fits(upstream, &versions)) {
            return Ok(link);
        }
        let link = Arc::new(Link::new(Arc::clone(upstream), versions, self.tasks.clone())?);
        self.links.insert(key, Arc::clone(&link));
        Ok(link)
    }
}
