//! How often anybody may call.

use std::collections::BTreeMap;

use serde::Deserialize;
use tenant_store::TenantSlug;

/// How often calls may be made. What is said of a minute each replica counts for itself: divide by their number. What is said of days and
/// months they count together.
#[derive(Debug, Clone, Default, Deserialize)]
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
