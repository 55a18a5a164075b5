//! How often anybody may call.

use std::collections::BTreeMap;

use serde::Deserialize;
use tenant_store::TenantSlug;

/// How often calls may be made. What is said of a minute each replica counts for itself: divide by their number. What is said of days and
/// months they count together.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Calls in a minute of one principal; 0 for any number.
    pub principal_calls_per_minute: u32,
    /// Calls in a minute in one tenant, of all who call there; 0 for any number.
    pub tenant_calls_per_minute: u32,
    /// Calls in a minute of one principal of one tool; 0 for any number.
    pub tool_calls_per_minute: u32,
    /// Calls that run in one tenant at once, at all its upstreams together; 0 for any number.
    pub tenant_calls_at_once: usize,
    /// MiB of requests and answers of one upstream that are held at once; 0 for any number.
    pub upstream_mib_in_flight: u32,
    /// The same of all upstreams of one tenant together.
    pub tenant_mib_in_flight: u32,
    /// Tokens in a minute that nobody issued, of one address (of IPv6, one network of 64 bits); 0 for any number.
    pub address_failures_per_minute: u32,
    /// Calls in a day, in UTC, in one tenant, of all who call there; 0 for any number.
    pub tenant_calls_per_day: u32,
    /// The same in a month of the calendar.
    pub tenant_calls_per_month: u32,
    /// Calls in a day of one principal in one tenant; 0 for any number.
    pub principal_calls_per_day: u32,
    /// The same in a month.
    pub principal_calls_per_month: u32,
    /// Calls in a day of one principal of one tool; 0 for any number.
    pub tool_calls_per_day: u32,
    /// The same in a month.
    pub tool_calls_per_month: u32,
    /// What holds in place of that in some tenants.
    pub tenants: BTreeMap<TenantSlug, TenantLimitsConfig>,
}

/// How much is held at once of an upstream, and of a tenant, unless something else is said: eight, and sixteen, of the largest answers.
const UPSTREAM_MIB_IN_FLIGHT: u32 = 128;
const TENANT_MIB_IN_FLIGHT: u32 = 256;
const MIB: u64 = 1024 * 1024;

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            principal_calls_per_minute: 0,
            tenant_calls_per_minute: 0,
            tool_calls_per_minute: 0,
            tenant_calls_at_once: 0,
            upstream_mib_in_flight: UPSTREAM_MIB_IN_FLIGHT,
            tenant_mib_in_flight: TENANT_MIB_IN_FLIGHT,
            address_failures_per_minute: 0,
            tenant_calls_per_day: 0,
            tenant_calls_per_month: 0,
            principal_calls_per_day: 0,
            principal_calls_per_month: 0,
            tool_calls_per_day: 0,
            tool_calls_per_month: 0,
            tenants: BTreeMap::new(),
        }
    }
}

impl LimitsConfig {
    /// How many bytes are held at once of an upstream, and of a tenant; none for any number.
    pub(crate) fn bytes_in_flight(&self) -> (Option<u64>, Option<u64>) {
        let bytes = |mib: u32| (mib > 0).then(|| u64::from(mib) * MIB);
        (bytes(self.upstream_mib_in_flight), bytes(self.tenant_mib_in_flight))
    }
}

/// Quotas of one tenant. What is left out is as everywhere.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantLimitsConfig {
    /// Calls in a day, of all who call there; 0 for any number.
    pub tenant_calls_per_day: Option<u32>,
    /// The same in a month.
    pub tenant_calls_per_month: Option<u32>,
    /// Calls in a day of one principal; 0 for any number.
    pub principal_calls_per_day: Option<u32>,
    /// The same in a month.
    pub principal_calls_per_month: Option<u32>,
    /// Calls in a day of one principal of one tool; 0 for any number.
    pub tool_calls_per_day: Option<u32>,
    /// The same in a month.
    pub tool_calls_per_month: Option<u32>,
}
