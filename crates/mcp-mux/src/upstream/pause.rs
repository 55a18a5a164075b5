//! The wait between two streams of the same thing.

use std::time::Duration;

use tokio::time::Instant;

/// A stream that lived so long lasted: proxies cut what is idle for a minute.
const LASTING: Duration = Duration::from_secs(30);

/// A wait that doubles while streams do not last.
#[derive(Debug)]
pub(crate) struct Pause {
    /// The shortest and the longest.
    bounds: [Duration; 2],
    wait: Duration,
    until: Instant,
}

impl Pause {
    /// None yet, between these bounds later.
    pub(crate) fn new(bounds: [Duration; 2], now: Instant) -> Self {
        Self { bounds, wait: bounds[0], until: now }
    }

    /// When it ends.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// Begins behind a stream that lived so long. Who refuses to be listened to, or keeps breaking off, is asked ever more seldom.
    pub(crate) fn begin(&mut self, lived: Duration, now: Instant) {
        let [shortest, longest] = self.bounds;
        if lived >= LASTING {
            self.wait = shortest;
        }
        self.until = now + self.wait;
        self.wait = self.wait.saturating_mul(2).min(longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_refuses_to_be_listened_to_is_asked_ever_more_seldom() {
        let (now, longest) = (Instant::now(), Duration::from_mins(10));
        let mut pause = Pause::new([Duration::from_secs(10), longest], now);
        assert_eq!(pause.until(), now);
        let mut waits = Vec::new();
        for lived in [Duration::ZERO, Duration::ZERO, Duration::from_secs(1), LASTING, Duration::ZERO] {
            pause.begin(lived, now);
            waits.push(pause.until().duration_since(now).as_secs());
        }
        assert_eq!(waits, [10, 20, 40, 10, 20]);
        for _ in 0..50 {
            pause.begin(Duration::ZERO, now);
        }
        assert_eq!(pause.until(), now + longest);
    }
}
