//! What a call is about.

use tenant_store::{TenantId, UpstreamId};

use super::Endpoint;
use super::wish::Thing;

/// What a call is about, and where it leads. The same name may lead elsewhere later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matter {
    pub(super) endpoint: Endpoint,
    pub(super) thing: Thing,
    pub(super) target: (TenantId, UpstreamId),
}

impl Matter {
    /// At which endpoint it is used.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    #[cfg(test)]
    pub(crate) fn of_test() -> Self {
        let now = tenant_store::Timestamp::from_millis(1);
        let target = (TenantId::new(now), UpstreamId::new(now));
        Self { endpoint: Endpoint::Aggregate, thing: Thing::Tool("t".to_owned()), target }
    }
}
