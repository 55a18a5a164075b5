//! What one reach sees: the names by which it calls things, and its lists as bytes that are ready to send.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tenant_store::OfferKind;

use super::item::Item;
use super::snapshot::{Entry, Shelf, Snapshot};
use crate::policy::{Action, Reach, decide};

/// Which endpoint a caller looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Face {
    /// `/mcp`: all tenants of the caller, under exposed names.
    Aggregate,
    /// `/t/{tenant}/mcp`: one tenant, under the upstreams' own names where those do not collide.
    Tenant,
}

/// What a reach sees under the names by which it calls it. Equal reaches share one.
#[derive(Debug)]
pub struct View {
    /// The tools.
    pub tools: Part<Entry>,
    /// The prompts.
    pub prompts: Part<Item>,
    /// The resources.
    pub resources: Part<Item>,
    /// The templates of resources.
    pub templates: Part<Item>,
    /// The skills.
    pub skills: Part<Item>,
}

/// Everything of one kind.
#[derive(Debug)]
pub struct Part<E> {
    names: HashMap<Box<str>, Arc<E>>,
    order: Vec<Box<str>>,
    list: List,
}

/// Definitions, one behind the other with commas between them.
#[derive(Debug, Default)]
struct List {
    bytes: Bytes,
    /// Where each ends.
    ends: Vec<usize>,
    digest: ListDigest,
    /// Those of the pages that were asked for, by where they begin and end.
    pages: Mutex<HashMap<(usize, usize), ListDigest>>,
}

/// The SHA-256 of a whole list: another one is another list.
pub type ListDigest = [u8; 32];

/// A piece of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The definitions, with commas between them.
    pub bytes: Bytes,
    /// Their digest.
    pub digest: ListDigest,
    /// Its end, if there is more.
    pub end: Option<Place>,
}

/// A place in a list, behind that name.
pub type Place = Box<str>;

impl View {
    /// Asks policy about everything of every tenant in reach.
    pub(super) fn build(snapshot: &Snapshot, face: Face, reach: &Reach) -> Self {
        let shelves: Vec<&Shelf> = reach.accesses().iter().filter_map(|access| snapshot.shelf(access)).collect();
        let may_see = |entry: &&Arc<Entry>| decide(reach, Action::List, &entry.facts()).is_allowed();
        let entries =
            shelves.iter().flat_map(|shelf| shelf.entries()).filter(|entry| entry.is_on(face)).filter(may_see);
        let items = |kind: OfferKind| {
            let may_see = |item: &&Arc<Item>| decide(reach, Action::List, &item.facts()).is_allowed();
            let items =
                shelves.iter().flat_map(|shelf| shelf.items()).filter(|item| item.kind == kind && item.is_on(face));
            Part::of(items.filter(may_see), |item| item.shown(face))
        };
        Self {
            tools: Part::of(entries, |entry| entry.shown(face)),
            prompts: items(OfferKind::Prompt),
            resources: items(OfferKind::Resource),
            templates: items(OfferKind::Template),
            skills: items(OfferKind::Skill),
        }
    }

    /// Bytes that it keeps in memory, roughly.
    pub(super) fn weight(&self) -> usize {
        let items = [&self.prompts, &self.resources, &self.templates, &self.skills];
        items.into_iter().map(Part::weight).sum::<usize>() + self.tools.weight()
    }
}

impl List {
    /// The digest of a piece, which many callers are shown.
    fn digest_of(&self, piece: (usize, usize), bytes: &Bytes) -> ListDigest {
        if bytes.len() == self.bytes.len() {
            return self.digest;
        }
        let pages = || self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let known = pages().get(&piece).copied();
        known.unwrap_or_else(|| {
            let digest = Sha256::digest(bytes).into();
            pages().insert(piece, digest);
            digest
        })
    }
}

impl<E> Part<E> {
    fn of<'e>(all: impl Iterator<Item = &'e Arc<E>>, shown: impl Fn(&E) -> (&str, &str)) -> Self
    where
        E: 'e,
    {
        let all: Vec<&Arc<E>> = all.collect();
        let shared = names_twice(all.iter().map(|one| shown(one).0));
        let mut part = Self { names: HashMap::with_capacity(all.len()), order: Vec::new(), list: List::default() };
        let mut text = String::new();
        for one in &all {
            let (name, definition) = shown(one);
            if shared.contains(name) {
                tracing::error!(mcp.name = name, "two upstreams have one name: neither is listed nor used");
                continue;
            }
            part.names.insert(name.into(), Arc::clone(one));
            part.order.push(name.into());
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(definition);
            part.list.ends.push(text.len());
        }
        part.list.digest = Sha256::digest(&text).into();
        part.list.bytes = text.into();
        part
    }

    /// What this view calls `name`. A name that belongs to somebody else and a name that belongs to nobody are the same answer.
    pub fn get(&self, name: &str) -> Option<&Arc<E>> {
        self.names.get(name)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<E>> {
        self.names.values()
    }

    /// At most `count` definitions: the first, or those behind `after`. None where the name before that place is gone: what else is
    /// gone nobody knows then, and a page that begins somewhere leaves something out.
    pub fn page(&self, after: Option<&str>, count: usize) -> Option<Page> {
        let from = match after {
            None => 0,
            Some(after) => self.order.iter().position(|name| **name == *after)? + 1,
        };
        let to = self.order.len().min(from.saturating_add(count));
        let before = to.checked_sub(1).and_then(|last| self.order.get(last)).filter(|_| to < self.order.len());
        let end = before.cloned();
        let begin = from.checked_sub(1).and_then(|before| self.list.ends.get(before)).map_or(0, |end| end + 1);
        let stop = to.checked_sub(1).and_then(|last| self.list.ends.get(last)).copied().unwrap_or(0);
        let bytes = if begin < stop { self.list.bytes.slice(begin..stop) } else { Bytes::new() };
        Some(Page { digest: self.list.digest_of((begin, stop), &bytes), bytes, end })
    }

    /// What tells this list from another one, in place of its bytes.
    pub fn digest(&self) -> ListDigest {
        self.list.digest
    }

    /// The names, in the order of the list.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(AsRef::as_ref)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether nothing can be seen.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn weight(&self) -> usize {
        const ENTRY_BYTES: usize = 96;
        self.list.bytes.len() + self.names.len() * ENTRY_BYTES
    }
}

/// Names that more than one would have. There should be none; if there are, a call must not end at either's upstream.
fn names_twice<'n>(names: impl Iterator<Item = &'n str>) -> HashSet<&'n str> {
    let mut seen = HashSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(names: &[&'static str]) -> Part<&'static str> {
        let all: Vec<_> = names.iter().map(|name| Arc::new(*name)).collect();
        Part::of(all.iter(), |name| (name, name))
    }

    fn walk(part: &Part<&'static str>, count: usize) -> Vec<String> {
        let mut pages = Vec::new();
        let mut after: Option<Place> = None;
        loop {
            let page = part.page(after.as_deref(), count).unwrap();
            pages.push(String::from_utf8(page.bytes.to_vec()).unwrap());
            after = page.end;
            if after.is_none() {
                return pages;
            }
        }
    }

    #[test]
    fn pages_are_the_list_in_pieces() {
        let five = part(&["a", "bb", "c", "d", "e"]);
        assert_eq!(walk(&five, 2), ["a,bb", "c,d", "e"]);
        assert_eq!(walk(&five, 5), ["a,bb,c,d,e"]);
        assert_eq!(walk(&five, 100), ["a,bb,c,d,e"]);
        assert_eq!(walk(&part(&[]), 2), [""]);
        assert_eq!(five.page(Some("x"), 9), None, "behind what is gone there is no place");
        assert_eq!(five.page(Some("a"), 1).unwrap().bytes, "bb");
        let nothing = Page { bytes: Bytes::new(), digest: Sha256::digest("").into(), end: None };
        assert_eq!(five.page(Some("e"), 2), Some(nothing));
        for (after, page) in [(None, "a,bb"), (Some("bb"), "c,d"), (Some("bb"), "c,d")] {
            assert_eq!(five.page(after, 2).unwrap().digest, ListDigest::from(Sha256::digest(page)), "{page}");
        }
    }

    #[test]
    fn a_digest_tells_lists_apart() {
        assert_eq!(part(&["a", "b"]).digest(), part(&["a", "b"]).digest());
        assert_ne!(part(&["a", "b"]).digest(), part(&["b", "a"]).digest());
        assert_ne!(part(&[]).digest(), part(&["a"]).digest());
    }

    #[test]
    fn a_name_that_two_have_is_neithers() {
        let part = part(&["a", "b", "a"]);
        assert_eq!(walk(&part, 9), ["b"]);
        assert!(part.get("a").is_none() && part.get("b").is_some());
    }
}
