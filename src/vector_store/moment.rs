//! Moments, which filters compare texts of metadata with.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};

/// The longest text that is read as a moment, in bytes.
const TEXT_BYTES_MAX: usize = 64;

/// A moment, to the microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    microseconds: i64,
}

impl Moment {
    /// Reads a date or a time of RFC 3339. A time without an offset is in UTC, and a date stands for its first moment in UTC. Returns
    /// `None` for any other text. These forms mean the same to Qdrant.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // The parsers of parts take signs and blanks, which nobody writes into dates.
        let is_plain = text.len() <= TEXT_BYTES_MAX && text.starts_with(|c: char| c.is_ascii_digit());
        if !is_plain || text.as_bytes().get(4) != Some(&b'-') {
            return None;
        }
        if text.len() == "2026-11-30".len() {
            let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            return Some(Self { microseconds: date.and_time(NaiveTime::MIN).and_utc().timestamp_micros() });
        }
        if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
            return Some(Self { microseconds: moment.timestamp_micros() });
        }
        let local = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"];
        let local = local.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())?;
        Some(Self { microseconds: local.and_utc().timestamp_micros() })
    }

    /// Returns the moment at so many seconds and nanoseconds after the beginning of 1970; `None` if that is no time of a calendar.
    #[must_use]
    pub fn of_unix(seconds: i64, nanoseconds: i32) -> Option<Self> {
        let nanoseconds = u32::try_from(nanoseconds).ok().filter(|nanoseconds| *nanoseconds < 1_000_000_000)?;
        let moment = DateTime::from_timestamp(seconds, nanoseconds)?;
        Some(Self { microseconds: moment.timestamp_micros() })
    }

    /// Returns the microseconds since the beginning of 1970.
    #[must_use]
    pub fn microseconds(self) -> i64 {
        self.microseconds
    }

    /// Returns the moment at so many microseconds after the beginning of 1970.
    #[must_use]
    pub fn of_microseconds(microseconds: i64) -> Self {
        Self { microseconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_moments() {
        let rows = [
            ("a date", "1970-01-02", Some(86_400_000_000)),
            ("a time in UTC", "1970-01-01T00:00:01Z", Some(1_000_000)),
            ("an offset", "1970-01-01T01:00:00+01:00", Some(0)),
            ("a fraction", "1970-01-01T00:00:00.0000019Z", Some(1)),
            ("no offset", "1970-01-01T00:00:01", Some(1_000_000)),
            ("a blank", "1970-01-01 00:00:01", Some(1_000_000)),
            ("before 1970", "1969-12-31", Some(-86_400_000_000)),
            ("no date", "1970-02-30", None),
            ("short parts", "1970-1-2", None),
            ("a sign", "+1970-01-02", None),
            ("a word", "soon", None),
            ("nothing", "", None),
            ("more behind it", "1970-01-02x", None),
        ];
        for (row, text, expected) in rows {
            assert_eq!(Moment::parse(text).map(Moment::microseconds), expected, "{row}");
        }
        assert_eq!(Moment::of_unix(1, 2_999), Moment::parse("1970-01-01T00:00:01.000002Z"));
        assert_eq!(Moment::of_unix(1, -1), None);
        assert_eq!(Moment::of_unix(i64::MAX, 0), None);
    }
}
