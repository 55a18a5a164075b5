//! The calls that wait for something out of one stream. Each takes what is its own and nothing else; a caller who reads slowly holds
//! up nobody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{OwnedPermit, Receiver, Sender, channel};
use tokio::time::Instant;

use super::super::error::UpstreamError;
use super::super::event_stream::Event;

/// Most notifications that lie ready for a call; what comes while nobody takes them is dropped.
const NOTIFICATIONS_MAX: usize = 16;
/// Largest notification that is kept for a call, in bytes.
const NOTIFICATION_BYTES_MAX: usize = 64 * 1024;

/// What comes for a call.
pub(super) type Item = Result<Event, UpstreamError>;

/// The calls of one stream. There are no more of them than the upstream has places.
pub(super) struct Calls(Mutex<State>);

struct State {
    waiting: HashMap<u64, Waiting>,
    /// The stream is at its end, or is not to be trusted any more.
    takes_no_more: bool,
    /// When the last call came or went.
    used_at: Instant,
    /// When anything came.
    heard_at: Instant,
}

struct Waiting {
    /// Room for the answer, kept free of notifications.
    answer: OwnedPermit<Item>,
    notifications: Sender<Item>,
}

/// A call that waits. Who drops it takes the call back.
pub(super) struct Wait {
    calls: Arc<Calls>,
    id: u64,
    since: Instant,
    deadline: Instant,
    coming: Receiver<Item>,
}

impl Calls {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self(Mutex::new(State { waiting: HashMap::new(), takes_no_more: false, used_at: now, heard_at: now }))
    }

    /// A call with that id, until `deadline` at most. Where the stream has ended, the session is gone.
    pub(super) fn wait(self: &Arc<Self>, id: u64, deadline: Instant) -> Result<Wait, UpstreamError> {
        let mut state = self.state();
        if state.takes_no_more {
            return Err(UpstreamError::SessionGone);
        }
        let (notifications, coming) = channel(NOTIFICATIONS_MAX + 1);
        let answer = notifications.clone().try_reserve_owned().map_err(|_| UpstreamError::Setup)?;
        state.waiting.insert(id, Waiting { answer, notifications });
        let since = Instant::now();
        state.used_at = since;
        drop(state);
        Ok(Wait { calls: Arc::clone(self), id, since, deadline, coming })
    }

    /// Hands an answer to the call that waits for it; false if there is none.
    pub(super) fn answer(&self, id: u64, answer: Event) -> bool {
        let waiting = self.state().waiting.remove(&id);
        waiting.map(|waiting| waiting.answer.send(Ok(answer))).is_some()
    }

    /// Lays a notification ready for the call that it is about.
    pub(super) fn notify(&self, id: u64, notification: Event) {
        if notification.0.len() > NOTIFICATION_BYTES_MAX {
            return;
        }
        if let Some(waiting) = self.state().waiting.get(&id) {
            // A caller who does not take them misses some.
            drop(waiting.notifications.try_send(Ok(notification)));
        }
    }

    pub(super) fn note_heard(&self) {
        self.state().heard_at = Instant::now();
    }

    /// The next calls belong to another stream; those that wait may still be answered.
    pub(super) fn take_no_more(&self) {
        self.state().takes_no_more = true;
    }

    /// Nothing comes any more: whoever waits learns that from `error`.
    pub(super) fn end(&self, error: &UpstreamError) {
        let mut state = self.state();
        state.takes_no_more = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for (_, waiting) in waiting {
            waiting.answer.send(Err(error.clone()));
        }
    }

    /// For how long nobody has waited.
    pub(super) fn idle_for(&self) -> Duration {
        let state = self.state();
        if state.waiting.is_empty() { state.used_at.elapsed() } else { Duration::ZERO }
    }

    /// Takes no more calls, if nobody has waited for as long as `idle`. A call that comes at the same time is either waited for, or
    /// learns that the session is gone.
    pub(super) fn ends_after(&self, idle: Duration) -> bool {
        let mut state = self.state();
        let is_over = state.waiting.is_empty() && state.used_at.elapsed() >= idle;
        state.takes_no_more |= is_over;
        is_over
    }

    /// A call of which nothing was heard, nor of anything else, until its deadline: the stream may be cut without either end knowing.
    fn leave(&self, id: u64, since: Instant, deadline: Instant) {
        let mut state = self.state();
        let now = Instant::now();
        state.used_at = now;
        let is_unanswered = state.waiting.remove(&id).is_some();
        state.takes_no_more |= is_unanswered && now >= deadline && state.heard_at < since;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    /// The next thing that comes; nothing after the answer.
    pub(super) async fn next(&mut self) -> Option<Item> {
        self.coming.recv().await
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.calls.leave(self.id, self.since, self.deadline);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn event(text: &str) -> Event {
        Event(text.to_owned())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    fn come(wait: &mut Wait) -> Vec<String> {
        std::iter::from_fn(|| wait.next().now_or_never()?).map(|item| item.unwrap().0).collect()
    }

    #[test]
    fn each_call_gets_what_is_its_own() {
        let calls = Arc::new(Calls::new());
        let (mut first, mut second) = (calls.wait(1, soon()).unwrap(), calls.wait(2, soon()).unwrap());
        calls.notify(2, event("progress of 2"));
        calls.notify(3, event("progress of nobody"));
        assert!(calls.answer(2, event("answer to 2")) && calls.answer(1, event("answer to 1")));
        assert!(!calls.answer(1, event("once more")) && !calls.answer(3, event("to nobody")));
        assert_eq!(come(&mut first), ["answer to 1"]);
        assert_eq!(come(&mut second), ["progress of 2", "answer to 2"]);
    }

    #[test]
    fn who_takes_nothing_misses_notifications_and_never_the_answer() {
        let calls = Arc::new(Calls::new());
        let mut wait = calls.wait(1, soon()).unwrap();
        calls.notify(1, event(&"x".repeat(NOTIFICATION_BYTES_MAX + 1)));
        (0..100).for_each(|_| calls.notify(1, event("progress")));
        assert!(calls.answer(1, event("answer")));
        let come = come(&mut wait);
        assert_eq!((come.len(), come.last().map(String::as_str)), (NOTIFICATIONS_MAX + 1, Some("answer")));
    }

    #[test]
    fn a_stream_is_idle_when_nobody_waits_and_takes_no_call_at_its_end() {
        let calls = Arc::new(Calls::new());
        let wait = calls.wait(1, soon()).unwrap();
        assert!(!calls.ends_after(Duration::ZERO) && calls.idle_for() == Duration::ZERO);
        drop(wait);
        assert!(!calls.ends_after(Duration::from_mins(5)));
        assert!(calls.wait(2, soon()).is_ok());
        assert!(calls.ends_after(Duration::ZERO));
        assert_eq!(calls.wait(3, soon()).err(), Some(UpstreamError::SessionGone));
    }

    #[test]
    fn a_stream_that_stayed_silent_up_to_a_deadline_takes_no_more_calls() {
        for (heard, later, goes_on) in [(false, false, false), (true, false, true), (false, true, true)] {
            let calls = Arc::new(Calls::new());
            let wait = calls.wait(1, if later { soon() } else { Instant::now() }).unwrap();
            if heard {
                calls.note_heard();
            }
            drop(wait);
            assert_eq!(calls.wait(2, soon()).is_ok(), goes_on, "{heard} {later}");
        }
    }

    #[test]
    fn whoever_waits_at_the_end_learns_of_it() {
        let calls = Arc::new(Calls::new());
        let mut wait = calls.wait(1, soon()).unwrap();
        calls.end(&UpstreamError::TooLarge);
        assert_eq!(wait.next().now_or_never().flatten(), Some(Err(UpstreamError::TooLarge)));
        assert_eq!(wait.next().now_or_never().flatten(), None);
        assert_eq!(calls.wait(2, soon()).err(), Some(UpstreamError::SessionGone));
    }
}
