//! The tables as sea-orm sees them. Columns hold the types that their text must parse to, so a row that was altered from outside
//! is noticed when it is read. Numbers are signed 64-bit and lists are JSON in text columns, because every database has those.

pub(crate) mod access_test;
pub(crate) mod api_key;
pub(crate) mod audit_checkpoint;
pub(crate) mod audit_event;
pub(crate) mod audit_key;
pub(crate) mod audit_pruned;
pub(crate) mod credential;
pub(crate) mod directory_group;
pub(crate) mod directory_member;
pub(crate) mod directory_user;
pub(crate) mod erasure;
pub(crate) mod managed;
pub(crate) mod offer;
pub(crate) mod platform_key;
pub(crate) mod quota_use;
pub(crate) mod recording_key;
pub(crate) mod replica;
pub(crate) mod revision;
pub(crate) mod revocation;
pub(crate) mod tenant;
pub(crate) mod tenant_grant;
pub(crate) mod tenant_key;
pub(crate) mod tool;
pub(crate) mod upstream;
pub(crate) mod upstream_health;
pub(crate) mod usage_day;
