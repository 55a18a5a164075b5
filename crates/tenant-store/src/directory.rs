//! Directories: the users and groups that identity providers push. A directory informs, and it takes away: who is not active there, or
//! was removed, is revoked. It never gives anything: in which groups a caller is, its proof of identity says.
//!
//! One issuer has one directory, and its door is a [`Directory`], which reads and writes rows of that issuer only. The revision is raised
//! exactly when somebody begins or ceases to be revoked.

mod groups;
mod notes;
mod pull;
mod users;

use sea_orm::{
    ColumnTrait as _, EntityTrait, PaginatorTrait as _, PrimaryKeyTrait, QueryFilter as _, QuerySelect as _, Select,
};

use crate::choice::DirectoryState;
use crate::clock::Timestamp;
use crate::entity::{directory_group, directory_user};
use crate::error::StoreError;
use crate::id::{DirectoryGroupId, DirectoryUserId};
use crate::name::{DirectoryText, Group, IssuerName, Subject};
use crate::store::Store;

use notes::Notes;
pub use notes::{DIRECTORY_NAMED_MAX, DirectoryAct, DirectoryChange, DirectoryChanges, DirectoryThing, Moved};
pub use pull::{Leavers, ListedGroup, Pulled};
pub(crate) use users::away;

/// How many users a directory may have, those that were removed among them.
pub const DIRECTORY_USERS_MAX: u64 = 100_000;
/// How many groups a directory may have.
pub const DIRECTORY_GROUPS_MAX: u64 = 10_000;
/// How many users one of its groups may have.
pub const DIRECTORY_MEMBERS_MAX: u64 = 50_000;
/// How many rows or ids go into one statement, because databases bound the number of its values.
const STATEMENT_ROWS_MAX: usize = 500;

/// The directory of one issuer.
#[derive(Debug, Clone)]
pub struct Directory {
    store: Store,
    issuer: IssuerName,
    /// What it has written, with its clones.
    notes: Notes,
}

/// A user of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryUser {
    /// What we call it.
    pub id: DirectoryUserId,
    /// What its issuer's tokens call it.
    pub subject: Subject,
    /// What its provider calls it.
    pub external_id: Option<DirectoryText>,
    /// By what it signs in; in any case it is another one than that of all others.
    pub user_name: DirectoryText,
    /// For people to read.
    pub display_name: Option<DirectoryText>,
    /// Whether it may be let in.
    pub state: DirectoryState,
    /// Since when it is so.
    pub since: Timestamp,
    /// When it was created.
    pub created_at: Timestamp,
    /// When anything about it changed last.
    pub modified_at: Timestamp,
}

/// A user that is to be created.
#[derive(Debug, Clone)]
pub struct NewDirectoryUser {
    /// What its issuer's tokens call it.
    pub subject: Subject,
    /// What its provider calls it.
    pub external_id: Option<DirectoryText>,
    /// By what it signs in.
    pub user_name: DirectoryText,
    /// For people to read.
    pub display_name: Option<DirectoryText>,
    /// Whether it may be let in.
    pub is_active: bool,
}

/// What becomes of something that may be there or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Edit<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// It goes.
    Clear,
    /// It is that.
    Set(T),
}

/// What changes about a user. What is not said stays as it is, whatever others change at the same time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserChange {
    /// What its issuer's tokens call it. Whoever had been called so before is revoked from then on.
    pub subject: Option<Subject>,
    /// What its provider calls it.
    pub external_id: Edit<DirectoryText>,
    /// By what it signs in.
    pub user_name: Option<DirectoryText>,
    /// For people to read.
    pub display_name: Edit<DirectoryText>,
    /// Whether it may be let in.
    pub is_active: Option<bool>,
}

/// A group of a directory, without its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryGroup {
    /// What we call it.
    pub id: DirectoryGroupId,
    /// As grants name it.
    pub name: Group,
    /// What its provider calls it.
    pub external_id: Option<DirectoryText>,
    /// For people to read.
    pub display_name: DirectoryText,
    /// When it was created.
    pub created_at: Timestamp,
    /// When anything about it changed last, its members included.
    pub modified_at: Timestamp,
}

/// A group that is to be created.
#[derive(Debug, Clone)]
pub struct NewDirectoryGroup {
    /// As grants name it.
    pub name: Group,
    /// What its provider calls it.
    pub external_id: Option<DirectoryText>,
    /// For people to read.
    pub display_name: DirectoryText,
    /// Who is in it.
    pub members: Vec<DirectoryUserId>,
}

/// What changes about the members of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberEdit {
    /// These are in it, too.
    Add(Vec<DirectoryUserId>),
    /// These are in it no more; nor were those that never were.
    Remove(Vec<DirectoryUserId>),
    /// These are in it, and nobody else.
    Replace(Vec<DirectoryUserId>),
}

/// What changes about a group. What is not said stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupChange {
    /// As grants name it.
    pub name: Option<Group>,
    /// What its provider calls it.
    pub external_id: Edit<DirectoryText>,
    /// For people to read.
    pub display_name: Option<DirectoryText>,
    /// Its members, one change after the other.
    pub members: Vec<MemberEdit>,
}

/// What a user or group must be to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryFilter {
    /// It has this id. A text that is none finds nothing.
    Id(String),
    /// It is called that by its provider.
    ExternalId(String),
    /// It signs in by that, in whatever case. No group does.
    UserName(String),
    /// It is displayed as that, in whatever case.
    DisplayName(String),
    /// It has this member; no user has any.
    Member(String),
}

/// Which of those that are found are wanted, in the order of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// How many come before.
    pub skip: u64,
    /// How many are wanted.
    pub count: u64,
}

/// Some of those that were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// How many were found.
    pub total: u64,
    /// Those that were wanted.
    pub items: Vec<T>,
}

impl DirectoryUser {
    /// Whether nobody is let in as this one.
    pub fn is_away(&self) -> bool {
        self.state != DirectoryState::Active
    }
}

impl DirectoryState {
    /// Why somebody is revoked whom the directory of `issuer` knows in this state.
    pub fn reason(self, issuer: &IssuerName) -> String {
        match self {
            Self::Active => format!("the directory of {issuer} has nothing against this user"),
            Self::Inactive => format!("the directory of {issuer} says that this user is not active"),
            Self::Removed => format!("the directory of {issuer} has removed this user"),
        }
    }
}

impl<T> Edit<T> {
    /// What it is set to, of something that was not there.
    pub fn set(self) -> Option<T> {
        self.of(None)
    }

    /// What there is afterwards.
    fn of(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Keep => before,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }
}

impl Store {
    /// The directory of an issuer; empty, if it never pushed anything.
    pub fn directory(&self, issuer: &IssuerName) -> Directory {
        Directory { store: self.clone(), issuer: issuer.clone(), notes: Notes::default() }
    }
}

impl Directory {
    /// Whose it is.
    pub fn issuer(&self) -> &IssuerName {
        &self.issuer
    }

    /// What was changed through this and its clones since this was asked last.
    pub fn take_changes(&self) -> DirectoryChanges {
        self.notes.take()
    }

    /// When it said something new last; never, if it is empty.
    pub async fn as_of(&self) -> Result<Option<Timestamp>, StoreError> {
        use directory_group::{Column as OfGroup, Entity as Groups};
        use directory_user::{Column as OfUser, Entity as Users};
        let reading = self.store.reading().await?;
        let db = reading.executor();
        let users = Users::find().filter(OfUser::Issuer.eq(self.issuer.clone())).select_only();
        let users = users.column_as(OfUser::ModifiedMs.max(), "at").into_tuple::<Option<i64>>().one(&db).await;
        let groups = Groups::find().filter(OfGroup::Issuer.eq(self.issuer.clone())).select_only();
        let groups = groups.column_as(OfGroup::ModifiedMs.max(), "at").into_tuple::<Option<i64>>().one(&db).await;
        let users = users.map_err(StoreError::read("directory_user"))?.flatten();
        let groups = groups.map_err(StoreError::read("directory_group"))?.flatten();
        Ok(users.max(groups).map(Timestamp::from_millis))
    }
}

/// How a text is looked for, in whatever case.
fn key(text: &str) -> String {
    text.to_lowercase()
}

/// Fails if there is no room for one more.
async fn require_room<E>(
    db: &impl sea_orm::ConnectionTrait,
    select: Select<E>,
    (table, what, count_max): (&'static str, &'static str, u64),
) -> Result<(), StoreError>
where
    E: EntityTrait,
    E::Model: Send + Sync,
    E::PrimaryKey: PrimaryKeyTrait,
{
    let count = select.count(db).await.map_err(StoreError::read(table))?;
    if count < count_max { Ok(()) } else { Err(StoreError::DirectoryFull { what, count_max }) }
}
