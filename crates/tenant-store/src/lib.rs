//! Everything that is remembered, one tenant at a time; the only crate that knows SQL.
//!
//! [`Store`] is the platform's view. It hands out a [`TenantStore`] for a [`TenantScope`], and only through that are one
//! tenant's rows read or written: a row of another tenant and no row are the same answer. Secrets lie sealed in the
//! database, bound to the tenant, the upstream, its address, owner, name, kind and version, under a data key of their tenant, which
//! is itself wrapped under a key that never lies there.

mod access_tests;
mod api_keys;
mod audit;
mod bulk;
mod choice;
mod clock;
mod credentials;
mod data_keys;
mod directory;
mod egress_hosts;
mod entity;
mod error;
mod grants;
mod health;
mod id;
mod kek;
mod managed;
mod migration;
mod name;
mod offers;
mod platform_keys;
mod protocol;
mod quota_use;
mod recording;
mod replicas;
mod revision;
mod revocations;
mod scope;
mod shred;
mod spec;
mod store;
mod tenants;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tools;
mod upstream_auth;
mod upstreams;
mod usage;

pub use access_tests::{AccessTest, AccessTestSpec};
pub use api_keys::{ApiKey, ApiKeyDigest, NewApiKey};
pub use audit::{AUDIT_PAGE_ROWS, AuditChain, AuditCheckpoint, AuditPart, AuditPruned, AuditRow};
pub use bulk::TenantRows;
pub use choice::{
    AuditContent, ChoiceError, CredentialKind, DataKeyState, DirectoryState, FlowPolicy, Level, ManagedKind, OfferKind,
    OnArguments, OnNewTool, OnToolChange, TenantState, ToolClass,
};
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use credentials::{Account, AccountHeld, CredentialOwner, CredentialSlot, SECRET_BYTES_MAX, SealedCredential};
pub use data_keys::{DataKey, KekUse, Progress, Stuck};
pub use directory::{
    DIRECTORY_GROUPS_MAX, DIRECTORY_MEMBERS_MAX, DIRECTORY_NAMED_MAX, DIRECTORY_USERS_MAX, Directory, DirectoryAct,
    DirectoryChange, DirectoryChanges, DirectoryFilter, DirectoryGroup, DirectoryThing, DirectoryUser, Edit,
    GroupChange, Leavers, ListedGroup, MemberEdit, Moved, NewDirectoryGroup, NewDirectoryUser, Page, Pulled, Slice,
    UserChange,
};
pub use egress_hosts::EgressHosts;
pub use error::{PostgresUrlError, StoreError};
pub use grants::{Grant, GrantSpec};
pub use health::{UpstreamFailure, UpstreamHealth};
pub use id::{
    ApiKeyId, AuditWriterId, DirectoryGroupId, DirectoryUserId, GrantId, IdError, ReplicaId, TenantId, UpstreamId,
};
pub use kek::{Asking, KekError, KeyEncryption, KeyPlace, LocalKeys};
pub use managed::Managed;
pub use name::{
    AccessTestName, ApiKeyName, AwsAccessKeyId, AwsName, DirectoryText, ExposedName, GrantName, Group, HeaderText,
    HostPattern, IssuerName, KekId, LocalName, ManagerName, NameError, OAuthAudience, OAuthClientId, OAuthIssuer,
    OAuthKeyId, OAuthResource, OAuthScope, OAuthTokenUrl, OfferKey, QueryParameter, SecretName, Subject, TenantSlug,
    ToolPattern, ToolPrefix, UpstreamSlug, UserName, is_visible, percent_decodings,
};
pub use offers::{NewOffer, Offer, PromptName};
pub use protocol::UpstreamProtocol;
pub use quota_use::QuotaUse;
pub use recording::SealedRecordingKey;
pub use replicas::{Beat, REPLICA_SILENCE_MAX, Replica};
pub use revision::Revision;
pub use revocations::{Revocation, Revoked};
pub use scope::{TenantScope, TenantStore};
pub use shred::ErasureCertificate;
pub use spec::{SpecError, SpecField};
pub use store::{Change, Follower, Lead, Put, Raised, Still, Store};
pub use tenants::{Tenant, TenantSpec};
pub use tools::{Digest, DigestError, NameGiven, NewTool, Pin, Replaced, Tool, Waiting};
pub use upstream_auth::{
    AccountAuth, AccountClient, AccountListing, AuthorizationServer, ClientProof, Listing, RequestedType, SecretForm,
    TokenExchange, TokenRequest, UpstreamAuth,
};
pub use upstreams::{Upstream, UpstreamSpec};
pub use usage::{Month, MonthError, Used};
