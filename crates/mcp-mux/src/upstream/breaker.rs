//! A breaker for each upstream: one that fails again and again is left alone for a while, so that nobody waits for it in vain and it can
//! come to itself. Then single calls try it, one at a time, until one is answered. What one caller's calls bring about is not enough to
//! close an upstream to all: others' must have failed as well, nearly as often unless nobody was answered, or the upstream cannot be reached.
//!
//! | state | a call |
//! | --- | --- |
//! | closed | is made |
//! | open | is refused at once, and told when to come again |
//! | trying | is made if no other tries; otherwise it is refused |

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::error::UpstreamError;
use crate::caller::Principal;

/// For how long what happened counts.
const WINDOW: Duration = Duration::from_secs(30);
/// How many calls must have ended in that time before their share of failures says anything.
const CALLS_MIN: usize = 10;
/// So many failures in a row are enough, however few calls there are.
const FAILURES_IN_A_ROW: usize = 5;
/// Most that is remembered of a window.
const ENDS_MAX: usize = 256;
/// Most failures of one caller that are.
const FAILURES_OF_CALLER_MAX: usize = 32;
/// For how long an upstream is left alone first. The time doubles with each trial that does not reach it.
const REST_FIRST: Duration = Duration::from_secs(5);
/// The longest such time.
const REST_MAX: Duration = Duration::from_mins(1);
/// A trial of which nothing was heard for so long keeps no other one waiting.
const TRIAL_MAX: Duration = Duration::from_secs(30);

/// Whether an upstream is called.
#[derive(Debug)]
pub(super) struct Breaker {
    state: Mutex<State>,
    trials: AtomicU64,
}

#[derive(Debug)]
enum State {
    /// The ends of the calls in the window, the oldest first.
    Closed(VecDeque<End>),
    Open {
        until: Instant,
        rest: Duration,
        /// Whose trial failed, perhaps by what it asked for: others may try before that one does again.
        tried_by: Option<CallerMark>,
    },
    Trying {
        /// Which trial, so that one of which nothing was heard for long does not end another.
        number: u64,
        since: Instant,
        rest: Duration,
    },
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    at: Instant,
    failure: Option<Blame>,
}

/// Who may have brought a failure about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// No caller: there was no connection.
    Nobody,
    /// Perhaps the caller, by what it asked for.
    Caller(CallerMark),
}

/// Tells callers apart, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CallerMark(u64);

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
    caller: CallerMark,
    /// Its number, if it is a trial.
    trial: Option<u64>,
    /// Until then the upstream had not all of its time.
    patience: Instant,
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("trial", &self.trial).finish_non_exhaustive()
    }
}

impl CallerMark {
    pub(super) fn of(principal: &Principal) -> Self {
        static MARKS: LazyLock<RandomState> = LazyLock::new(RandomState::default);
        Self(MARKS.hash_one(principal))
    }
}

impl Breaker {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::Closed(VecDeque::new())), trials: AtomicU64::new(0) })
    }

    /// A call may be made now, or after that time. The upstream has all of its time to answer until `patience`.
    pub(super) fn admit(
        self: &Arc<Self>,
        caller: CallerMark,
        (now, patience): (Instant, Instant),
    ) -> Result<Pass, Duration> {
        let mut state = self.state();
        let rest = match &*state {
            State::Closed(_) => None,
            State::Open { until, rest, tried_by } if *tried_by == Some(caller) && now < *until + *rest => {
                return Err((*until + *rest).duration_since(now));
            }
            State::Open { until, rest, .. } if now >= *until => Some(*rest),
            State::Trying { since, rest, .. } if now >= *since + TRIAL_MAX => Some(*rest),
            State::Open { until, .. } => return Err(until.duration_since(now)),
            State::Trying { .. } => return Err(REST_FIRST),
        };
        let trial = rest.map(|rest| {
            let number = self.trials.fetch_add(1, Ordering::Relaxed);
            *state = State::Trying { number, since: now, rest };
            number
        });
        Ok(Pass { breaker: Arc::clone(self), caller, trial, patience })
    }

    /// Whether calls are made, and not only tried.
    pub(super) fn is_closed(&self) -> bool {
        matches!(*self.state(), State::Closed(_))
    }

    fn ended(&self, trial: Option<u64>, failure: Option<Blame>, (now, jitter): (Instant, f64)) -> Option<Turned> {
        let mut state = self.state();
        match &mut *state {
            State::Closed(ends) => {
                make_room(ends, failure);
                ends.push_back(End { at: now, failure });
                while ends.len() > ENDS_MAX || ends.front().is_some_and(|end| now.duration_since(end.at) > WINDOW) {
                    ends.pop_front();
                }
                if failure.is_none() || !is_too_bad(ends) {
                    return None;
                }
                let until = now + jittered(REST_FIRST, jitter);
                *state = State::Open { until, rest: REST_FIRST, tried_by: None };
                Some(Turned::Open)
            }
            State::Trying { number, rest, .. } if trial == Some(*number) => {
                let (rest, tried_by) = match failure {
                    None => {
                        *state = State::Closed(VecDeque::new());
                        return Some(Turned::Closed);
                    }
                    Some(Blame::Nobody) => ((*rest * 2).min(REST_MAX), None),
                    Some(Blame::Caller(caller)) => (*rest, Some(caller)),
                };
                *state = State::Open { until: now + jittered(rest, jitter), rest, tried_by };
                None
            }
            // A call that was made before says nothing about now.
            State::Open { .. } | State::Trying { .. } => None,
        }
    }

    /// A trial that came to nothing: the next call is one.
    fn untried(&self, trial: u64, now: Instant) {
        let mut state = self.state();
        if let State::Trying { number, rest, .. } = *state
            && number == trial
        {
            *state = State::Open { until: now, rest, tried_by: None };
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody's failures are so many that they are all that is remembered: the oldest of that caller's makes room.
fn make_room(ends: &mut VecDeque<End>, failure: Option<Blame>) {
    let is_same = |end: &End| matches!(failure, Some(Blame::Caller(_))) && end.failure == failure;
    if ends.iter().filter(|end| is_same(end)).count() >= FAILURES_OF_CALLER_MAX {
        ends.iter().position(is_same).map(|oldest| ends.remove(oldest));
    }
}

/// Whether so much failed that the upstream is to be left alone.
fn is_too_bad(ends: &VecDeque<End>) -> bool {
    let (failed, left_out, callers) = counted(ends.iter().rev().map_while(|end| end.failure));
    // Where nobody was answered at all, two who are not are enough.
    let is_silent = failed + left_out == ends.len() && callers > 1;
    if failed >= FAILURES_IN_A_ROW || (is_silent && ends.len() >= FAILURES_IN_A_ROW) {
        return true;
    }
    let (failed, left_out, _) = counted(ends.iter().filter_map(|end| end.failure));
    let all = ends.len() - left_out;
    all >= CALLS_MIN && failed * 2 >= all
}

/// How many failures count, how many do not, and of how many callers they are: of the caller with the most, one more counts than of all others
/// together.
fn counted(failures: impl Iterator<Item = Blame>) -> (usize, usize, usize) {
    let (mut all, mut of_callers) = (0_usize, HashMap::<CallerMark, usize, RandomState>::default());
    for failure in failures {
        all += 1;
        if let Blame::Caller(caller) = failure {
            *of_callers.entry(caller).or_default() += 1;
        }
    }
    let most = of_callers.values().max().copied().unwrap_or(0);
    let left_out = most.saturating_sub(all - most + 1);
    (all - left_out, left_out, of_callers.len())
}

/// A fifth more or less, so that the replicas do not all try at once: `jitter` is from 0 to 1.
fn jittered(rest: Duration, jitter: f64) -> Duration {
    rest.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0))
}

impl Pass {
    /// The upstream shows that it is there, and the call goes on: nobody waits for the end of a trial for that.
    pub(super) fn stirs(&mut self, now: Instant) -> Option<Turned> {
        let trial = self.trial.take()?;
        self.breaker.ended(Some(trial), None, (now, random()))
    }

    /// The call was answered, or failed. A failure that says nothing about the upstream counts as if the call had not been made.
    pub(super) fn end(mut self, failure: Option<&UpstreamError>, now: Instant) -> Option<Turned> {
        let blame = match failure {
            None => None,
            Some(error) => Some(self.blame(error, now)?),
        };
        self.breaker.ended(self.trial.take(), blame, (now, random()))
    }

    /// Who may have brought a failure about, if it says that the upstream is not well. What it refuses, or we do, does not say so, nor
    /// does an answer that we cannot read: it may only repeat what it was asked.
    fn blame(&self, error: &UpstreamError, now: Instant) -> Option<Blame> {
        match error {
            UpstreamError::Unreachable => Some(Blame::Nobody),
            // It was the caller's time that was short: its token's, say.
            UpstreamError::TimedOut if now < self.patience => None,
            UpstreamError::TimedOut | UpstreamError::BrokeOff | UpstreamError::Status(500..) => {
                Some(Blame::Caller(self.caller))
            }
            _ => None,
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(trial) = self.trial {
            self.breaker.untried(trial, Instant::now());
        }
    }
}

/// Anything from 0 to 1. Without randomness it is the middle.
fn random() -> f64 {
    let mut byte = [127];
    aws_lc_rs::rand::fill(&mut byte).ok();
    f64::from(byte[0]) / 255.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn admit(breaker: &Arc<Breaker>, now: Instant) -> Result<Pass, Duration> {
        breaker.admit(CallerMark(1), (now, now))
    }

    fn call(breaker: &Arc<Breaker>, is_failure: bool, now: Instant) -> Result<Option<Turned>, Duration> {
        admit(breaker, now).map(|pass| pass.end(is_failure.then_some(&UpstreamError::Unreachable), now))
    }

    fn call_of(breaker: &Arc<Breaker>, caller: u64, error: &UpstreamError, now: Instant) -> Option<Turned> {
        breaker.admit(CallerMark(caller), (now, now + SECOND)).unwrap().end(Some(error), now)
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
        let wait = admit(&breaker, now).unwrap_err();
        assert!((4 * SECOND..=6 * SECOND).contains(&wait), "{wait:?}");
        let later = now + 6 * SECOND;
        let trial = admit(&breaker, later).unwrap();
        assert!(admit(&breaker, later).is_err(), "one at a time");
        assert_eq!(trial.end(None, later), Some(Turned::Closed));
        assert_eq!(call(&breaker, true, later), Ok(None), "what was is forgotten");
    }

    #[test]
    fn each_trial_that_fails_makes_it_rest_longer_up_to_a_minute() {
        let mut now = Instant::now();
        let breaker = opened(now);
        for seconds in [10, 20, 40, 60, 60] {
            now += 100 * SECOND;
            assert_eq!(call(&breaker, true, now), Ok(None));
            let wait = admit(&breaker, now).unwrap_err().as_secs_f64();
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
        drop(admit(&breaker, later).unwrap());
        let lost = admit(&breaker, Instant::now() + 6 * SECOND).unwrap();
        assert!(admit(&breaker, Instant::now() + 7 * SECOND).is_err());
        assert!(admit(&breaker, Instant::now() + 2 * TRIAL_MAX).is_ok());
        std::mem::forget(lost);
    }

    #[test]
    fn what_was_begun_before_says_nothing_about_a_trial() {
        let now = Instant::now();
        let breaker = Breaker::new();
        let early = admit(&breaker, now).unwrap();
        for _ in 0..FAILURES_IN_A_ROW {
            call(&breaker, true, now).ok();
        }
        assert_eq!(early.end(None, now), None);
        assert!(admit(&breaker, now).is_err(), "it stays open");
    }

    #[test]
    fn one_caller_alone_closes_an_upstream_to_nobody() {
        let now = Instant::now();
        let breaker = Breaker::new();
        for error in [UpstreamError::Status(500), UpstreamError::BrokeOff].iter().cycle().take(100) {
            assert_eq!(call_of(&breaker, 1, error, now), None);
        }
        // What everybody could bring about, or nobody feels, does not count at all.
        for caller in 0..100 {
            for error in [UpstreamError::NotMcp, UpstreamError::Status(404), UpstreamError::TimedOut] {
                assert_eq!(call_of(&breaker, caller, &error, now), None, "{error:?}");
            }
        }
        assert_eq!(call(&breaker, false, now), Ok(None));
        for _ in 0..300 {
            assert_eq!(call_of(&breaker, 1, &UpstreamError::BrokeOff, now), None);
        }
        assert_eq!(call_of(&breaker, 2, &UpstreamError::Status(502), now), None, "once may be chance");
        assert_eq!(call_of(&breaker, 2, &UpstreamError::Status(502), now), Some(Turned::Open));
    }

    #[test]
    fn where_nobody_is_answered_two_who_are_not_are_enough() {
        let (now, error, breaker, alone) = (Instant::now(), UpstreamError::Status(503), Breaker::new(), Breaker::new());
        let turned = [1, 1, 1, 1, 2].map(|caller| call_of(&breaker, caller, &error, now));
        assert_eq!(turned, [None, None, None, None, Some(Turned::Open)]);
        assert_eq!(call(&alone, true, now), Ok(None));
        assert!((0..9).all(|_| call_of(&alone, 1, &error, now).is_none()), "perhaps its own doing");
    }

    #[test]
    fn of_who_fails_most_no_more_counts_than_of_all_others_and_one() {
        let of = |callers: &[u64]| {
            counted(callers.iter().map(|caller| match caller {
                0 => Blame::Nobody,
                caller => Blame::Caller(CallerMark(*caller)),
            }))
        };
        for (callers, expected) in [
            (&[][..], (0, 0, 0)),
            (&[1, 1, 1], (1, 2, 1)),
            (&[1, 1, 1, 1, 2], (3, 2, 2)),
            (&[1, 2, 1, 2, 1], (5, 0, 2)),
            (&[0, 0, 0, 1, 1], (5, 0, 1)),
            (&[0, 1, 1, 1, 1], (3, 2, 1)),
        ] {
            assert_eq!(of(callers), expected, "{callers:?}");
        }
    }

    #[test]
    fn one_caller_who_fails_often_does_not_hide_that_others_are_answered() {
        let (now, breaker) = (Instant::now(), Breaker::new());
        for other in 0..100 {
            let turned: Vec<_> = (0..4).filter_map(|_| call_of(&breaker, 1, &UpstreamError::BrokeOff, now)).collect();
            assert_eq!((other, turned), (other, Vec::new()));
            assert_eq!(call(&breaker, other % 10 == 9, now), Ok(None));
        }
    }

    #[test]
    fn whose_trial_failed_lets_others_try_first_and_makes_nobody_wait_longer() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + 6 * SECOND;
        let again = later + 7 * SECOND;
        assert_eq!(call_of(&breaker, 1, &UpstreamError::Status(500), later), None);
        assert!(breaker.admit(CallerMark(1), (again, again)).is_err(), "its turn comes later");
        let other = breaker.admit(CallerMark(2), (again, again)).unwrap();
        assert_eq!(other.end(None, again), Some(Turned::Closed));
    }

    #[test]
    fn a_trial_that_stirs_keeps_nobody_waiting_for_its_end() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + 6 * SECOND;
        let mut trial = admit(&breaker, later).unwrap();
        assert_eq!(trial.stirs(later), Some(Turned::Closed));
        assert_eq!(trial.stirs(later), None);
        assert!(admit(&breaker, later).is_ok());
        assert_eq!(trial.end(Some(&UpstreamError::BrokeOff), later), None);
    }

    #[test]
    fn a_trial_that_was_given_up_ends_no_other() {
        let now = Instant::now();
        let breaker = opened(now);
        let given_up = admit(&breaker, now + 6 * SECOND).unwrap();
        let later = now + 7 * SECOND + TRIAL_MAX;
        let trial = admit(&breaker, later).unwrap();
        drop(given_up);
        assert!(admit(&breaker, later).is_err(), "the other still runs");
        assert_eq!(trial.end(None, later), Some(Turned::Closed));
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
