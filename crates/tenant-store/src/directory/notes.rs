//! What was changed of a directory, noted where it is written, for whoever records it: names up to a bound, and how many there were.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{DirectoryGroup, DirectoryUser};
use crate::choice::DirectoryState;

/// How many names are noted, those of users, groups and members together.
pub const DIRECTORY_NAMED_MAX: usize = 100;

/// What is changed of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryThing {
    /// A user, by its subject.
    User,
    /// A group, by the name in grants.
    Group,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryAct {
    /// It is there now, or again.
    Created,
    /// The same, as somebody who is not let in.
    CreatedInactive,
    /// Something about it is another.
    Changed,
    /// It is let in again.
    Activated,
    /// It is let in no more.
    Deactivated,
    /// It is there no more; a user is let in no more.
    Removed,
}

/// Who came into a group, or left it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    /// How many.
    pub count: usize,
    /// The subjects of some.
    pub names: Vec<String>,
}

/// One thing that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryChange {
    /// What it is.
    pub thing: DirectoryThing,
    /// What became of it.
    pub act: DirectoryAct,
    /// Its name.
    pub name: String,
    /// What it was called before, if that was something else.
    pub was: Option<String>,
    /// Who came in.
    pub added: Moved,
    /// Who left.
    pub removed: Moved,
}

/// All that changed since it was asked last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectoryChanges {
    /// How many things.
    pub count: u64,
    /// Some of them, above all those who are let in no more.
    pub named: Vec<DirectoryChange>,
    /// Nobody waited for the end of the last change, or the database did not say that it lasts.
    pub is_unsure: bool,
}

/// Where a directory notes what it writes. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes(Arc<Mutex<DirectoryChanges>>);

impl DirectoryAct {
    /// Its name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::CreatedInactive => "createdInactive",
            Self::Changed => "changed",
            Self::Activated => "activated",
            Self::Deactivated => "deactivated",
            Self::Removed => "removed",
        }
    }

    /// Whether somebody is let in no more.
    fn takes_away(self) -> bool {
        matches!(self, Self::CreatedInactive | Self::Deactivated | Self::Removed)
    }
}

impl DirectoryThing {
    /// Its name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
        }
    }
}

impl DirectoryChange {
    /// A user became another, or is new.
    pub(super) fn of_user(old: Option<&DirectoryUser>, new: &DirectoryUser) -> Self {
        let known = old.filter(|old| old.state != DirectoryState::Removed);
        let act = match (known, new.state) {
            (_, DirectoryState::Removed) => DirectoryAct::Removed,
            (None, DirectoryState::Active) => DirectoryAct::Created,
            (None, DirectoryState::Inactive) => DirectoryAct::CreatedInactive,
            (Some(old), _) if old.is_away() == new.is_away() => DirectoryAct::Changed,
            (Some(_), DirectoryState::Active) => DirectoryAct::Activated,
            (Some(_), DirectoryState::Inactive) => DirectoryAct::Deactivated,
        };
        let was = known.filter(|old| old.subject != new.subject).map(|old| old.subject.to_string());
        Self { was, ..Self::of(DirectoryThing::User, act, new.subject.to_string()) }
    }

    /// Something became of a group.
    pub(super) fn of_group(act: DirectoryAct, group: &DirectoryGroup) -> Self {
        Self::of(DirectoryThing::Group, act, group.name.to_string())
    }

    fn of(thing: DirectoryThing, act: DirectoryAct, name: String) -> Self {
        Self { thing, act, name, was: None, added: Moved::default(), removed: Moved::default() }
    }

    fn names(&self) -> usize {
        1 + self.added.names.len() + self.removed.names.len()
    }
}

impl DirectoryChanges {
    /// One more. For whom there is no room is counted.
    pub(super) fn add(&mut self, mut change: DirectoryChange) {
        self.count += 1;
        let mut room = DIRECTORY_NAMED_MAX.saturating_sub(self.named.iter().map(DirectoryChange::names).sum());
        if room == 0 && change.act.takes_away() {
            let Some(at) = self.named.iter().rposition(|known| !known.act.takes_away()) else { return };
            room = self.named.remove(at).names();
        }
        if room == 0 {
            return;
        }
        change.removed.names.truncate(room - 1);
        change.added.names.truncate(room - 1 - change.removed.names.len());
        self.named.push(change);
    }

    /// These besides.
    fn extend(&mut self, other: Self) {
        let unnamed = other.count.saturating_sub(u64::try_from(other.named.len()).unwrap_or(u64::MAX));
        other.named.into_iter().for_each(|change| self.add(change));
        self.count += unnamed;
    }
}

impl Notes {
    /// These are about to last.
    pub(super) fn begin(&self, changes: DirectoryChanges) {
        let noted = &mut *self.noted();
        noted.extend(changes);
        noted.is_unsure = true;
    }

    /// The same of one.
    pub(super) fn begin_one(&self, change: DirectoryChange) {
        let mut changes = DirectoryChanges::default();
        changes.add(change);
        self.begin(changes);
    }

    /// They last.
    pub(super) fn settle(&self) {
        self.noted().is_unsure = false;
    }

    pub(super) fn take(&self) -> DirectoryChanges {
        mem::take(&mut *self.noted())
    }

    fn noted(&self) -> MutexGuard<'_, DirectoryChanges> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(act: DirectoryAct, name: &str) -> DirectoryChange {
        DirectoryChange::of(DirectoryThing::User, act, name.to_owned())
    }

    #[test]
    fn names_have_a_bound_and_who_is_taken_away_is_named_before_others() {
        let mut changes = DirectoryChanges::default();
        for at in 0..DIRECTORY_NAMED_MAX + 50 {
            changes.add(one(DirectoryAct::Created, &at.to_string()));
        }
        changes.add(one(DirectoryAct::Removed, "bob"));
        assert_eq!((changes.count, changes.named.len()), (151, DIRECTORY_NAMED_MAX));
        assert_eq!(changes.named.last().map(|last| last.name.as_str()), Some("bob"));
    }

    #[test]
    fn a_group_with_many_members_is_one_change_that_names_some_of_them() {
        let names = (0..500).map(|at: u32| at.to_string()).collect();
        let added = Moved { count: 500, names };
        let mut changes = DirectoryChanges::default();
        changes.add(DirectoryChange { added, ..one(DirectoryAct::Created, "staff") });
        changes.add(one(DirectoryAct::Created, "others"));
        assert_eq!((changes.count, changes.named.len()), (2, 1));
        assert_eq!((changes.named[0].added.count, changes.named[0].added.names.len()), (500, DIRECTORY_NAMED_MAX - 1));
    }
}
