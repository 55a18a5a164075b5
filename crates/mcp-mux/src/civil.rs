//! Moments as calendars write them, in UTC.

use std::time::Duration;

use tenant_store::Timestamp;

const MILLIS_PER_SECOND: i64 = 1_000;
const SECONDS_PER_DAY: i64 = 24 * 3_600;
const MILLIS_PER_DAY: i64 = SECONDS_PER_DAY * MILLIS_PER_SECOND;
/// How long a day is, in UTC as computers count it.
const DAY: Duration = Duration::from_hours(24);
/// Days of the longest month.
const MONTH_DAYS_MAX: u32 = 31;

/// A day, or a month of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Period {
    /// Counted from the first of 1970.
    Day(i64),
    /// Year, and month from 1 to 12.
    Month(i64, i64),
}

impl Period {
    /// The day in which that moment lies.
    pub(crate) fn day(at: Timestamp) -> Self {
        Self::Day(at.as_millis().div_euclid(MILLIS_PER_DAY))
    }

    /// The month in which that moment lies.
    pub(crate) fn month(at: Timestamp) -> Self {
        let ([year, month, _], _) = civil(at);
        Self::Month(year, month)
    }

    /// `2015-08-30` or `2015-08`.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Day(day) => date(Timestamp::from_millis(day.saturating_mul(MILLIS_PER_DAY))),
            Self::Month(year, month) => format!("{year:04}-{month:02}"),
        }
    }
}

/// How long it is until the next day begins.
pub(crate) fn until_tomorrow(at: Timestamp) -> Duration {
    let millis = MILLIS_PER_DAY - at.as_millis().rem_euclid(MILLIS_PER_DAY);
    Duration::from_millis(millis.unsigned_abs())
}

/// How long it is until the next month begins.
pub(crate) fn until_next_month(at: Timestamp) -> Duration {
    let month = Period::month(at);
    let begins = (0..MONTH_DAYS_MAX).map(|days| until_tomorrow(at) + DAY * days);
    let mut other = begins.filter(|wait| Period::month(at.plus(*wait)) != month);
    other.next().unwrap_or(DAY * MONTH_DAYS_MAX)
}

/// `20150830T123600Z`.
pub(crate) fn basic(at: Timestamp) -> String {
    let ([year, month, day], [hour, minute, second]) = civil(at);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// `2015-08-30T12:36:00.250Z` (RFC 3339).
pub(crate) fn rfc3339(at: Timestamp) -> String {
    let ([year, month, day], [hour, minute, second]) = civil(at);
    let millis = at.as_millis().rem_euclid(MILLIS_PER_SECOND);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// `2015-08-30`.
pub(crate) fn date(at: Timestamp) -> String {
    let ([year, month, day], _) = civil(at);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Year, month and day; hour, minute and second. By the calendar arithmetic of civil days counted from the first of March.
fn civil(at: Timestamp) -> ([i64; 3], [i64; 3]) {
    let seconds = at.as_millis().div_euclid(MILLIS_PER_SECOND);
    let (days, second) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
    let since_march = days + 719_468;
    let (era, day) = (since_march.div_euclid(146_097), since_march.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    ([era * 400 + year + carry, month, day], [second / 3_600, second / 60 % 60, second % 60])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_calendars_do() {
        for (millis, written) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_709_209_845_250, "2024-02-29T12:30:45.250Z"),
            (1_735_689_599_999, "2024-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(Timestamp::from_millis(millis)), written);
            assert_eq!(Some(date(Timestamp::from_millis(millis)).as_str()), written.split('T').next());
        }
        assert_eq!(basic(Timestamp::from_millis(1_440_938_160_000)), "20150830T123600Z");
    }

    #[test]
    fn a_day_and_a_month_end_where_the_next_ones_begin() {
        for (millis, day, month, next) in [
            (0, "1970-01-01", "1970-01", "1970-02-01T00:00:00.000Z"),
            (1_709_209_845_250, "2024-02-29", "2024-02", "2024-03-01T00:00:00.000Z"),
            (1_735_689_599_999, "2024-12-31", "2024-12", "2025-01-01T00:00:00.000Z"),
            (1_735_689_600_000, "2025-01-01", "2025-01", "2025-02-01T00:00:00.000Z"),
        ] {
            let at = Timestamp::from_millis(millis);
            assert_eq!((Period::day(at).text().as_str(), Period::month(at).text().as_str()), (day, month));
            assert_eq!(rfc3339(at.plus(until_next_month(at))), next);
            let tomorrow = at.plus(until_tomorrow(at));
            assert_eq!(tomorrow.as_millis() % MILLIS_PER_DAY, 0);
            assert_ne!(Period::day(tomorrow), Period::day(at));
            assert_eq!(Period::day(Timestamp::from_millis(tomorrow.as_millis() - 1)), Period::day(at));
        }
    }
}
