//! Everything that is remembered, one tenant at a time; the only crate that knows SQL.
//!
//! [`Store`] is the platform's view. It hands out a [`TenantStore`] for a [`TenantScope`], and only through that are one
//! tenant's rows read or written: a row of another tenant and no row are the same answer. Secrets lie sealed in the
//! database, bound to the tenant, the upstream, its address, the name and the version they were stored for.

mod api_keys;
mod choice;
mod clock;
mod credentials;
mod entity;
mod error;
mod grants;
mod id;
mod keys;
mod migration;
mod name;
mod revision;
mod scope;
mod spec;
mod store;
mod tenants;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tools;
mod upstreams;

pub use api_keys::{ApiKey, ApiKeyDigest, NewApiKey};
pub use choice::{ChoiceError, Level, OnToolChange, TenantState, ToolClass};
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use credentials::SealedCredential;
pub use error::StoreError;
pub use grants::{Grant, GrantSpec};
pub use id::{ApiKeyId, GrantId, IdError, TenantId, UpstreamId};
pub use name::{
    ApiKeyName, ExposedName, GrantName, Group, HeaderText, IssuerName, LocalName, NameError, SecretName, Subject,
    TenantSlug, ToolPattern, ToolPrefix, UpstreamSlug,
};
pub use revision::Revision;
pub use scope::{TenantScope, TenantStore};
pub use spec::{SpecError, SpecField, check_display_name};
pub use store::{Change, Put, Still, Store};
pub use tenants::Tenant;
pub use tools::{Digest, NameGiven, NewTool, Replaced, Tool};
pub use upstreams::{Upstream, UpstreamAuth, UpstreamSpec};
