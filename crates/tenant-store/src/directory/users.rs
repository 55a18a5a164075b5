//! The users of a directory: creating, finding, changing and removing them, and who of them is revoked by that.

use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait as _, JoinType, PaginatorTrait as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, Select,
};

use super::{
    DIRECTORY_USERS_MAX, Directory, DirectoryChange, DirectoryFilter, DirectoryUser, NewDirectoryUser, Page, Slice,
    UserChange, key, require_room,
};
use crate::choice::DirectoryState;
use crate::clock::Timestamp;
use crate::entity::directory_user::{ActiveModel, Column, Entity, Model};
use crate::entity::{directory_group, directory_member};
use crate::error::StoreError;
use crate::id::DirectoryUserId;
use crate::name::{DirectoryText, Group, IssuerName, Subject};
use crate::revocations::{Revocation, Revoked};
use crate::store::row;

const TABLE: &str = "directory_user";
/// Those who are not let in, spelt as the index has it.
const IS_AWAY: &str = "state <> 'active'";

impl Directory {
    /// A user that is not removed.
    pub async fn user(&self, id: DirectoryUserId) -> Result<Option<DirectoryUser>, StoreError> {
        let reading = self.store.reading().await?;
        one(&reading.executor(), self.present().filter(Column::Id.eq(id))).await
    }

    /// The user whom tokens call so, also if it was removed.
    pub async fn of_subject(&self, subject: &Subject) -> Result<Option<DirectoryUser>, StoreError> {
        let reading = self.store.reading().await?;
        one(&reading.executor(), self.of_issuer().filter(Column::Subject.eq(subject.clone()))).await
    }

    /// Those users, not removed, that are all of that.
    pub async fn users(&self, filters: &[DirectoryFilter], slice: Slice) -> Result<Page<DirectoryUser>, StoreError> {
        let reading = self.store.reading().await?;
        let db = reading.executor();
        let select = self.present().filter(filters.iter().map(condition).fold(Condition::all(), Condition::add));
        let total = select.clone().count(&db).await.map_err(StoreError::read(TABLE))?;
        let select = select.order_by_asc(Column::Id).offset(slice.skip).limit(slice.count);
        Ok(Page { total, items: row::models(&db, select, |model| Ok(parsed(model))).await? })
    }

    /// The users, those of them that are in a group of that name, or all, those that were removed among them.
    pub async fn people(&self, group: Option<&Group>) -> Result<Vec<DirectoryUser>, StoreError> {
        let select = match group {
            None => self.of_issuer(),
            Some(group) => {
                let members = directory_member::Entity::find()
                    .select_only()
                    .column(directory_member::Column::UserId)
                    .join(JoinType::InnerJoin, super::groups::group_of_member())
                    .filter(directory_group::Column::Issuer.eq(self.issuer.clone()))
                    .filter(directory_group::Column::Name.eq(group.clone()));
                self.present().filter(Column::Id.in_subquery(sea_orm::QueryTrait::into_query(members)))
            }
        };
        let reading = self.store.reading().await?;
        row::models(&reading.executor(), select.order_by_asc(Column::Subject), |model| Ok(parsed(model))).await
    }

    /// Creates a user. One of that subject that was removed is there again.
    pub async fn add_user(&self, new: NewDirectoryUser) -> Result<DirectoryUser, StoreError> {
        let writing = self.store.writing().await?;
        let db = writing.executor();
        let now = self.store.now();
        let was_away = match one(db, self.of_issuer().filter(Column::Subject.eq(new.subject.clone()))).await? {
            Some(old) if old.state == DirectoryState::Removed => {
                delete(db, old.id).await?;
                true
            }
            Some(_) => return Err(StoreError::DirectoryTaken { what: "subject" }),
            None => {
                require_room(db, self.of_issuer(), (TABLE, "users", DIRECTORY_USERS_MAX)).await?;
                false
            }
        };
        self.require_name(db, new.user_name.as_str(), None).await?;
        let user = new.at(now);
        self.insert(db, &user).await?;
        self.notes.begin_one(DirectoryChange::of_user(None, &user));
        writing.finish(was_away != user.is_away()).await?;
        self.notes.settle();
        Ok(user)
    }

    /// Changes a user; nothing, if there is none.
    pub async fn change_user(
        &self,
        id: DirectoryUserId,
        change: UserChange,
    ) -> Result<Option<DirectoryUser>, StoreError> {
        let writing = self.store.writing().await?;
        let db = writing.executor();
        let now = self.store.now();
        let Some(old) = one(db, self.present().filter(Column::Id.eq(id))).await? else { return Ok(None) };
        let mut new = changed(&old, change);
        if new == old {
            return Ok(Some(old));
        }
        new.modified_at = now;
        if key(new.user_name.as_str()) != key(old.user_name.as_str()) {
            self.require_name(db, new.user_name.as_str(), Some(id)).await?;
        }
        let mut is_told = new.is_away() != old.is_away();
        if is_told {
            new.since = now;
        }
        if new.subject == old.subject {
            update(db, &new).await?;
        } else {
            let other = one(db, self.of_issuer().filter(Column::Subject.eq(new.subject.clone()))).await?;
            let was_away = match other {
                Some(other) if other.state == DirectoryState::Removed => {
                    delete(db, other.id).await?;
                    true
                }
                Some(_) => return Err(StoreError::DirectoryTaken { what: "subject" }),
                None => {
                    require_room(db, self.of_issuer(), (TABLE, "users", DIRECTORY_USERS_MAX)).await?;
                    false
                }
            };
            update(db, &new).await?;
            // The directory knows nobody of the old name any more.
            let gone = removed(DirectoryUser { id: DirectoryUserId::new(now), ..old.clone() }, now);
            self.insert(db, &gone).await?;
            is_told = !old.is_away() || was_away != new.is_away();
        }
        self.notes.begin_one(DirectoryChange::of_user(Some(&old), &new));
        writing.finish(is_told).await?;
        self.notes.settle();
        Ok(Some(new))
    }

    /// Removes a user; `false`, if there is none. It stays revoked, and what else was known of it is forgotten.
    pub async fn remove_user(&self, id: DirectoryUserId) -> Result<bool, StoreError> {
        let writing = self.store.writing().await?;
        let db = writing.executor();
        let Some(old) = one(db, self.present().filter(Column::Id.eq(id))).await? else { return Ok(false) };
        let memberships = directory_member::Entity::delete_many().filter(directory_member::Column::UserId.eq(id));
        memberships.exec(db).await.map_err(StoreError::write("directory_member"))?;
        let is_told = !old.is_away();
        let new = removed(old.clone(), self.store.now());
        update(db, &new).await?;
        self.notes.begin_one(DirectoryChange::of_user(Some(&old), &new));
        writing.finish(is_told).await?;
        self.notes.settle();
        Ok(true)
    }

    /// Deletes all users and groups, and says how many users those were. Nobody is revoked by the directory any more.
    pub async fn forget(&self) -> Result<u64, StoreError> {
        let writing = self.store.writing().await?;
        let db = writing.executor();
        let away = self.of_issuer().filter(Expr::cust(IS_AWAY));
        let away = away.count(db).await.map_err(StoreError::read(TABLE))?;
        let of_issuer = directory_group::Column::Issuer.eq(self.issuer.clone());
        let groups = directory_group::Entity::delete_many().filter(of_issuer).exec(db);
        groups.await.map_err(StoreError::write("directory_group"))?;
        let users = Entity::delete_many().filter(Column::Issuer.eq(self.issuer.clone())).exec(db);
        let count = users.await.map_err(StoreError::write(TABLE))?.rows_affected;
        writing.finish(away > 0).await?;
        Ok(count)
    }

    pub(super) fn of_issuer(&self) -> Select<Entity> {
        Entity::find().filter(Column::Issuer.eq(self.issuer.clone()))
    }

    pub(super) fn present(&self) -> Select<Entity> {
        self.of_issuer().filter(Column::State.ne(DirectoryState::Removed))
    }

    /// Fails if anybody else signs in by that name.
    async fn require_name(
        &self,
        db: &DatabaseTransaction,
        name: &str,
        own: Option<DirectoryUserId>,
    ) -> Result<(), StoreError> {
        let holder = one(db, self.present().filter(Column::UserNameKey.eq(key(name)))).await?;
        match holder {
            Some(holder) if Some(holder.id) != own => Err(StoreError::DirectoryTaken { what: "userName" }),
            _ => Ok(()),
        }
    }

    async fn insert(&self, db: &DatabaseTransaction, user: &DirectoryUser) -> Result<(), StoreError> {
        let model = ActiveModel { issuer: Set(self.issuer.clone()), ..model(user) };
        Entity::insert(model).exec_without_returning(db).await.map_err(StoreError::write(TABLE))?;
        Ok(())
    }
}

impl NewDirectoryUser {
    /// The user that it becomes at that moment.
    pub(super) fn at(self, now: Timestamp) -> DirectoryUser {
        DirectoryUser {
            id: DirectoryUserId::new(now),
            subject: self.subject,
            external_id: self.external_id,
            user_name: self.user_name,
            display_name: self.display_name,
            state: state(self.is_active),
            since: now,
            created_at: now,
            modified_at: now,
        }
    }
}

/// Everybody whom a directory takes away.
pub(crate) async fn away<C: ConnectionTrait>(db: &C) -> Result<Vec<Revocation>, StoreError> {
    let select = Entity::find().filter(Expr::cust(IS_AWAY)).order_by_asc(Column::SinceMs).order_by_asc(Column::Id);
    // One whose other columns do not parse is revoked all the same.
    row::rows(db, select, |row| {
        let (issuer, subject): (IssuerName, Subject) = (row.try_get("", "issuer")?, row.try_get("", "subject")?);
        let state = row.try_get("", "state").unwrap_or(DirectoryState::Inactive);
        let at = Timestamp::from_millis(row.try_get("", "since_ms").unwrap_or(0));
        Ok(Revocation { reason: state.reason(&issuer), what: Revoked::Principal { issuer, subject }, at })
    })
    .await
}

pub(super) async fn one<C: ConnectionTrait>(
    db: &C,
    select: Select<Entity>,
) -> Result<Option<DirectoryUser>, StoreError> {
    Ok(row::models(db, select.limit(1), |model| Ok(parsed(model))).await?.pop())
}

fn condition(filter: &DirectoryFilter) -> Condition {
    // What can be no attribute is nobody's.
    let is = |column: Column, text: &str, as_key: bool| match text.parse::<DirectoryText>() {
        Ok(text) if as_key => Condition::all().add(column.eq(key(text.as_str()))),
        Ok(text) => Condition::all().add(column.eq(text)),
        Err(_) => nobody(),
    };
    match filter {
        DirectoryFilter::Id(id) => match id.parse::<DirectoryUserId>() {
            Ok(id) => Condition::all().add(Column::Id.eq(id)),
            Err(_) => nobody(),
        },
        DirectoryFilter::ExternalId(id) => is(Column::ExternalId, id, false),
        DirectoryFilter::UserName(name) => is(Column::UserNameKey, name, true),
        DirectoryFilter::DisplayName(name) => is(Column::DisplayKey, name, true),
        DirectoryFilter::Member(_) => nobody(),
    }
}

/// What nobody is.
pub(super) fn nobody() -> Condition {
    Condition::all().add(Expr::cust("1 = 0"))
}

pub(super) fn state(is_active: bool) -> DirectoryState {
    if is_active { DirectoryState::Active } else { DirectoryState::Inactive }
}

fn changed(old: &DirectoryUser, change: UserChange) -> DirectoryUser {
    let old = old.clone();
    DirectoryUser {
        subject: change.subject.unwrap_or(old.subject),
        external_id: change.external_id.of(old.external_id),
        user_name: change.user_name.unwrap_or(old.user_name),
        display_name: change.display_name.of(old.display_name),
        state: change.is_active.map_or(old.state, state),
        ..old
    }
}

/// What stays of a user that was removed: its name in tokens.
pub(super) fn removed(user: DirectoryUser, now: Timestamp) -> DirectoryUser {
    let since = if user.is_away() { user.since } else { now };
    let user_name = user.subject.as_str().parse().unwrap_or(user.user_name);
    DirectoryUser {
        external_id: None,
        display_name: None,
        state: DirectoryState::Removed,
        since,
        modified_at: now,
        user_name,
        ..user
    }
}

/// Its row, but for the issuer.
pub(super) fn model(user: &DirectoryUser) -> ActiveModel {
    ActiveModel {
        id: Set(user.id),
        subject: Set(user.subject.clone()),
        external_id: Set(user.external_id.clone()),
        user_name: Set(user.user_name.clone()),
        user_name_key: Set(key(user.user_name.as_str())),
        display_name: Set(user.display_name.clone()),
        display_key: Set(user.display_name.as_ref().map(|name| key(name.as_str()))),
        state: Set(user.state),
        since_ms: Set(user.since.as_millis()),
        created_ms: Set(user.created_at.as_millis()),
        modified_ms: Set(user.modified_at.as_millis()),
        ..Default::default()
    }
}

pub(super) fn parsed(model: Model) -> DirectoryUser {
    DirectoryUser {
        id: model.id,
        subject: model.subject,
        external_id: model.external_id,
        user_name: model.user_name,
        display_name: model.display_name,
        state: model.state,
        since: Timestamp::from_millis(model.since_ms),
        created_at: Timestamp::from_millis(model.created_ms),
        modified_at: Timestamp::from_millis(model.modified_ms),
    }
}

async fn update(db: &DatabaseTransaction, user: &DirectoryUser) -> Result<(), StoreError> {
    let update = Entity::update_many().set(model(user)).filter(Column::Id.eq(user.id)).exec(db);
    update.await.map_err(StoreError::write(TABLE))?;
    Ok(())
}

async fn delete(db: &DatabaseTransaction, id: DirectoryUserId) -> Result<(), StoreError> {
    Entity::delete_many().filter(Column::Id.eq(id)).exec(db).await.map_err(StoreError::write(TABLE))?;
    Ok(())
}
