//! A directory that is asked: the provider's whole list takes the place of what was known, in one transaction.

use std::collections::{BTreeSet, HashMap};

use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait as _, DatabaseTransaction, EntityTrait as _, Iterable as _, QueryFilter as _, QuerySelect as _,
};

use super::users::{model, removed, state};
use super::{
    DIRECTORY_GROUPS_MAX, DIRECTORY_MEMBERS_MAX, DIRECTORY_USERS_MAX, Directory, DirectoryChange, DirectoryChanges,
    DirectoryGroup, DirectoryUser, Edit, GroupChange, MemberEdit, NewDirectoryGroup, NewDirectoryUser,
    STATEMENT_ROWS_MAX,
};
use crate::choice::DirectoryState;
use crate::clock::Timestamp;
use crate::entity::directory_member;
use crate::entity::directory_user::{ActiveModel, Column, Entity};
use crate::error::StoreError;
use crate::id::{DirectoryGroupId, DirectoryUserId};
use crate::name::{DirectoryText, Group, Subject};
use crate::store::row;

/// How many users may be taken away at once whatever their share.
const AWAY_FREE: usize = 20;
/// Of how many users one may be taken away at once. More is a mistake at the provider, or in how it is asked, and would shut everybody out.
const AWAY_SHARE: usize = 10;

/// A group as its provider lists it.
#[derive(Debug, Clone)]
pub struct ListedGroup {
    /// As grants name it.
    pub name: Group,
    /// What its provider calls it.
    pub external_id: Option<DirectoryText>,
    /// For people to read.
    pub display_name: DirectoryText,
    /// Who is in it. Nobody else but users of the directory counts.
    pub members: Vec<Subject>,
}

/// What a whole list changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pulled {
    /// Those that were not there before, or are there again.
    pub added: usize,
    /// Those of whom something changed.
    pub changed: usize,
    /// Those that are there no more.
    pub removed: usize,
}

/// Whether it is known that many are let in no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leavers {
    /// A few are; more would be a mistake at the provider, or in how it is asked.
    Few,
    /// Somebody looked at it.
    Any,
}

/// What the users of a directory become by a whole list of them.
#[derive(Debug, Default)]
struct Plan {
    /// Those that are new or changed.
    rows: Vec<DirectoryUser>,
    /// How many are let in now, and how many of them will be no more.
    active: usize,
    away: usize,
    /// How many there will be, those that were removed among them.
    count: usize,
    /// Somebody begins or ceases to be revoked.
    is_told: bool,
    pulled: Pulled,
    changes: DirectoryChanges,
}

impl Directory {
    /// Takes over the whole list of the provider's users, which was begun to be asked for at `began`: who is not in it is removed. What
    /// others said since is newer and stays. Refused, and nothing changed, where a large part of them would be let in no more, unless
    /// that is `expected`.
    pub async fn pull_users(
        &self,
        listed: &[NewDirectoryUser],
        began: Timestamp,
        expected: Leavers,
    ) -> Result<Pulled, StoreError> {
        // Most lists bring nothing new, and take no writer's turn.
        let known = {
            let reading = self.store.reading().await?;
            row::models(&reading.executor(), self.of_issuer(), |model| Ok(super::users::parsed(model))).await?
        };
        if Plan::new(known, listed, (began, self.store.now())).rows.is_empty() {
            return Ok(Pulled::default());
        }
        let writing = self.store.writing().await?;
        let db = writing.executor();
        let known = row::models(db, self.of_issuer(), |model| Ok(super::users::parsed(model))).await?;
        let plan = Plan::new(known, listed, (began, self.store.now()));
        plan.check(expected)?;
        for part in plan.rows.chunks(STATEMENT_ROWS_MAX) {
            self.put(db, part).await?;
        }
        self.notes.begin(plan.changes);
        writing.finish(plan.is_told).await?;
        self.notes.settle();
        Ok(plan.pulled)
    }

    /// Makes or changes these users. Whoever is removed is in no group any more.
    async fn put(&self, db: &DatabaseTransaction, users: &[DirectoryUser]) -> Result<(), StoreError> {
        let removed: Vec<_> =
            users.iter().filter(|user| user.state == DirectoryState::Removed).map(|user| user.id).collect();
        let memberships =
            directory_member::Entity::delete_many().filter(directory_member::Column::UserId.is_in(removed));
        memberships.exec(db).await.map_err(StoreError::write("directory_member"))?;
        let rows = users.iter().map(|user| ActiveModel { issuer: Set(self.issuer.clone()), ..model(user) });
        let others = Column::iter().filter(|column| !matches!(column, Column::Id | Column::Issuer));
        let known = OnConflict::column(Column::Id).update_columns(others).to_owned();
        let insert = Entity::insert_many(rows).on_conflict(known).exec_without_returning(db);
        insert.await.map_err(StoreError::write("directory_user"))?;
        Ok(())
    }

    /// Takes over these groups, with their members, in place of all that were known.
    pub async fn pull_groups(&self, listed: Vec<ListedGroup>) -> Result<Pulled, StoreError> {
        let count_max = DIRECTORY_GROUPS_MAX;
        if u64::try_from(listed.len()).unwrap_or(u64::MAX) > count_max {
            return Err(StoreError::DirectoryFull { what: "groups", count_max });
        }
        let ids = self.ids().await?;
        let mut known: HashMap<Group, Vec<DirectoryGroup>> = HashMap::new();
        for group in self.all_groups().await? {
            known.entry(group.name.clone()).or_default().push(group);
        }
        let mut pulled = Pulled::default();
        for group in listed {
            let members: BTreeSet<DirectoryUserId> =
                group.members.iter().filter_map(|subject| ids.get(subject).copied()).collect();
            let count = u64::try_from(members.len()).unwrap_or(u64::MAX);
            if count > DIRECTORY_MEMBERS_MAX {
                let (what, count_max) = ("members in this group", DIRECTORY_MEMBERS_MAX);
                return Err(StoreError::DirectoryFull { what, count_max });
            }
            match known.get_mut(&group.name).and_then(Vec::pop) {
                None => {
                    let ListedGroup { name, external_id, display_name, .. } = group;
                    let members = members.into_iter().collect();
                    self.add_group(NewDirectoryGroup { name, external_id, display_name, members }).await?;
                    pulled.added += 1;
                }
                Some(old) => pulled.changed += usize::from(self.pull_group(&old, group, &members).await?),
            }
        }
        // Of several groups of one name one is enough.
        for gone in known.into_values().flatten() {
            pulled.removed += usize::from(self.remove_group(gone.id).await?);
        }
        Ok(pulled)
    }

    /// Makes a group what is listed; `false`, if it was.
    async fn pull_group(
        &self,
        old: &DirectoryGroup,
        listed: ListedGroup,
        members: &BTreeSet<DirectoryUserId>,
    ) -> Result<bool, StoreError> {
        let before = self.member_ids(old.id).await?;
        let is_same = old.display_name == listed.display_name && old.external_id == listed.external_id;
        if is_same && before == *members {
            return Ok(false);
        }
        let change = GroupChange {
            name: None,
            external_id: listed.external_id.map_or(Edit::Clear, Edit::Set),
            display_name: Some(listed.display_name),
            members: vec![
                MemberEdit::Remove(before.difference(members).copied().collect()),
                MemberEdit::Add(members.difference(&before).copied().collect()),
            ],
        };
        Ok(self.change_group(old.id, change).await?.is_some())
    }

    /// The ids of the users that are not removed, by what tokens call them.
    async fn ids(&self) -> Result<HashMap<Subject, DirectoryUserId>, StoreError> {
        let reading = self.store.reading().await?;
        let pairs = row::models(&reading.executor(), self.present(), |model| Ok((model.subject, model.id))).await?;
        Ok(pairs.into_iter().collect())
    }

    async fn all_groups(&self) -> Result<Vec<DirectoryGroup>, StoreError> {
        let all = super::Slice { skip: 0, count: DIRECTORY_GROUPS_MAX };
        Ok(self.groups(&[], all).await?.items)
    }

    async fn member_ids(&self, group: DirectoryGroupId) -> Result<BTreeSet<DirectoryUserId>, StoreError> {
        let reading = self.store.reading().await?;
        let select = directory_member::Entity::find()
            .select_only()
            .column(directory_member::Column::UserId)
            .filter(directory_member::Column::GroupId.eq(group));
        let ids = select.into_tuple::<DirectoryUserId>().all(&reading.executor()).await;
        Ok(ids.map_err(StoreError::read("directory_member"))?.into_iter().collect())
    }
}

impl Plan {
    fn new(known: Vec<DirectoryUser>, listed: &[NewDirectoryUser], (began, now): (Timestamp, Timestamp)) -> Self {
        let active = known.iter().filter(|user| !user.is_away()).count();
        let mut plan = Self { active, count: known.len(), ..Self::default() };
        let mut known: HashMap<Subject, DirectoryUser> =
            known.into_iter().map(|user| (user.subject.clone(), user)).collect();
        let mut seen = BTreeSet::new();
        for new in listed {
            // One that is listed twice is the first of the two.
            if !seen.insert(&new.subject) {
                continue;
            }
            match known.remove(&new.subject) {
                None => plan.begin(new.clone(), now),
                Some(old) if old.modified_at > began => {}
                Some(old) => plan.go_on(&old, new.clone(), now),
            }
        }
        let is_gone = |user: &DirectoryUser| user.state != DirectoryState::Removed && user.modified_at <= began;
        for gone in known.into_values().filter(is_gone) {
            plan.pulled.removed += 1;
            plan.change(&gone, removed(gone.clone(), now));
        }
        plan
    }

    fn begin(&mut self, new: NewDirectoryUser, now: Timestamp) {
        let user = new.at(now);
        self.pulled.added += 1;
        self.count += 1;
        self.is_told |= user.is_away();
        self.changes.add(DirectoryChange::of_user(None, &user));
        self.rows.push(user);
    }

    fn go_on(&mut self, old: &DirectoryUser, new: NewDirectoryUser, now: Timestamp) {
        let mut user = DirectoryUser {
            external_id: new.external_id,
            user_name: new.user_name,
            display_name: new.display_name,
            state: state(new.is_active),
            ..old.clone()
        };
        if user == *old {
            return;
        }
        user.modified_at = now;
        if user.is_away() != old.is_away() {
            user.since = now;
        }
        let is_again = old.state == DirectoryState::Removed;
        self.pulled.added += usize::from(is_again);
        self.pulled.changed += usize::from(!is_again);
        self.change(old, user);
    }

    fn change(&mut self, old: &DirectoryUser, new: DirectoryUser) {
        self.away += usize::from(new.is_away() && !old.is_away());
        self.is_told |= new.is_away() != old.is_away();
        self.changes.add(DirectoryChange::of_user(Some(old), &new));
        self.rows.push(new);
    }

    /// Refuses what cannot be kept, or is not believed.
    fn check(&self, expected: Leavers) -> Result<(), StoreError> {
        let count_max = DIRECTORY_USERS_MAX;
        if u64::try_from(self.count).unwrap_or(u64::MAX) > count_max {
            return Err(StoreError::DirectoryFull { what: "users", count_max });
        }
        let are_many = self.away > AWAY_FREE && self.away.saturating_mul(AWAY_SHARE) > self.active;
        let are_all = self.away > 1 && self.away == self.active;
        if expected == Leavers::Few && (are_many || are_all) {
            return Err(StoreError::DirectoryShrinks { away: self.away, active: self.active });
        }
        Ok(())
    }
}
