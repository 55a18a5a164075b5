//! A directory that is asked: the provider's whole list takes the place of what was known, in one transaction.

use std::collections::{BTreeSet, HashMap};

use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait as _, DatabaseTransaction, EntityTrait as _, QueryFilter as _, QuerySelect as _};

use super::users::{model, removed, state, update};
use super::{
    DIRECTORY_GROUPS_MAX, DIRECTORY_MEMBERS_MAX, DIRECTORY_USERS_MAX, Directory, DirectoryGroup, DirectoryUser,
    GroupChange, MemberEdit, NewDirectoryGroup, NewDirectoryUser, STATEMENT_ROWS_MAX,
};
use crate::choice::DirectoryState;
use crate::clock::Timestamp;
use crate::entity::{directory_member, directory_user};
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

/// What the users of a directory become by a whole list of them.
#[derive(Debug, Default)]
struct Plan {
    insert: Vec<DirectoryUser>,
    update: Vec<DirectoryUser>,
    /// How many will be let in no more.
    away: usize,
    /// Somebody begins or ceases to be revoked.
    is_told: bool,
    pulled: Pulled,
}

impl Directory {
    /// Takes over the whole list of the provider's users: who is not in it is removed. Refused, and nothing changed, where a large part of
    /// them would be let in no more.
    pub async fn pull_users(&self, listed: Vec<NewDirectoryUser>) -> Result<Pulled, StoreError> {
        let count_max = DIRECTORY_USERS_MAX;
        if u64::try_from(listed.len()).unwrap_or(u64::MAX) > count_max {
            return Err(StoreError::DirectoryFull { what: "users", count_max });
        }
        let writing = self.store.writing().await?;
        let db = writing.executor();
        let known = row::models(db, self.of_issuer(), |model| Ok(super::users::parsed(model))).await?;
        let active = known.iter().filter(|user| !user.is_away()).count();
        let plan = Plan::new(known, listed, self.store.now());
        if plan.away > AWAY_FREE && plan.away.saturating_mul(AWAY_SHARE) > active {
            return Err(StoreError::DirectoryShrinks { away: plan.away, active });
        }
        for part in plan.insert.chunks(STATEMENT_ROWS_MAX) {
            let rows =
                part.iter().map(|user| directory_user::ActiveModel { issuer: Set(self.issuer.clone()), ..model(user) });
            let insert = directory_user::Entity::insert_many(rows).exec_without_returning(db);
            insert.await.map_err(StoreError::write("directory_user"))?;
        }
        for user in &plan.update {
            if user.state == DirectoryState::Removed {
                self.leave_groups(db, user.id).await?;
            }
            update(db, user).await?;
        }
        writing.finish(plan.is_told).await?;
        Ok(plan.pulled)
    }

    /// Takes over these groups, with their members, in place of all that were known.
    pub async fn pull_groups(&self, listed: Vec<ListedGroup>) -> Result<Pulled, StoreError> {
        let count_max = DIRECTORY_GROUPS_MAX;
        if u64::try_from(listed.len()).unwrap_or(u64::MAX) > count_max {
            return Err(StoreError::DirectoryFull { what: "groups", count_max });
        }
        let ids = self.ids().await?;
        let mut known: HashMap<Group, DirectoryGroup> =
            self.all_groups().await?.into_iter().map(|group| (group.name.clone(), group)).collect();
        let mut pulled = Pulled::default();
        for group in listed {
            let members: BTreeSet<DirectoryUserId> =
                group.members.iter().filter_map(|subject| ids.get(subject).copied()).collect();
            let count = u64::try_from(members.len()).unwrap_or(u64::MAX);
            if count > DIRECTORY_MEMBERS_MAX {
                let (what, count_max) = ("members in this group", DIRECTORY_MEMBERS_MAX);
                return Err(StoreError::DirectoryFull { what, count_max });
            }
            match known.remove(&group.name) {
                None => {
                    let ListedGroup { name, external_id, display_name, .. } = group;
                    let members = members.into_iter().collect();
                    self.add_group(NewDirectoryGroup { name, external_id, display_name, members }).await?;
                    pulled.added += 1;
                }
                Some(old) => pulled.changed += usize::from(self.pull_group(&old, group, &members).await?),
            }
        }
        for gone in known.into_values() {
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
            external_id: super::Edit::Keep,
            display_name: Some(listed.display_name),
            members: vec![
                MemberEdit::Remove(before.difference(members).copied().collect()),
                MemberEdit::Add(members.difference(&before).copied().collect()),
            ],
        };
        Ok(self.change_group(old.id, change).await?.is_some())
    }

    async fn leave_groups(&self, db: &DatabaseTransaction, user: DirectoryUserId) -> Result<(), StoreError> {
        let memberships = directory_member::Entity::delete_many().filter(directory_member::Column::UserId.eq(user));
        memberships.exec(db).await.map_err(StoreError::write("directory_member"))?;
        Ok(())
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
    fn new(known: Vec<DirectoryUser>, listed: Vec<NewDirectoryUser>, now: Timestamp) -> Self {
        let mut known: HashMap<Subject, DirectoryUser> =
            known.into_iter().map(|user| (user.subject.clone(), user)).collect();
        let mut plan = Self::default();
        let mut seen = BTreeSet::new();
        for new in listed {
            // One that is listed twice is the first of the two.
            if !seen.insert(new.subject.clone()) {
                continue;
            }
            match known.remove(&new.subject) {
                None => plan.begin(new, now),
                Some(old) => plan.go_on(&old, new, now),
            }
        }
        for gone in known.into_values().filter(|user| user.state != DirectoryState::Removed) {
            plan.away += usize::from(!gone.is_away());
            plan.is_told |= !gone.is_away();
            plan.pulled.removed += 1;
            plan.update.push(removed(gone, now));
        }
        plan
    }

    fn begin(&mut self, new: NewDirectoryUser, now: Timestamp) {
        let user = DirectoryUser {
            id: DirectoryUserId::new(now),
            subject: new.subject,
            external_id: new.external_id,
            user_name: new.user_name,
            display_name: new.display_name,
            state: state(new.is_active),
            since: now,
            created_at: now,
            modified_at: now,
        };
        self.pulled.added += 1;
        self.is_told |= user.is_away();
        self.insert.push(user);
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
            self.away += usize::from(user.is_away());
            self.is_told = true;
        }
        let is_again = old.state == DirectoryState::Removed;
        (self.pulled.added, self.pulled.changed) =
            (self.pulled.added + usize::from(is_again), self.pulled.changed + usize::from(!is_again));
        self.update.push(user);
    }
}
