//! The groups of a directory, and who is in them. Nobody gains or loses anything by it, so no revision is raised.

use std::collections::{BTreeSet, HashSet};

use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait as _, JoinType, PaginatorTrait as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait as _, RelationDef, RelationTrait as _, Select,
};

use super::users::nobody;
use super::{
    DIRECTORY_GROUPS_MAX, DIRECTORY_MEMBERS_MAX, DIRECTORY_NAMED_MAX, Directory, DirectoryAct, DirectoryChange,
    DirectoryFilter, DirectoryGroup, DirectoryUser, GroupChange, MemberEdit, Moved, NewDirectoryGroup, Page,
    STATEMENT_ROWS_MAX, Slice, key, require_room,
};
use crate::clock::Timestamp;
use crate::entity::directory_group::{ActiveModel, Column, Entity, Model};
use crate::entity::{directory_member, directory_user};
use crate::error::StoreError;
use crate::id::{DirectoryGroupId, DirectoryUserId};
use crate::name::{DirectoryText, Subject};
use crate::store::row;

const TABLE: &str = "directory_group";
const MEMBERS: &str = "directory_member";

/// From a member to its group.
pub(super) fn group_of_member() -> RelationDef {
    directory_member::Relation::Group.def()
}

impl Directory {
    /// A group.
    pub async fn group(&self, id: DirectoryGroupId) -> Result<Option<DirectoryGroup>, StoreError> {
        let reading = self.store.reading().await?;
        one(&reading.executor(), self.groups_of_issuer().filter(Column::Id.eq(id))).await
    }

    /// Those groups that are all of that.
    pub async fn groups(&self, filters: &[DirectoryFilter], slice: Slice) -> Result<Page<DirectoryGroup>, StoreError> {
        let reading = self.store.reading().await?;
        let db = reading.executor();
        let wanted = filters.iter().map(condition).fold(Condition::all(), Condition::add);
        let select = self.groups_of_issuer().filter(wanted);
        let total = select.clone().count(&db).await.map_err(StoreError::read(TABLE))?;
        let select = select.order_by_asc(Column::Id).offset(slice.skip).limit(slice.count);
        Ok(Page { total, items: row::models(&db, select, |model| Ok(parsed(model))).await? })
    }

    /// The groups in which a user is, by their names.
    pub async fn groups_of(&self, subject: &Subject) -> Result<Vec<DirectoryGroup>, StoreError> {
        let users = self.present().filter(directory_user::Column::Subject.eq(subject.clone()));
        let users = users.select_only().column(directory_user::Column::Id).into_query();
        let memberships = directory_member::Entity::find()
            .filter(directory_member::Column::UserId.in_subquery(users))
            .select_only()
            .column(directory_member::Column::GroupId)
            .into_query();
        let select = self.groups_of_issuer().filter(Column::Id.in_subquery(memberships));
        let reading = self.store.reading().await?;
        let select = select.order_by_asc(Column::Name).order_by_asc(Column::Id);
        row::models(&reading.executor(), select, |model| Ok(parsed(model))).await
    }

    /// Who is in a group, in the order of their ids.
    pub async fn members(&self, group: DirectoryGroupId) -> Result<Vec<DirectoryUser>, StoreError> {
        let members = directory_member::Entity::find()
            .select_only()
            .column(directory_member::Column::UserId)
            .join(JoinType::InnerJoin, group_of_member())
            .filter(directory_member::Column::GroupId.eq(group))
            .filter(Column::Issuer.eq(self.issuer.clone()))
            .into_query();
        let select = self.present().filter(directory_user::Column::Id.in_subquery(members));
        let reading = self.store.reading().await?;
        let select = select.order_by_asc(directory_user::Column::Id);
        row::models(&reading.executor(), select, |model| Ok(super::users::parsed(model))).await
    }

    /// Creates a group. Every member must be a user of the directory.
    pub async fn add_group(&self, new: NewDirectoryGroup) -> Result<DirectoryGroup, StoreError> {
        let writing = self.store.writing().await?;
        let db = writing.executor();
        require_room(db, self.groups_of_issuer(), (TABLE, "groups", DIRECTORY_GROUPS_MAX)).await?;
        let now = self.store.now();
        let group = DirectoryGroup {
            id: DirectoryGroupId::new(now),
            name: new.name,
            external_id: new.external_id,
            display_name: new.display_name,
            created_at: now,
            modified_at: now,
        };
        let model = ActiveModel { issuer: Set(self.issuer.clone()), ..model(&group) };
        Entity::insert(model).exec_without_returning(db).await.map_err(StoreError::write(TABLE))?;
        let edits = MemberEdits::of([MemberEdit::Add(new.members)]);
        let [added, _] = self.moved(db, group.id, &edits).await?;
        self.edit_members(db, group.id, edits).await?;
        self.notes.begin_one(DirectoryChange { added, ..DirectoryChange::of_group(DirectoryAct::Created, &group) });
        writing.finish(false).await?;
        self.notes.settle();
        Ok(group)
    }

    /// Changes a group; nothing, if there is none. Every member that is added must be a user of the directory.
    pub async fn change_group(
        &self,
        id: DirectoryGroupId,
        change: GroupChange,
    ) -> Result<Option<DirectoryGroup>, StoreError> {
        let writing = self.store.writing().await?;
        let db = writing.executor();
        let Some(old) = one(db, self.groups_of_issuer().filter(Column::Id.eq(id))).await? else { return Ok(None) };
        let same = DirectoryGroup {
            name: change.name.unwrap_or_else(|| old.name.clone()),
            external_id: change.external_id.of(old.external_id.clone()),
            display_name: change.display_name.unwrap_or_else(|| old.display_name.clone()),
            ..old.clone()
        };
        let is_other = same != old;
        let new = DirectoryGroup { modified_at: self.store.now(), ..same };
        let update = Entity::update_many().set(model(&new)).filter(Column::Id.eq(id)).exec(db);
        update.await.map_err(StoreError::write(TABLE))?;
        let edits = MemberEdits::of(change.members);
        let [added, removed] = self.moved(db, id, &edits).await?;
        self.edit_members(db, id, edits).await?;
        if is_other || added.count > 0 || removed.count > 0 {
            let was = (new.name != old.name).then(|| old.name.to_string());
            let change = DirectoryChange::of_group(DirectoryAct::Changed, &new);
            self.notes.begin_one(DirectoryChange { was, added, removed, ..change });
        }
        writing.finish(false).await?;
        self.notes.settle();
        Ok(Some(new))
    }

    /// Removes a group; `false`, if there is none.
    pub async fn remove_group(&self, id: DirectoryGroupId) -> Result<bool, StoreError> {
        let writing = self.store.writing().await?;
        let db = writing.executor();
        let Some(old) = one(db, self.groups_of_issuer().filter(Column::Id.eq(id))).await? else { return Ok(false) };
        let delete = Entity::delete_many().filter(Column::Issuer.eq(self.issuer.clone())).filter(Column::Id.eq(id));
        delete.exec(db).await.map_err(StoreError::write(TABLE))?;
        self.notes.begin_one(DirectoryChange::of_group(DirectoryAct::Removed, &old));
        writing.finish(false).await?;
        self.notes.settle();
        Ok(true)
    }

    fn groups_of_issuer(&self) -> Select<Entity> {
        Entity::find().filter(Column::Issuer.eq(self.issuer.clone()))
    }

    /// Whom these edits bring into a group, and whom they take out of it.
    async fn moved(
        &self,
        db: &DatabaseTransaction,
        group: DirectoryGroupId,
        edits: &MemberEdits,
    ) -> Result<[Moved; 2], StoreError> {
        let (mut there, mut gone) = (HashSet::new(), Vec::new());
        if edits.is_replaced {
            let all = members_among(db, group, None).await?;
            let stays: HashSet<&DirectoryUserId> = edits.add.iter().collect();
            for user in all {
                if stays.contains(&user) {
                    there.insert(user);
                } else {
                    gone.push(user);
                }
            }
        } else {
            for part in edits.add.chunks(STATEMENT_ROWS_MAX) {
                there.extend(members_among(db, group, Some(part)).await?);
            }
            for part in edits.remove.chunks(STATEMENT_ROWS_MAX) {
                gone.extend(members_among(db, group, Some(part)).await?);
            }
        }
        let come: Vec<_> = edits.add.iter().copied().filter(|id| !there.contains(id)).collect();
        Ok([self.named(db, &come).await?, self.named(db, &gone).await?])
    }

    /// How many those are, and what tokens call the first of them.
    async fn named(&self, db: &DatabaseTransaction, users: &[DirectoryUserId]) -> Result<Moved, StoreError> {
        let first = users.iter().copied().take(DIRECTORY_NAMED_MAX);
        let select = self.of_issuer().filter(directory_user::Column::Id.is_in(first));
        let select = select.order_by_asc(directory_user::Column::Subject);
        let names = if users.is_empty() {
            Vec::new()
        } else {
            row::models(db, select, |model| Ok(model.subject.to_string())).await?
        };
        Ok(Moved { count: users.len(), names })
    }

    async fn edit_members(
        &self,
        db: &DatabaseTransaction,
        group: DirectoryGroupId,
        MemberEdits { is_replaced, add, remove }: MemberEdits,
    ) -> Result<(), StoreError> {
        let of_group = || directory_member::Entity::delete_many().filter(directory_member::Column::GroupId.eq(group));
        if is_replaced {
            of_group().exec(db).await.map_err(StoreError::write(MEMBERS))?;
        }
        for part in remove.chunks(STATEMENT_ROWS_MAX) {
            let these = directory_member::Column::UserId.is_in(part.iter().copied());
            of_group().filter(these).exec(db).await.map_err(StoreError::write(MEMBERS))?;
        }
        if add.is_empty() { Ok(()) } else { self.add_members(db, group, &add).await }
    }

    async fn add_members(
        &self,
        db: &DatabaseTransaction,
        group: DirectoryGroupId,
        users: &[DirectoryUserId],
    ) -> Result<(), StoreError> {
        for part in users.chunks(STATEMENT_ROWS_MAX) {
            let known = self.present().filter(directory_user::Column::Id.is_in(part.iter().copied()));
            let known = row::models(db, known, |model| Ok(model.id)).await?;
            if let Some(unknown) = part.iter().find(|id| !known.contains(id)) {
                return Err(StoreError::NotFound { what: "user of the directory", name: unknown.to_string() });
            }
            let rows =
                part.iter().map(|user| directory_member::ActiveModel { group_id: Set(group), user_id: Set(*user) });
            let same = [directory_member::Column::GroupId, directory_member::Column::UserId];
            let insert = directory_member::Entity::insert_many(rows)
                .on_conflict(OnConflict::columns(same).do_nothing().to_owned())
                .exec_without_returning(db);
            insert.await.map_err(StoreError::write(MEMBERS))?;
        }
        let members = directory_member::Entity::find().filter(directory_member::Column::GroupId.eq(group));
        let count = members.count(db).await.map_err(StoreError::read(MEMBERS))?;
        let (what, count_max) = ("members in this group", DIRECTORY_MEMBERS_MAX);
        if count <= count_max { Ok(()) } else { Err(StoreError::DirectoryFull { what, count_max }) }
    }
}

/// What many changes of members come to, one after the other: so they are one statement each, however many there are.
#[derive(Debug, Default, PartialEq, Eq)]
struct MemberEdits {
    /// Whoever was in it is not.
    is_replaced: bool,
    add: Vec<DirectoryUserId>,
    remove: Vec<DirectoryUserId>,
}

impl MemberEdits {
    fn of(edits: impl IntoIterator<Item = MemberEdit>) -> Self {
        let (mut is_replaced, mut add, mut remove) = (false, BTreeSet::new(), BTreeSet::new());
        for edit in edits {
            match edit {
                MemberEdit::Add(users) => {
                    for user in users {
                        remove.remove(&user);
                        add.insert(user);
                    }
                }
                MemberEdit::Remove(users) => {
                    for user in users {
                        add.remove(&user);
                        remove.insert(user);
                    }
                }
                MemberEdit::Replace(users) => {
                    (is_replaced, add, remove) = (true, users.into_iter().collect(), BTreeSet::new());
                }
            }
        }
        Self { is_replaced, add: add.into_iter().collect(), remove: remove.into_iter().collect() }
    }
}

/// Who is in a group, or which of these.
async fn members_among(
    db: &DatabaseTransaction,
    group: DirectoryGroupId,
    these: Option<&[DirectoryUserId]>,
) -> Result<Vec<DirectoryUserId>, StoreError> {
    let mut select = directory_member::Entity::find()
        .select_only()
        .column(directory_member::Column::UserId)
        .filter(directory_member::Column::GroupId.eq(group));
    if let Some(these) = these {
        select = select.filter(directory_member::Column::UserId.is_in(these.iter().copied()));
    }
    select.into_tuple::<DirectoryUserId>().all(db).await.map_err(StoreError::read(MEMBERS))
}

async fn one<C: ConnectionTrait>(db: &C, select: Select<Entity>) -> Result<Option<DirectoryGroup>, StoreError> {
    Ok(row::models(db, select.limit(1), |model| Ok(parsed(model))).await?.pop())
}

fn condition(filter: &DirectoryFilter) -> Condition {
    match filter {
        DirectoryFilter::Id(id) => match id.parse::<DirectoryGroupId>() {
            Ok(id) => Condition::all().add(Column::Id.eq(id)),
            Err(_) => nobody(),
        },
        DirectoryFilter::ExternalId(id) => match id.parse::<DirectoryText>() {
            Ok(id) => Condition::all().add(Column::ExternalId.eq(id)),
            Err(_) => nobody(),
        },
        DirectoryFilter::DisplayName(name) => match name.parse::<DirectoryText>() {
            Ok(name) => Condition::all().add(Column::DisplayKey.eq(key(name.as_str()))),
            Err(_) => nobody(),
        },
        DirectoryFilter::Member(id) => match id.parse::<DirectoryUserId>() {
            Ok(user) => {
                let memberships = directory_member::Entity::find()
                    .filter(directory_member::Column::UserId.eq(user))
                    .select_only()
                    .column(directory_member::Column::GroupId);
                Condition::all().add(Column::Id.in_subquery(memberships.into_query()))
            }
            Err(_) => nobody(),
        },
        DirectoryFilter::UserName(_) => nobody(),
    }
}

/// Its row, but for the issuer.
fn model(group: &DirectoryGroup) -> ActiveModel {
    ActiveModel {
        id: Set(group.id),
        name: Set(group.name.clone()),
        external_id: Set(group.external_id.clone()),
        display_name: Set(group.display_name.clone()),
        display_key: Set(key(group.display_name.as_str())),
        created_ms: Set(group.created_at.as_millis()),
        modified_ms: Set(group.modified_at.as_millis()),
        ..Default::default()
    }
}

fn parsed(model: Model) -> DirectoryGroup {
    DirectoryGroup {
        id: model.id,
        name: model.name,
        external_id: model.external_id,
        display_name: model.display_name,
        created_at: Timestamp::from_millis(model.created_ms),
        modified_at: Timestamp::from_millis(model.modified_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_changes_of_members_come_to_what_they_would_one_after_the_other() {
        let [a, b, c] = [1, 2, 3].map(|at| DirectoryUserId::new(Timestamp::from_millis(at)));
        let edits = MemberEdits::of([
            MemberEdit::Add(vec![a, b]),
            MemberEdit::Remove(vec![b, c]),
            MemberEdit::Add(vec![c]),
            MemberEdit::Add(vec![a]),
        ]);
        assert_eq!(edits, MemberEdits { is_replaced: false, add: vec![a, c], remove: vec![b] });
        let edits = MemberEdits::of([
            MemberEdit::Add(vec![a]),
            MemberEdit::Replace(vec![b]),
            MemberEdit::Remove(vec![a]),
            MemberEdit::Add(vec![c]),
        ]);
        assert_eq!(edits, MemberEdits { is_replaced: true, add: vec![b, c], remove: vec![a] });
    }
}
