//! Questions to legacy clients: requests in the stream of a call, whose answers come as messages of their own. A question is its asker's
//! alone: it has an id that nobody can guess, and whoever answers must be the principal, through the client, that was asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::Mux;
use crate::caller::{Caller, Principal, Quota, Share};
use crate::upstream::Answer;

/// Most questions of one principal that wait for their answers.
const QUESTIONS_MAX: usize = 32;

/// All that wait here. Their calls run here too, so that an answer elsewhere is none.
#[derive(Debug, Clone)]
pub(super) struct Questions {
    open: Arc<Mutex<HashMap<String, Open>>>,
    quota: Quota,
}

#[derive(Debug)]
struct Open {
    principal: Principal,
    client: Option<Arc<str>>,
    answer: oneshot::Sender<Answer>,
}

/// A question that was asked, until it is dropped.
#[derive(Debug)]
pub(super) struct Question {
    id: String,
    questions: Questions,
    answer: oneshot::Receiver<Answer>,
    _share: Share,
}

impl Mux {
    /// Takes the answer of `caller` to a question of ours; `false`, if no such question of this caller's waits here.
    pub fn take_answer(&self, caller: &Caller, id: &str, answer: Answer) -> bool {
        let mut open = self.questions.lock();
        let is_asked = |open: &Open| open.principal == caller.principal && open.client == caller.client;
        if !open.get(id).is_some_and(is_asked) {
            return false;
        }
        // Whoever asked may be gone in this moment.
        open.remove(id).is_some_and(|open| open.answer.send(answer).is_ok())
    }
}

impl Questions {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { open: Arc::default(), quota: Quota::new(QUESTIONS_MAX) }
    }

    /// A question to `caller`; none, if too many wait already.
    pub(super) fn open(&self, caller: &Caller) -> Option<Question> {
        let share = self.quota.take(&caller.principal)?;
        let (sender, answer) = oneshot::channel();
        let id = Uuid::new_v4().to_string();
        let (principal, client) = (caller.principal.clone(), caller.client.clone());
        self.lock().insert(id.clone(), Open { principal, client, answer: sender });
        Some(Question { id, questions: self.clone(), answer, _share: share })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Question {
    /// The id of the request.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Waits for the answer. It comes once.
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.questions.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_too_many_questions_open_and_what_is_dropped_is_forgotten() {
        let (questions, alice, bob) = (Questions::new(), Caller::of_test("alice", None), Caller::of_test("bob", None));
        let mut open: Vec<_> = (0..QUESTIONS_MAX).map(|_| questions.open(&alice).unwrap()).collect();
        assert!(questions.open(&alice).is_none());
        assert!(questions.open(&bob).is_some());
        open.pop();
        assert!(questions.open(&alice).is_some());
        drop(open);
        assert!(questions.lock().is_empty());
    }
}
