//! A breaker for each upstream: one that fails again and again is left alone for a while, so that nobody waits for it in vain and it can
//! come to itself. Then single calls try it, one at a time, until one is answered.
//!
//! | state | a call |
//! | --- | --- |
//! | closed | is made |
//! | open | is refused at once, and told when to come again |
//! | trying | is made if no other tries; otherwise it is refused |

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::error::UpstreamError;

/// For how long what happened counts.
const WINDOW: Duration = Duration::from_secs(30);
/// How many calls must have ended in that time before their share of failures says anything.
const CALLS_MIN: usize = 10;
/// So many failures in a row are enough, however few calls there are.
const FAILURES_IN_A_ROW: usize = 5;
/// Most that is remembered of a window.
const ENDS_MAX: usize = 256;
/// For how long an upstream is left alone first. The time doubles with each trial that fails.
const REST_FIRST: Duration = Duration::from_secs(5);
/// The longest such time.
const REST_MAX: Duration = Duration::from_mins(1);
/// A trial of which nothing was heard for so long keeps no other one waiting.
const TRIAL_MAX: Duration = Duration::from_mins(5);

/// Whether an upstream is called.
#[derive(Debug)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug)]
enum State {
    /// The ends of the calls in the window, the oldest first: when, and whether it failed.
    Closed(VecDeque<(Instant, bool)>),
    Open {
        until: Instant,
        rest: Duration,
    },
    Trying {
        since: Instant,
        rest: Duration,
    },
}

/// What became of a breaker, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// The upstream is left alone.
    Open,
    /// It is called again.
    Closed,
}

/// A call that may be made. What becomes of it is said, or it is nobody's fault.
pub(super) struct Pass {
    breaker: Arc<Breaker>,
    is_trial: bool,
    is_said: bool,
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("is_trial", &self.is_trial).finish_non_exhaustive()
    }
}

impl Breaker {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State::Closed(VecDeque::new()))))
    }

    /// A call may be made now, or after that time.
    pub(super) fn admit(self: &Arc<Self>, now: Instant) -> Result<Pass, Duration> {
        let mut state = self.state();
        let is_trial = match &*state {
            State::Closed(_) => false,
            State::Open { until, rest } if now >= *until => {
                *state = State::Trying { since: now, rest: *rest };
                true
            }
            State::Trying { since, rest } if now >= *since + TRIAL_MAX => {
                *state = State::Trying { since: now, rest: *rest };
                true
            }
            State::Open { until, .. } => return Err(until.duration_since(now)),
            State::Trying { .. } => return Err(REST_FIRST),
        };
        Ok(Pass { breaker: Arc::clone(self), is_trial, is_said: false })
    }

    /// Whether calls are made, and not only tried.
    pub(super) fn is_closed(&self) -> bool {
        matches!(*self.state(), State::Closed(_))
    }

    fn ended(&self, is_trial: bool, is_failure: bool, (now, jitter): (Instant, f64)) -> Option<Turned> {
        let mut state = self.state();
        match &mut *state {
            State::Closed(ends) => {
                ends.push_back((now, is_failure));
                while ends.len() > ENDS_MAX || ends.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
                    ends.pop_front();
                }
                if !is_failure || !is_too_bad(ends) {
                    return None;
                }
                *state = State::Open { until: now + jittered(REST_FIRST, jitter), rest: REST_FIRST };
                Some(Turned::Open)
            }
            State::Trying { rest, .. } if is_trial && is_failure => {
                let rest = (*rest * 2).min(REST_MAX);
                *state = State::Open { until: now + jittered(rest, jitter), rest };
                None
            }
            State::Trying { .. } if is_trial => {
                *state = State::Closed(VecDeque::new());
                Some(Turned::Closed)
            }
            // A call that was made before says nothing about now.
            State::Open { .. } | State::Trying { .. } => None,
        }
    }

    /// A trial that came to nothing: the next call is one.
    fn untried(&self, now: Instant) {
        let mut state = self.state();
        if let State::Trying { rest, .. } = *state {
            *state = State::Open { until: now, rest };
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether so much failed that the upstream is to be left alone.
fn is_too_bad(ends: &VecDeque<(Instant, bool)>) -> bool {
    let failed = ends.iter().filter(|(_, is_failure)| *is_failure).count();
    let in_a_row = ends.iter().rev().take_while(|(_, is_failure)| *is_failure).count();
    in_a_row >= FAILURES_IN_A_ROW || (ends.len() >= CALLS_MIN && failed * 2 >= ends.len())
}

/// A fifth more or less, so that the replicas do not all try at once: `jitter` is from 0 to 1.
fn jittered(rest: Duration, jitter: f64) -> Duration {
    rest.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0))
}

impl Pass {
    /// The call was answered; or it failed in a way that says that the upstream is not well.
    pub(super) fn end(mut self, is_failure: bool, now: Instant) -> Option<Turned> {
        self.is_said = true;
        self.breaker.ended(self.is_trial, is_failure, (now, random()))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.is_trial && !self.is_said {
            self.breaker.untried(Instant::now());
        }
    }
}

/// Anything from 0 to 1. Without randomness it is the middle.
fn random() -> f64 {
    let mut byte = [127];
    aws_lc_rs::rand::fill(&mut byte).ok();
    f64::from(byte[0]) / 255.0
}

/// Whether a failure says that the upstream is not well. What it refuses, or we do, says nothing about that.
pub(super) fn is_failure(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::Unreachable | UpstreamError::TimedOut | UpstreamError::BrokeOff | UpstreamError::NotMcp => true,
        UpstreamError::Status(status) => *status >= 500,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn call(breaker: &Arc<Breaker>, is_failure: bool, now: Instant) -> Result<Option<Turned>, Duration> {
        breaker.admit(now).map(|pass| pass.end(is_failure, now))
    }

    /// One that was opened at that moment.
    fn opened(now: Instant) -> Arc<Breaker> {
        let breaker = Breaker::new();
        for _ in 1..FAILURES_IN_A_ROW {
            assert_eq!(call(&breaker, true, now), Ok(None));
        }
        assert_eq!(call(&breaker, true, now), Ok(Some(Turned::Open)));
        breaker
    }

    #[test]
    fn a_few_failures_in_a_row_open_it_and_the_first_answer_closes_it() {
        let now = Instant::now();
        let breaker = opened(now);
        let wait = breaker.admit(now).unwrap_err();
        assert!((4 * SECOND..=6 * SECOND).contains(&wait), "{wait:?}");
        let later = now + 6 * SECOND;
        let trial = breaker.admit(later).unwrap();
        assert!(breaker.admit(later).is_err(), "one at a time");
        assert_eq!(trial.end(false, later), Some(Turned::Closed));
        assert_eq!(call(&breaker, true, later), Ok(None), "what was is forgotten");
    }

    #[test]
    fn each_trial_that_fails_makes_it_rest_longer_up_to_a_minute() {
        let mut now = Instant::now();
        let breaker = opened(now);
        for seconds in [10, 20, 40, 60, 60] {
            now += 100 * SECOND;
            assert_eq!(call(&breaker, true, now), Ok(None));
            let wait = breaker.admit(now).unwrap_err().as_secs_f64();
            assert!((f64::from(seconds) * 0.8..=f64::from(seconds) * 1.2).contains(&wait), "{seconds}: {wait}");
        }
    }

    #[test]
    fn half_of_many_calls_are_too_many_and_less_are_not() {
        let now = Instant::now();
        for (failing, opens) in [(2, true), (3, false)] {
            let breaker = Breaker::new();
            let turned: Vec<_> = (0..30).filter_map(|n| call(&breaker, n % failing == 0, now).ok().flatten()).collect();
            assert_eq!(!turned.is_empty(), opens, "one of {failing}");
        }
        // What was long ago does not count.
        let breaker = Breaker::new();
        for _ in 1..FAILURES_IN_A_ROW {
            assert_eq!(call(&breaker, true, now), Ok(None));
        }
        assert_eq!(call(&breaker, true, now + 2 * WINDOW), Ok(None));
    }

    #[test]
    fn a_trial_that_nobody_ends_keeps_no_other_from_trying() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + 6 * SECOND;
        drop(breaker.admit(later).unwrap());
        let lost = breaker.admit(Instant::now() + 6 * SECOND).unwrap();
        assert!(breaker.admit(Instant::now() + 7 * SECOND).is_err());
        assert!(breaker.admit(Instant::now() + 2 * TRIAL_MAX).is_ok());
        std::mem::forget(lost);
    }

    #[test]
    fn what_was_begun_before_says_nothing_about_a_trial() {
        let now = Instant::now();
        let breaker = Breaker::new();
        let early = breaker.admit(now).unwrap();
        for _ in 0..FAILURES_IN_A_ROW {
            call(&breaker, true, now).ok();
        }
        assert_eq!(early.end(false, now), None);
        assert!(breaker.admit(now).is_err(), "it stays open");
    }

    proptest! {
        #[test]
        fn an_upstream_that_always_answers_is_always_called(times in proptest::collection::vec(0_u64..100, 1..300)) {
            let (breaker, mut now) = (Breaker::new(), Instant::now());
            for seconds in times {
                now += Duration::from_millis(seconds * 100);
                prop_assert_eq!(call(&breaker, false, now), Ok(None));
            }
        }

        #[test]
        fn one_that_never_answers_is_tried_now_and_then_and_never_more_often(count in 1_usize..2_000) {
            let (breaker, start) = (Breaker::new(), Instant::now());
            let made = (0..count).filter(|n| {
                let now = start + Duration::from_millis(100) * u32::try_from(*n).unwrap();
                call(&breaker, true, now).is_ok()
            }).count();
            // Five at first, then after 5, 10, 20, 40 and 60 seconds, each a fifth sooner at the most.
            prop_assert!(made <= FAILURES_IN_A_ROW + 1 + count / 40, "{} of {}", made, count);
        }
    }
}
