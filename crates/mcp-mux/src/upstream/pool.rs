//! The links to all upstreams, found by tenant and upstream together.

use std::sync::Arc;

use moka::sync::Cache;
use tenant_store::{EgressHosts, SealedCredential, TenantId, TenantScope, Upstream, UpstreamId};

use super::error::UpstreamError;
use super::link::Link;
use crate::egress::Egress;
use crate::lifecycle::Tasks;

/// Most links held at once; the least used are made again when needed.
const LINKS_MAX: u64 = 10_000;

/// The links to all upstreams.
#[derive(Debug, Clone)]
pub struct Pool {
    links: Cache<(TenantId, UpstreamId), Arc<Link>>,
    egress: Egress,
    tasks: Tasks,
}

impl Pool {
    /// An empty pool whose connections `egress` guards and whose background work runs on `tasks`.
    pub fn new(egress: Egress, tasks: Tasks) -> Self {
        Self { links: Cache::new(LINKS_MAX), egress, tasks }
    }

    /// The link to `upstream`, which must belong to the tenant of `scope` and be at one of `hosts`. One that no longer fits what is
    /// configured is replaced, together with its connections and session.
    pub fn link(
        &self,
        scope: TenantScope,
        upstream: &Arc<Upstream>,
        stored: &[&SealedCredential],
        hosts: Option<&EgressHosts>,
    ) -> Result<Arc<Link>, UpstreamError> {
        assert_eq!(scope.tenant(), upstream.tenant, "an upstream is linked within its own tenant only");
        let versions: Vec<u32> = stored.iter().map(|sealed| sealed.version()).collect();
        let key = (upstream.tenant, upstream.id);
        if let Some(link) = self.links.get(&key).filter(|link| link.fits(upstream, &versions, hosts)) {
            return Ok(link);
        }
        let http = self.egress.upstream(&upstream.spec.url, hosts.cloned()).map_err(|_| UpstreamError::Setup)?;
        let link = Arc::new(Link::new(Arc::clone(upstream), versions, http, self.tasks.clone()));
        self.links.insert(key, Arc::clone(&link));
        Ok(link)
    }
}
