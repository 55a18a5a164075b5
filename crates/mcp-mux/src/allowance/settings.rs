//! How much may be used, as it is configured: everywhere, and in tenants of which something else is said.

use std::collections::HashMap;

use tenant_store::TenantSlug;

use crate::config::{LimitsConfig, TenantLimitsConfig};
use crate::limits::Counter;

/// Calls in a day and in a month; any number, where that is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) day: u32,
    pub(super) month: u32,
}

/// What is allowed of each kind, in one tenant.
#[derive(Debug, Clone, Copy)]
struct OfTenant {
    tenant: Allowed,
    principal: Allowed,
    tool: Allowed,
}

#[derive(Debug)]
pub(super) struct Settings {
    everywhere: OfTenant,
    tenants: HashMap<TenantSlug, OfTenant>,
}

impl Settings {
    /// None, if nothing is to be counted.
    pub(super) fn new(config: &LimitsConfig) -> Option<Self> {
        let everywhere = OfTenant {
            tenant: Allowed { day: config.tenant_calls_per_day, month: config.tenant_calls_per_month },
            principal: Allowed { day: config.principal_calls_per_day, month: config.principal_calls_per_month },
            tool: Allowed { day: config.tool_calls_per_day, month: config.tool_calls_per_month },
        };
        let of_tenant = |(slug, said): (&TenantSlug, &TenantLimitsConfig)| (slug.clone(), everywhere.with(said));
        let tenants: HashMap<_, _> = config.tenants.iter().map(of_tenant).collect();
        let is_limited = tenants.values().chain([&everywhere]).any(OfTenant::is_limited);
        is_limited.then_some(Self { everywhere, tenants })
    }

    /// How much may be used there; none, if that is any number.
    pub(super) fn allowed(&self, tenant: &TenantSlug, counter: Counter) -> Option<Allowed> {
        let of_tenant = self.tenants.get(tenant).unwrap_or(&self.everywhere);
        let allowed = match counter {
            Counter::Tenant => of_tenant.tenant,
            Counter::Principal => of_tenant.principal,
            Counter::Tool => of_tenant.tool,
        };
        (allowed != Allowed::default()).then_some(allowed)
    }
}

impl OfTenant {
    fn with(self, said: &TenantLimitsConfig) -> Self {
        let or = |day: Option<u32>, month: Option<u32>, other: Allowed| Allowed {
            day: day.unwrap_or(other.day),
            month: month.unwrap_or(other.month),
        };
        Self {
            tenant: or(said.tenant_calls_per_day, said.tenant_calls_per_month, self.tenant),
            principal: or(said.principal_calls_per_day, said.principal_calls_per_month, self.principal),
            tool: or(said.tool_calls_per_day, said.tool_calls_per_month, self.tool),
        }
    }

    fn is_limited(&self) -> bool {
        [self.tenant, self.principal, self.tool].iter().any(|allowed| *allowed != Allowed::default())
    }
}
