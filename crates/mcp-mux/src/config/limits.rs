//! How often anybody may call.

use serde::Deserialize;

/// How often calls may be made. Each replica counts for itself: divide by their number.
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
}
