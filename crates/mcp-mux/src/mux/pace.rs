//! How much an upstream says in one call, and how fast that is read: whoever floods is waited with, and takes no time from others.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How many messages there may be in one call, however little is in them.
const MESSAGES_MAX: usize = 20_000;
/// How many are read as fast as they come.
const BURST: usize = 500;
/// How many at a time after that, and how long is waited then.
const PORTION: usize = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// How much there was.
#[derive(Debug, Default)]
pub(super) struct Pace {
    messages: usize,
    resumes_at: Option<Instant>,
}

impl Pace {
    /// Counts a message. `false` if there are too many.
    pub(super) fn count(&mut self, now: Instant) -> bool {
        self.messages += 1;
        let is_portion = self.messages >= BURST && self.messages.is_multiple_of(PORTION);
        self.resumes_at = is_portion.then(|| now + PAUSE);
        self.messages <= MESSAGES_MAX
    }

    /// When the next one may be read.
    pub(super) fn resumes_at(&self) -> Option<Instant> {
        self.resumes_at
    }
}

/// Waits until then, if that is to be waited for.
pub(super) async fn wait_until(moment: Option<Instant>) {
    if let Some(moment) = moment {
        sleep_until(moment).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_says_is_read_at_once_then_in_portions_and_then_no_more() {
        let (mut pace, now, mut waited) = (Pace::default(), Instant::now(), Duration::ZERO);
        for number in 1..=MESSAGES_MAX {
            assert!(pace.count(now));
            let wait = pace.resumes_at().map_or(Duration::ZERO, |resumes_at| resumes_at - now);
            assert!(wait.is_zero() || number >= BURST, "{number}");
            waited += wait;
        }
        assert_eq!(waited, PAUSE * 196);
        assert!(!pace.count(now));
    }
}
