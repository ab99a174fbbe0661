//! Timestamps and durations as Go reads, writes and counts them.

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Timelike};

use super::number;

const NANOSECONDS: i64 = 1_000_000_000;
/// The first second of the year 1, counted from 1970.
const FIRST_SECOND: i64 = -62_135_596_800;
/// The last second of the year 9999, counted from 1970.
const LAST_SECOND: i64 = 253_402_300_799;

/// A point in time, with the offset from UTC that it was written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp {
    /// Seconds since 1970, in UTC.
    seconds: i64,
    nanoseconds: i64,
    offset_seconds: i32,
}

/// A part of a date or of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DatePart {
    FullYear,
    Month,
    /// The day of the month, from 1.
    Date,
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

impl DatePart {
    pub(super) fn of_method(name: &str) -> Option<Self> {
        Some(match name {
            "getFullYear" => Self::FullYear,
            "getMonth" => Self::Month,
            "getDate" => Self::Date,
            "getDayOfMonth" => Self::DayOfMonth,
            "getDayOfWeek" => Self::DayOfWeek,
            "getDayOfYear" => Self::DayOfYear,
            "getHours" => Self::Hours,
            "getMinutes" => Self::Minutes,
            "getSeconds" => Self::Seconds,
            "getMilliseconds" => Self::Milliseconds,
            _ => return None,
        })
    }
}

/// How strictly a timestamp is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The form in a context. It also takes one digit for the hour, a comma before the fraction, an offset of up to
    /// 24:60, and any year.
    Lenient,
    /// The form that `timestamp("…")` takes.
    Strict,
}

impl Timestamp {
    /// Reads a timestamp from a context.
    pub(super) fn of_context(text: &str) -> Option<Self> {
        Self::parse(text, Form::Lenient)
    }

    /// Evaluates `timestamp("…")`.
    pub(super) fn of_text(text: &str) -> Option<Self> {
        Self::parse(text, Form::Strict)?.checked()
    }

    /// Evaluates `timestamp(seconds)`.
    pub(super) fn of_seconds(seconds: i64) -> Option<Self> {
        Self { seconds, nanoseconds: 0, offset_seconds: 0 }.checked()
    }

    fn checked(self) -> Option<Self> {
        (FIRST_SECOND..=LAST_SECOND).contains(&self.seconds).then_some(self)
    }

    /// Returns the instant in seconds and nanoseconds. It is the same for timestamps of one instant, whatever their
    /// offsets.
    pub(super) fn instant(&self) -> (i64, i64) {
        (self.seconds, self.nanoseconds)
    }

    /// Returns the seconds since 1970.
    pub(super) fn seconds(&self) -> i64 {
        self.seconds
    }

    fn parse(text: &str, form: Form) -> Option<Self> {
        let mut reader = Reader { rest: text };
        let year = reader.number(4)?;
        reader.skip("-")?;
        let month = reader.number(2)?;
        reader.skip("-")?;
        let day = reader.number(2)?;
        reader.skip("T")?;
        let one_digit = form == Form::Lenient && !reader.rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        let hour = reader.number(if one_digit { 1 } else { 2 })?;
        reader.skip(":")?;
        let minute = reader.number(2)?;
        reader.skip(":")?;
        let second = reader.number(2)?;
        let nanoseconds = reader.fraction(form)?;
        let offset_seconds = reader.offset(form)?;
        if !reader.rest.is_empty() {
            return None;
        }
        let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?;
        let time = NaiveTime::from_hms_opt(hour, minute, second)?;
        let seconds = date.and_time(time).and_utc().timestamp() - i64::from(offset_seconds);
        Some(Self { seconds, nanoseconds, offset_seconds })
    }

    /// Returns `self + nanoseconds`, at the same offset.
    pub(super) fn plus(&self, nanoseconds: i64) -> Option<Self> {
        let sum = self.nanoseconds + nanoseconds % NANOSECONDS;
        let seconds = self.seconds.checked_add(nanoseconds / NANOSECONDS)?.checked_add(sum.div_euclid(NANOSECONDS))?;
        Self { seconds, nanoseconds: sum.rem_euclid(NANOSECONDS), offset_seconds: self.offset_seconds }.checked()
    }

    /// Returns the nanoseconds since `earlier`, or `None` if they or an intermediate result overflow.
    pub(super) fn since(&self, earlier: &Self) -> Option<i64> {
        let seconds = self.seconds.checked_sub(earlier.seconds)?;
        seconds.checked_mul(NANOSECONDS)?.checked_add(self.nanoseconds - earlier.nanoseconds)
    }

    /// Returns a part of the timestamp in UTC.
    pub(super) fn part(&self, part: DatePart) -> Option<i64> {
        self.part_at(part, 0)
    }

    /// Returns a part of the timestamp in a zone: a name of the IANA database (`Europe/Oslo`), an offset (`-08:00`), or
    /// an empty text for UTC. Returns `None` if there is no such zone. `Local` is refused, since it means another zone
    /// on every machine.
    pub(super) fn part_in(&self, part: DatePart, zone: &str) -> Option<i64> {
        self.part_at(part, zone_offset(zone, self.seconds)?)
    }

    fn local(&self, offset_seconds: i64) -> Option<NaiveDateTime> {
        Some(DateTime::from_timestamp(self.seconds.checked_add(offset_seconds)?, 0)?.naive_utc())
    }

    fn part_at(&self, part: DatePart, offset_seconds: i64) -> Option<i64> {
        let local = self.local(offset_seconds)?;
        Some(match part {
            DatePart::FullYear => i64::from(local.year()),
            DatePart::Month => i64::from(local.month0()),
            DatePart::Date => i64::from(local.day()),
            DatePart::DayOfMonth => i64::from(local.day0()),
            DatePart::DayOfWeek => i64::from(local.weekday().num_days_from_sunday()),
            DatePart::DayOfYear => i64::from(local.ordinal0()),
            DatePart::Hours => i64::from(local.hour()),
            DatePart::Minutes => i64::from(local.minute()),
            DatePart::Seconds => i64::from(local.second()),
            DatePart::Milliseconds => self.nanoseconds / 1_000_000,
        })
    }

    /// Writes the timestamp in the form of RFC 3339, at its own offset.
    pub(super) fn text(&self) -> Option<String> {
        let local = self.local(i64::from(self.offset_seconds))?;
        let date = format!("{:04}-{:02}-{:02}", local.year(), local.month(), local.day());
        let time = format!("{:02}:{:02}:{:02}", local.hour(), local.minute(), local.second());
        let fraction = match self.nanoseconds {
            0 => String::new(),
            nanoseconds => format!(".{nanoseconds:09}").trim_end_matches('0').to_owned(),
        };
        let minutes = self.offset_seconds / 60;
        let offset = if minutes == 0 {
            "Z".to_owned()
        } else {
            let sign = if minutes < 0 { '-' } else { '+' };
            format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
        };
        Some(format!("{date}T{time}{fraction}{offset}"))
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    /// Reads a number of exactly this many digits.
    fn number(&mut self, digits: usize) -> Option<u32> {
        let (number, rest) = self.rest.split_at_checked(digits)?;
        self.rest = rest;
        if number.bytes().all(|b| b.is_ascii_digit()) { number.parse().ok() } else { None }
    }

    fn skip(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    /// Reads the nanoseconds of a fraction, if there is one. It drops digits below a nanosecond.
    fn fraction(&mut self, form: Form) -> Option<i64> {
        let begins = |c: char| c == '.' || (c == ',' && form == Form::Lenient);
        let Some(after) = self.rest.strip_prefix(begins) else { return Some(0) };
        let length = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (digits, rest) = after.split_at_checked(length).filter(|(digits, _)| !digits.is_empty())?;
        self.rest = rest;
        let kept: String = digits.chars().chain(std::iter::repeat('0')).take(9).collect();
        kept.parse().ok()
    }

    /// Reads `Z` or `+hh:mm` and returns its seconds.
    fn offset(&mut self, form: Form) -> Option<i32> {
        if self.skip("Z").is_some() {
            return Some(0);
        }
        let sign = match self.rest.as_bytes().first()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        self.rest = self.rest.get(1..)?;
        let hours = i32::try_from(self.number(2)?).ok()?;
        self.skip(":")?;
        let minutes = i32::try_from(self.number(2)?).ok()?;
        let (hours_max, minutes_max) = if form == Form::Lenient { (24, 60) } else { (23, 59) };
        (hours <= hours_max && minutes <= minutes_max).then_some(sign * (hours * 60 + minutes) * 60)
    }
}

/// Returns by how many seconds a zone is ahead of UTC at an instant.
fn zone_offset(zone: &str, at: i64) -> Option<i64> {
    if let Some((hours, minutes)) = zone.split_once(':') {
        let (hours, minutes) = (go_integer(hours)?, go_integer(minutes)?);
        if !(-23..=23).contains(&hours) || !(0..=59).contains(&minutes) {
            return None;
        }
        let minutes = if zone.starts_with('-') { hours * 60 - minutes } else { hours * 60 + minutes };
        return Some(minutes * 60);
    }
    if zone.is_empty() {
        return Some(0);
    }
    // Zones come with the program and not from the machine, so that every machine decides alike. Some zones have been
    // merged in the program's tables. In these, times before 1970 may differ from those on OpenFGA's machine.
    let zone: chrono_tz::Tz = zone.parse().ok()?;
    let time = DateTime::from_timestamp(within_tables(at)?, 0)?;
    Some(i64::from(zone.offset_from_utc_datetime(&time.naive_utc()).fix().local_minus_utc()))
}

/// Reads a whole number with or without a sign.
fn go_integer(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// The last years for which `chrono-tz` has the daylight saving of every zone. After them the daylight saving repeats
/// for ever. Every calendar occurs among these years.
const TABLE_YEARS: std::ops::RangeInclusive<i32> = 2_072..=2_099;

/// Maps an instant after the last year of the tables to one in a year with the same calendar: the year begins on the
/// same weekday and has as many days.
fn within_tables(at: i64) -> Option<i64> {
    let time = DateTime::from_timestamp(at, 0)?.naive_utc();
    if time.year() <= *TABLE_YEARS.end() {
        return Some(at);
    }
    let first = |year: i32| NaiveDate::from_ymd_opt(year, 1, 1);
    let (weekday, leap) = (first(time.year())?.weekday(), first(time.year())?.leap_year());
    let alike = |year: &i32| first(*year).is_some_and(|day| day.weekday() == weekday && day.leap_year() == leap);
    let day = first(TABLE_YEARS.rev().find(alike)?)?.checked_add_days(Days::new(u64::from(time.ordinal0())))?;
    Some(day.and_time(time.time()).and_utc().timestamp())
}

/// Returns a part of a duration: the whole duration in that unit.
pub(super) fn duration_part(nanoseconds: i64, part: DatePart) -> Option<i64> {
    // Go computes this in doubles.
    let whole = |unit: i64| {
        let parts =
            number::from_int(nanoseconds / unit) + number::from_int(nanoseconds % unit) / number::from_int(unit);
        number::to_int(parts)
    };
    match part {
        DatePart::Hours => whole(3_600 * NANOSECONDS),
        DatePart::Minutes => whole(60 * NANOSECONDS),
        DatePart::Seconds => whole(NANOSECONDS),
        DatePart::Milliseconds => Some(nanoseconds / 1_000_000),
        DatePart::FullYear
        | DatePart::Month
        | DatePart::Date
        | DatePart::DayOfMonth
        | DatePart::DayOfWeek
        | DatePart::DayOfYear => None,
    }
}

/// Evaluates `string(duration)`, which writes its seconds.
pub(super) fn duration_text(nanoseconds: i64) -> String {
    let seconds = number::from_int(nanoseconds / NANOSECONDS) + number::from_int(nanoseconds % NANOSECONDS) / 1e9;
    format!("{seconds}s")
}

/// Reads a duration in Go's form: `300ms`, `-1.5h`, `2h45m`.
pub(super) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    // The longest negative duration is one nanosecond longer than the longest positive one.
    let mut nanoseconds: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = rest.split_at_checked(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?)?;
        let unit_length = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit_length)?;
        nanoseconds = nanoseconds.checked_add(part_nanoseconds(number, unit)?).filter(|sum| *sum <= LONGEST)?;
        rest = after;
    }
    if negative { 0_i64.checked_sub_unsigned(nanoseconds) } else { i64::try_from(nanoseconds).ok() }
}

/// The nanoseconds of the longest negative duration.
const LONGEST: u64 = 1 << 63;

fn part_nanoseconds(number: &str, unit: &str) -> Option<u64> {
    let unit: u64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let only_digits = fraction.bytes().all(|b| b.is_ascii_digit());
    if !only_digits || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let whole = whole.checked_mul(unit).filter(|nanoseconds| *nanoseconds <= LONGEST)?;
    // Like Go, this takes digits while they fit and does the rest in doubles.
    let (mut numerator, mut scale) = (0_u64, 1.0_f64);
    for digit in fraction.bytes() {
        let longer = numerator.checked_mul(10).and_then(|n| n.checked_add(u64::from(digit - b'0')));
        let Some(longer) = longer.filter(|n| numerator <= (LONGEST - 1) / 10 && *n <= LONGEST) else { break };
        (numerator, scale) = (longer, scale * 10.0);
    }
    let part = number::to_uint(number::from_uint(numerator) * (number::from_uint(unit) / scale))?;
    whole.checked_add(part).filter(|nanoseconds| *nanoseconds <= LONGEST)
}
