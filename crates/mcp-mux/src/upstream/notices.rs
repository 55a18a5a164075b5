//! What an upstream tells in a session without being asked: that a list, or a resource, is another one by now.
//!
//! Whoever listens hears of each resource once, however often it changed before it was heard of. So who reads slowly holds up nobody,
//! and an upstream that never stops telling fills no memory.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::json::{self, Members};

/// Longest URI of a resource that is heard of, in bytes; nothing longer is ever listed.
const URI_BYTES_MAX: usize = 4 * 1024;
/// How many resources one listener may have yet to hear of. More than it subscribed to, for parts of them are told of too.
const UNHEARD_MAX: usize = 256;

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It is listened to from now on, or again; what changed before is unknown.
    Begun,
    /// A list is another one.
    Lists,
    /// The resource with this URI of the upstream's own is another one, or one below a resource that was subscribed to.
    Updated(String),
}

/// Where all who listen to one session hear of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Notices(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    listeners: HashMap<u64, Unheard>,
    next: u64,
    is_over: bool,
}

/// What one of them has yet to hear of.
#[derive(Debug, Default)]
struct Unheard {
    /// What it listens for, with all that lies below.
    wanted: Vec<String>,
    /// It was not listened for a while, or too much was told: anything may have changed.
    again: bool,
    lists: bool,
    updated: BTreeSet<String>,
    some: Arc<Notify>,
}

/// One who listens, until it is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    notices: Notices,
    id: u64,
    some: Arc<Notify>,
}

impl Notice {
    /// What a notification tells, if it is one of those.
    pub(super) fn of(method: &str, message: &Members<'_>) -> Option<Self> {
        match method {
            "notifications/resources/updated" => {
                let uri = json::member(message.get("params"), "uri").and_then(json::as_str)?;
                (uri.len() <= URI_BYTES_MAX).then(|| Self::Updated(uri.into_owned()))
            }
            method if method.ends_with("/list_changed") => Some(Self::Lists),
            _ => None,
        }
    }
}

impl Notices {
    /// One more who listens for changed lists, and for these resources.
    pub(super) fn listen(&self, uris: &[String]) -> Listener {
        let mut state = self.lock();
        let (id, some) = (state.next, Arc::new(Notify::new()));
        state.next += 1;
        state.listeners.insert(id, Unheard { some: Arc::clone(&some), wanted: uris.to_vec(), ..Unheard::default() });
        drop(state);
        Listener { notices: self.clone(), id, some }
    }

    /// Whether nobody listens.
    pub(super) fn is_unheard(&self) -> bool {
        self.lock().listeners.is_empty()
    }

    /// Tells all of them.
    pub(super) fn tell(&self, notice: &Notice) {
        for unheard in self.lock().listeners.values_mut() {
            match notice {
                Notice::Begun => unheard.again = true,
                Notice::Lists => unheard.lists = true,
                Notice::Updated(uri) => unheard.note(uri),
            }
            unheard.some.notify_one();
        }
    }

    /// Nothing is told any more.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        state.listeners.values().for_each(|unheard| unheard.some.notify_one());
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unheard {
    fn note(&mut self, uri: &str) {
        if !self.wanted.iter().any(|wanted| wanted == uri || is_part(uri, wanted)) {
            return;
        }
        if self.updated.len() < UNHEARD_MAX {
            self.updated.insert(uri.to_owned());
        } else {
            self.updated.clear();
            self.again = true;
        }
    }
}

/// Whether the resource `own` lies below the resource `of` (MCP 2025-11-25 `notifications/resources/updated`: a part of what was
/// subscribed to is told of too).
pub(crate) fn is_part(own: &str, of: &str) -> bool {
    let rest = own.strip_prefix(of).filter(|rest| !rest.is_empty());
    rest.is_some_and(|rest| of.ends_with('/') || rest.starts_with(['/', '?', '#']))
}

impl Listener {
    /// What is told next; nothing at the end. Nothing is lost when it is not waited for to its end.
    pub(super) async fn next(&self) -> Option<Notice> {
        loop {
            {
                let mut state = self.notices.lock();
                let is_over = state.is_over;
                let unheard = state.listeners.get_mut(&self.id)?;
                if std::mem::take(&mut unheard.again) {
                    return Some(Notice::Begun);
                }
                if std::mem::take(&mut unheard.lists) {
                    return Some(Notice::Lists);
                }
                if let Some(uri) = unheard.updated.pop_first() {
                    return Some(Notice::Updated(uri));
                }
                if is_over {
                    return None;
                }
            }
            self.some.notified().await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.notices.lock().listeners.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn updated(uri: &str) -> Notice {
        Notice::Updated(uri.to_owned())
    }

    fn heard(listener: &Listener) -> Vec<Notice> {
        std::iter::from_fn(|| listener.next().now_or_never()?).collect()
    }

    #[test]
    fn everybody_hears_of_its_own_once_until_the_end() {
        let notices = Notices::default();
        let [both, one] =
            [&["a:1", "b:1"][..], &["b:1"]].map(|uris| uris.iter().map(|uri| (*uri).to_owned()).collect());
        let (first, second): (Vec<String>, Vec<String>) = (both, one);
        let (first, second) = (notices.listen(&first), notices.listen(&second));
        for notice in [updated("b:1"), updated("a:1/part"), updated("c:1"), Notice::Lists, updated("b:1")] {
            notices.tell(&notice);
        }
        assert_eq!(heard(&first), [Notice::Lists, updated("a:1/part"), updated("b:1")]);
        notices.tell(&updated("b:1"));
        notices.tell(&Notice::Begun);
        assert_eq!(heard(&first), [Notice::Begun, updated("b:1")], "it changed again");
        notices.end();
        assert_eq!(first.next().now_or_never(), Some(None));
        assert_eq!(heard(&second), [Notice::Begun, Notice::Lists, updated("b:1")], "late, and nothing is lost");
        drop((first, second));
        assert!(notices.is_unheard());
    }

    #[test]
    fn who_listens_to_nothing_fills_no_memory_and_learns_that_anything_may_have_changed() {
        let notices = Notices::default();
        let listener = notices.listen(&["a:/".to_owned()]);
        (0..=UNHEARD_MAX).for_each(|number| notices.tell(&updated(&format!("a:/{number}"))));
        assert_eq!(heard(&listener), [Notice::Begun]);
    }

    #[test]
    fn parts_lie_below_what_they_are_parts_of() {
        for (own, of, is_it) in [
            ("note://one/a", "note://one", true),
            ("note://one#a", "note://one", true),
            ("note://one?a", "note://one", true),
            ("file:///srv/a", "file:///srv/", true),
            ("note://one", "note://one", false),
            ("file:///srv/", "file:///srv/", false),
            ("note://one-and-only", "note://one", false),
            ("note://two/a", "note://one", false),
        ] {
            assert_eq!(is_part(own, of), is_it, "{own} {of}");
        }
    }

    #[test]
    fn only_what_tells_of_a_change_is_a_notice() {
        let of = |text: &str| {
            let message = Members::parse(text).unwrap();
            Notice::of(&message.get_str("method").unwrap(), &message)
        };
        let told = r#"{"method":"notifications/resources/updated","params":{"uri":"a:1","title":"x"}}"#;
        assert_eq!(of(told), Some(updated("a:1")));
        assert_eq!(of(&told.replace("a:1", &"x".repeat(URI_BYTES_MAX + 1))), None);
        assert_eq!(of(r#"{"method":"notifications/resources/updated"}"#), None);
        assert_eq!(of(r#"{"method":"notifications/tools/list_changed"}"#), Some(Notice::Lists));
        assert_eq!(of(r#"{"method":"notifications/message","params":{"uri":"a:1"}}"#), None);
    }
}
