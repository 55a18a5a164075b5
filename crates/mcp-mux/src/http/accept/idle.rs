//! Whether anything runs over a connection: a request from when its headers are there until the last of its answer is handed on or given up.
//! An answer that is there as a whole only waits for its client, and not for ever: where such answers have waited for long, the connection
//! takes no more requests, and ends with the last of those that are still worked on.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use http::{Request, Response};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tower::Service;

use crate::http::holding::holding;

/// For how long there may be whole answers that their clients should take.
const STALLED_MAX: Duration = Duration::from_mins(15);

/// The requests that run over one connection. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Running(watch::Sender<Count>);

/// What runs: how many requests, and of those whose whole answer waits for the client, since when, the oldest first.
#[derive(Debug, Clone, Default)]
struct Count {
    all: usize,
    waiting: BTreeMap<u64, Instant>,
    number: u64,
}

/// One of them, until it is dropped.
#[derive(Debug)]
struct Share {
    running: watch::Sender<Count>,
    /// Which of those that wait.
    waits: Option<u64>,
}

impl Count {
    fn oldest(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(_, since)| *since)
    }

    /// If all are answered.
    fn newest_of_all(&self) -> Option<Instant> {
        let newest = self.waiting.last_key_value().filter(|_| self.waiting.len() == self.all);
        newest.map(|(_, since)| *since)
    }
}

impl Running {
    /// None yet.
    pub(super) fn none() -> Self {
        Self(watch::Sender::default())
    }

    /// Those that `inner` answers.
    pub(super) fn counting<S>(&self, inner: S) -> Counting<S> {
        Counting { inner, running: self.clone() }
    }

    /// Waits until none has run for so long, or a whole answer has waited for long.
    pub(super) async fn none_for(&self, time: Duration) {
        self.until(time, Count::oldest).await;
    }

    /// The same, but that every one that runs is such an answer.
    pub(super) async fn none_to_wait_for(&self, time: Duration) {
        self.until(time, Count::newest_of_all).await;
    }

    async fn until(&self, time: Duration, waits_since: fn(&Count) -> Option<Instant>) {
        let mut running = self.0.subscribe();
        loop {
            let (all, since) = {
                let count = running.borrow_and_update();
                (count.all, waits_since(&count))
            };
            let patience = match since {
                _ if all == 0 => time,
                Some(since) => (since + STALLED_MAX).duration_since(Instant::now()),
                None => STALLED_MAX,
            };
            // We hold a sender, so it cannot fail.
            let is_over = timeout(patience, running.changed()).await.is_err();
            if is_over && (all == 0 || since.is_some()) {
                return;
            }
        }
    }

    fn begin(&self) -> Share {
        self.0.send_modify(|count| count.all += 1);
        Share { running: self.0.clone(), waits: None }
    }
}

impl Share {
    /// All of the answer is there.
    fn answered(mut self) -> Self {
        self.running.send_modify(|count| {
            count.number += 1;
            count.waiting.insert(count.number, Instant::now());
            self.waits = Some(count.number);
        });
        self
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.running.send_modify(|count| {
            count.all -= 1;
            if let Some(number) = self.waits {
                count.waiting.remove(&number);
            }
        });
    }
}

/// Answers requests and counts those that run.
#[derive(Debug, Clone)]
pub(super) struct Counting<S> {
    inner: S,
    running: Running,
}

impl<S, R> Service<Request<R>> for Counting<S>
where
    S: Service<Request<R>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let share = self.running.begin();
        let answered = self.inner.call(request);
        Box::pin(async move {
            Ok(answered.await?.map(|body| {
                let share = if body.size_hint().exact().is_some() { share.answered() } else { share };
                holding(body, share)
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_runs_is_not_idle_however_long_it_takes() {
        let (running, time) = (Running::none(), Duration::from_mins(1));
        let share = running.begin();
        let mut idle = pin!(running.none_for(time));
        assert!(timeout(time * 100, &mut idle).await.is_err());
        drop(share);
        assert!(timeout(time / 2, &mut idle).await.is_err());
        drop(running.begin());
        assert!(timeout(time * 3 / 4, &mut idle).await.is_err(), "it ran in between");
        assert!(timeout(time, &mut idle).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_of_a_whole_answer_keeps_no_place_for_ever() {
        let (running, time) = (Running::none(), Duration::from_mins(1));
        let works = running.begin();
        let _waits = running.begin().answered();
        let mut idle = pin!(running.none_for(time));
        assert!(timeout(STALLED_MAX * 9 / 10, &mut idle).await.is_err());
        let late = running.begin().answered();
        assert!(timeout(STALLED_MAX / 5, &mut idle).await.is_ok(), "whatever else goes on");
        let mut end = pin!(running.none_to_wait_for(time));
        assert!(timeout(STALLED_MAX * 9, &mut end).await.is_err(), "another one is not answered yet");
        let works = works.answered();
        drop(late);
        assert!(timeout(STALLED_MAX * 9 / 10, &mut end).await.is_err(), "nor has it had its time");
        assert!(timeout(STALLED_MAX / 5, &mut end).await.is_ok());
        drop(works);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_are_taken_keep_their_connection() {
        let (running, time) = (Running::none(), Duration::from_mins(1));
        let mut idle = pin!(running.none_for(time));
        let mut before = running.begin().answered();
        for _ in 0..100 {
            let waits = running.begin().answered();
            assert!(timeout(STALLED_MAX / 3, &mut idle).await.is_err());
            drop(std::mem::replace(&mut before, waits));
        }
        drop(before);
        assert!(timeout(time * 2, &mut idle).await.is_ok());
    }
}
