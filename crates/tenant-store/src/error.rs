//! What can go wrong with the store. Each message says what failed and, where somebody can mend it, how.

use std::path::PathBuf;

use crypto::{KeyError, KeyId, OpenError, SealError};
use sea_orm::{DbErr, SqlxError};

use crate::choice::OfferKind;
use crate::id::{TenantId, UpstreamId};
use crate::kek::KekError;
use crate::name::{ExposedName, KekId, LocalName, OfferKey, SecretName, TenantSlug};
use crate::spec::SpecError;
use crate::store::row::BoxError;
use crate::tools::Pin;

/// What went wrong. The cause, where there is one, is the `source`.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL names a kind of database that is not built in.
    #[error("the database URL must begin with `sqlite:` or `postgres:`, the kinds of databases that are built in")]
    UnknownDatabase,
    /// The URL has a part that is not understood.
    #[error("the database URL does not parse: it should look like `sqlite://path/to/file?mode=rwc`")]
    Url(#[source] SqlxError),
    /// The database does not open.
    #[error("cannot open the database {}: does it exist? `?mode=rwc` at the end of the URL creates it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: SqlxError,
    },
    /// The URL of a PostgreSQL database says something that is not understood or should not be said there.
    #[error("the database URL cannot be used")]
    PostgresUrl(#[source] PostgresUrlError),
    /// The PostgreSQL server does not let us in.
    #[error(
        "cannot connect to PostgreSQL at {host}: does it run there, do role and database exist, and does its certificate name it?"
    )]
    Connect {
        /// Where.
        host: String,
        /// Why not.
        source: SqlxError,
    },
    /// The role that serves could read what row-level security hides.
    #[error(
        "the database role `{name}` owns the tables or bypasses row-level security: connect as a plain role of its own, and give \
         `mcp-mux migrate` the owner's URL as `database.owner_url`"
    )]
    MightyRole {
        /// Its name.
        name: String,
    },
    /// It cannot be listened to changes.
    #[error("cannot listen to changes of the database")]
    Listen(#[source] SqlxError),
    /// The role that serves cannot be let in.
    #[error("cannot give the role that serves its rights: does it exist?")]
    Admit(#[source] DbErr),
    /// A statement that reads failed.
    #[error("cannot read the table `{table}`")]
    Read {
        /// Which table.
        table: &'static str,
        /// Why not.
        source: DbErr,
    },
    /// A statement that writes failed.
    #[error("cannot write the table `{table}`")]
    Write {
        /// Which table.
        table: &'static str,
        /// Why not.
        source: DbErr,
    },
    /// A transaction did not begin or end.
    #[error("cannot begin or end a transaction")]
    Transaction(#[source] DbErr),
    /// The database is older than this release.
    #[error("the database lacks {}: run `mcp-mux migrate`", .0.join(", "))]
    Unmigrated(Vec<String>),
    /// A migration failed; none was applied.
    #[error("cannot migrate the database; it was left as it was")]
    Migration(#[source] DbErr),
    /// Another change was open all the time that this one waited.
    #[error("another change of the database did not end in time: try again")]
    Busy,
    /// A [`Change`](crate::Change) was committed or dropped before.
    #[error("the change that this was to be a part of is over")]
    ChangeOver,
    /// Something was to be written through what only reads.
    #[error("this is a view of the database that only reads")]
    ReadOnly,
    /// A part of a [`Change`](crate::Change) was given up while it began or ended.
    #[error("a part of this change was given up halfway, so none of it is kept: begin the change again")]
    ChangeBroken,
    /// There is no such thing in this tenant; maybe it is another tenant's.
    #[error("there is no {what} `{name}`")]
    NotFound {
        /// What kind of thing.
        what: &'static str,
        /// Which.
        name: String,
    },
    /// A row was altered from outside and no longer parses.
    #[error("the table `{table}` has a row that does not parse ({row}): mend it or delete it")]
    Corrupt {
        /// Which table.
        table: &'static str,
        /// The row's primary key.
        row: String,
        /// Why not.
        source: BoxError,
    },
    /// A specification breaks a rule.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The exposed name belongs to another tool already.
    #[error("the exposed name `{0}` belongs to another tool of the tenant")]
    NameTaken(ExposedName),
    /// A list has a tool twice.
    #[error("the tool `{0}` is in the list twice")]
    ToolTwice(LocalName),
    /// A definition is not the one that was reviewed.
    #[error("the tool `{tool}` is not what was reviewed: what it lists now has the digest {pin}, so review it again")]
    OtherDefinition {
        /// Which.
        tool: LocalName,
        /// The pin of what it lists now.
        pin: Pin,
    },
    /// A tool that does not wait for anybody's word.
    #[error(
        "the tool `{0}` is approved, so there is nothing to reject: `mcp-mux revoke tool` takes it away from everybody"
    )]
    NotWaiting(LocalName),
    /// A list is too long.
    #[error("a list of {count} tools is longer than the {count_max} that an upstream may have")]
    TooManyTools {
        /// How many there are.
        count: usize,
        /// How many there may be.
        count_max: usize,
    },
    /// A list has an offer twice.
    #[error("the {kind} `{key}` is in the list twice")]
    OfferTwice {
        /// What it is.
        kind: OfferKind,
        /// Which.
        key: OfferKey,
    },
    /// A list is too long.
    #[error("a list of {count} {kind}s is longer than the {count_max} that an upstream may have")]
    TooManyOffers {
        /// Of what.
        kind: OfferKind,
        /// How many there are.
        count: usize,
        /// How many there may be.
        count_max: usize,
    },
    /// Somebody else in the directory has it.
    #[error("another user of the directory has this {what}")]
    DirectoryTaken {
        /// What of it.
        what: &'static str,
    },
    /// A directory is full.
    #[error("the directory has {count_max} {what} already, which is the most")]
    DirectoryFull {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        count_max: u64,
    },
    /// A whole list of a directory's users would take too many of them away to be believed.
    #[error(
        "{away} of the {active} users of the directory would be let in no more, which is not believed at once: if it is right, \
         `mcp-mux directory pull ISSUER --accept` takes it over"
    )]
    DirectoryShrinks {
        /// How many would be let in no more.
        away: usize,
        /// How many are let in now.
        active: usize,
    },
    /// A secret is empty or too long.
    #[error("a secret must be 1 to {bytes_max} bytes long")]
    SecretLength {
        /// How long it may be.
        bytes_max: usize,
    },
    /// A data key has sealed as often as it may.
    #[error("the data key of tenant {tenant} has sealed as often as is safe: run `mcp-mux keys rotate --tenant`")]
    KeyWornOut {
        /// Whose.
        tenant: TenantId,
    },
    /// The upstream is at another address than the one that a secret was meant for.
    #[error("the upstream's address has changed meanwhile: look at where it is now, and store the secret again")]
    Moved,
    /// A secret could not be sealed.
    #[error("cannot seal the secret `{name}`")]
    Seal {
        /// Which secret.
        name: SecretName,
        /// Why not.
        source: SealError,
    },
    /// A sealed secret does not open: the row was altered or moved, or its key is missing.
    #[error("the secret `{name}` of upstream `{upstream}` does not open: set it again")]
    Unopened {
        /// Whose.
        upstream: UpstreamId,
        /// Which secret.
        name: SecretName,
        /// Why not.
        source: OpenError,
    },
    /// The database needs a key-encryption key that is not configured.
    #[error(
        "the database needs the key-encryption key {needed}, which is not among the configured ones ({configured}): add it to \
         them, as primary or as retired key, or use the database that belongs to them"
    )]
    KekMissing {
        /// The key that is needed.
        needed: KekId,
        /// The keys that are there.
        configured: String,
    },
    /// The canary does not open: the key-encryption key is another one than it says, or the row was altered.
    #[error(
        "the platform's own key does not open under {kek}: this is another key of that name, or the table `platform_key` was \
         altered; restore it from a backup"
    )]
    KekWrong {
        /// The key-encryption key.
        kek: KekId,
        /// Why not.
        source: KekError,
    },
    /// The key provider cannot be asked.
    #[error("the key-encryption key cannot be used now")]
    KekUnavailable(#[source] KekError),
    /// The platform has no key of its own, though one was just made.
    #[error("the table `platform_key` was altered; restore it from a backup")]
    PlatformKey,
    /// The key that signs the audit record does not open.
    #[error(
        "the key that signs the audit record does not open: the table `audit_key` was altered; restore it from a backup"
    )]
    AuditKey(#[source] OpenError),
    /// The key that signs the audit record is not there any more.
    #[error(
        "the key that signs the audit record has signed and is gone: restore the table `audit_key` from a backup. Without one, \
         `mcp-mux audit key --new` makes another, and what was signed before cannot be checked by the database any more"
    )]
    AuditKeyGone,
    /// The key that signs the audit record could not be sealed.
    #[error("cannot seal the key that signs the audit record")]
    AuditKeySeal(#[source] SealError),
    /// The key that recorded arguments and results are sealed with does not open.
    #[error(
        "the key of the tenant's recorded arguments and results does not open: the table `recording_key` was altered; restore it from a backup"
    )]
    RecordingKey(#[source] OpenError),
    /// The key that recorded arguments and results are sealed with could not be sealed.
    #[error("cannot seal the key of the tenant's recorded arguments and results")]
    RecordingKeySeal(#[source] SealError),
    /// The system has no randomness to give.
    #[error("no new key can be made")]
    KeyMade(#[source] KeyError),
    /// A new data key could not be wrapped.
    #[error("the new data key of tenant {tenant} cannot be wrapped")]
    KeyWrap {
        /// Whose.
        tenant: TenantId,
        /// Why not.
        source: KekError,
    },
    /// A data key could not be wrapped anew; what was wrapped before stays as it is.
    #[error("the data key {key} cannot be wrapped anew")]
    Rewrap {
        /// Which.
        key: KeyId,
        /// Why not.
        source: KekError,
    },
    /// A tenant's data key cannot be had.
    #[error("the secrets of tenant {tenant} cannot be opened now")]
    DataKey {
        /// Whose.
        tenant: TenantId,
        /// Why not.
        source: KekError,
    },
    /// The tenant's keys were destroyed.
    #[error("tenant `{tenant}` was shredded: its keys are destroyed and its name is not given away again")]
    Shredded {
        /// Which.
        tenant: TenantSlug,
    },
}

/// What is wrong with the URL of a PostgreSQL database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PostgresUrlError {
    /// It does not parse.
    #[error("it does not parse: it should look like `postgres://role:password@host:5432/database`")]
    Unreadable,
    /// It has another parameter than these.
    #[error("its parameters may be `sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `host` and `application_name`")]
    Parameter,
    /// A variable of the environment would change what is asked for.
    #[error("the environment has PGOPTIONS, which would count besides: take it out")]
    Environment,
    /// It asks for a connection of which nobody knows where it leads.
    #[error(
        "its `sslmode` may be `verify-full`, as it is without one, or `disable`, which sends everything in the clear"
    )]
    SslMode,
}

impl StoreError {
    pub(crate) fn read(table: &'static str) -> impl FnOnce(DbErr) -> Self {
        move |source| Self::Read { table, source }
    }

    pub(crate) fn write(table: &'static str) -> impl FnOnce(DbErr) -> Self {
        move |source| Self::Write { table, source }
    }
}
