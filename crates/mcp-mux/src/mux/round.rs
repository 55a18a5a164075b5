//! One round of questions to a legacy client: what it is asked in the stream of its call, what it answered, and what comes then.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::call::Request;
use super::flows::Found;
use super::input::Asked;
use super::questions::{Question, Questions};
use crate::caller::Caller;
use crate::upstream::{Answer, Streaming};

/// What the client is asked, and what comes then.
pub(super) struct Round {
    /// Requests that were not sent yet.
    unsent: VecDeque<String>,
    /// Under which key each answer goes to the upstream.
    open: VecDeque<(String, Question)>,
    /// What was answered, under its key.
    pub(super) answers: Vec<(String, Answer)>,
    pub(super) then: Then,
}

/// What is done with the answers.
pub(super) enum Then {
    /// A legacy upstream gets the answer to its request with this id, and goes on in its stream.
    Answer(Box<Streaming>, Box<RawValue>),
    /// A modern upstream is asked again.
    AskAgain(Arc<Request>, Option<Box<RawValue>>),
    /// The upstream is asked for the first time, if the user agrees to what was found in the arguments.
    Send(Arc<Request>, Box<Found>),
}

impl Round {
    /// Asks `caller`; none, if too many questions wait for its answers already.
    pub(super) fn open((questions, caller): (&Questions, &Caller), asked: Vec<Asked>, then: Then) -> Option<Self> {
        let mut round = Self { unsent: VecDeque::new(), open: VecDeque::new(), answers: Vec::new(), then };
        for Asked { key, request } in asked {
            let question = questions.open(caller)?;
            round.unsent.push_back(format!("{{\"jsonrpc\":\"2.0\",\"id\":\"{}\",{request}}}", question.id()));
            round.open.push_back((key, question));
        }
        Some(round)
    }

    /// The next request for the client; `None` when all are answered. Nothing is lost when it is not waited for to its end.
    pub(super) async fn next(&mut self) -> Option<String> {
        if let Some(request) = self.unsent.pop_front() {
            return Some(request);
        }
        while let Some((key, question)) = self.open.front_mut() {
            if let Some(answer) = question.answer().await {
                self.answers.push((mem::take(key), answer));
            }
            self.open.pop_front();
        }
        None
    }
}

/// The one answer, as a member of the message that a legacy upstream gets; none, if there is none.
pub(super) fn outcome(answers: Vec<(String, Answer)>) -> Option<String> {
    answers.into_iter().next().map(|(_, answer)| match answer {
        Answer::Result(result) => format!("\"result\":{}", result.get()),
        Answer::Error(error) => format!("\"error\":{}", error.get()),
    })
}

/// All answers for a modern upstream; none, if the client refused one.
pub(super) fn results(answers: Vec<(String, Answer)>) -> Option<Vec<(String, Box<RawValue>)>> {
    let result = |(key, answer)| match answer {
        Answer::Result(result) => Some((key, result)),
        Answer::Error(_) => None,
    };
    answers.into_iter().map(result).collect()
}
