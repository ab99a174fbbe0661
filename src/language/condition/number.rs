//! Compares and converts numbers of different types, and reads and writes them as Go does.

use std::cmp::Ordering;

/// The first double above every `i64`.
const INT_END: f64 = 9_223_372_036_854_775_808.0;
/// The first double above every `u64`.
const UINT_END: f64 = 18_446_744_073_709_551_616.0;

#[expect(clippy::cast_precision_loss, reason = "CEL compares whole numbers with doubles as doubles")]
pub(super) fn from_int(number: i64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "CEL compares whole numbers with doubles as doubles")]
pub(super) fn from_uint(number: u64) -> f64 {
    number as f64
}

/// Converts a double to an `i64` by cutting its decimals. Returns `None` if the number is outside of `i64`, or is the
/// least `i64`.
pub(super) fn to_int(number: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "decimals are cut, and the range was looked at")]
    let whole = number as i64;
    (number > -INT_END && number < INT_END).then_some(whole)
}

/// Converts a double to a `u64` by cutting its decimals. Returns `None` if the number is outside of `u64`.
pub(super) fn to_uint(number: f64) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "decimals are cut, and the range was looked at"
    )]
    let whole = number as u64;
    (0.0..UINT_END).contains(&number).then_some(whole)
}

pub(super) fn exact_int(number: f64) -> Option<i64> {
    to_int(number).filter(|whole| same(from_int(*whole), number))
}

pub(super) fn exact_uint(number: f64) -> Option<u64> {
    to_uint(number).filter(|whole| same(from_uint(*whole), number))
}

fn same(a: f64, b: f64) -> bool {
    a.partial_cmp(&b) == Some(Ordering::Equal)
}

pub(super) fn compare_with_int(number: f64, int: i64) -> Option<Ordering> {
    match number {
        _ if number < -INT_END => Some(Ordering::Less),
        _ if number > INT_END => Some(Ordering::Greater),
        _ => number.partial_cmp(&from_int(int)),
    }
}

pub(super) fn compare_with_uint(number: f64, uint: u64) -> Option<Ordering> {
    match number {
        _ if number < 0.0 => Some(Ordering::Less),
        _ if number > UINT_END => Some(Ordering::Greater),
        _ => number.partial_cmp(&from_uint(uint)),
    }
}

/// The exponents that Go's `%g` writes without one; outside of them it writes `1e-05` or `1e+06`.
const PLAIN_EXPONENTS: std::ops::Range<i32> = -4..6;

/// Returns the shortest text that reads as the same double, in the form of Go's `%g`.
pub(super) fn double_text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() };
    }
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if PLAIN_EXPONENTS.contains(&exponent) {
        return number.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

/// Reads a double as Go does: decimal or hexadecimal, with `_` between digits. A number that is too large is refused.
pub(super) fn parse_double(text: &str) -> Option<f64> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let lower = unsigned.to_ascii_lowercase();
    let magnitude = match lower.as_str() {
        "inf" | "infinity" => f64::INFINITY,
        // Go takes no sign before `nan`.
        "nan" if unsigned.len() == text.len() => return Some(f64::NAN),
        _ => {
            let digits = without_underscores(&lower)?;
            match digits.strip_prefix("0x") {
                Some(hexadecimal) => parse_hexadecimal(hexadecimal)?,
                None => parse_decimal(&digits)?,
            }
        }
    };
    Some(if negative { -magnitude } else { magnitude })
}

/// Removes every `_`. Each must stand between two digits, and `0x` counts as a digit for this; returns `None`
/// otherwise.
fn without_underscores(text: &str) -> Option<String> {
    let hexadecimal = text.starts_with("0x");
    let bytes = text.as_bytes();
    let is_digit = |at: Option<usize>| {
        let byte = at.and_then(|at| bytes.get(at));
        byte.is_some_and(|b| b.is_ascii_digit() || (hexadecimal && (b.is_ascii_hexdigit() || *b == b'x')))
    };
    let fits = |at: usize| is_digit(at.checked_sub(1)) && is_digit(at.checked_add(1));
    let well_formed = bytes.iter().enumerate().all(|(at, b)| *b != b'_' || fits(at));
    well_formed.then(|| text.replace('_', ""))
}

fn parse_decimal(text: &str) -> Option<f64> {
    let well_formed = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'+' | b'-'))
        && text.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    // Rust reads these as Go does, but returns infinity for a number that is too large.
    text.parse::<f64>().ok().filter(|number| well_formed && number.is_finite())
}

/// How many digits of a hexadecimal mantissa are kept. Further digits only tell that the number is larger than the kept
/// digits say.
const MANTISSA_DIGITS_MAX: usize = 28;
/// An exponent beyond this gives the same double as any larger one.
const EXPONENT_MAX: i64 = 100_000;

/// Reads the part after `0x`: digits with at most one point, and an exponent, which is required.
fn parse_hexadecimal(text: &str) -> Option<f64> {
    let (digits, exponent) = text.split_once('p')?;
    let (negative, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => (true, exponent),
        None => (false, exponent.strip_prefix('+').unwrap_or(exponent)),
    };
    if exponent.is_empty() || exponent.bytes().any(|b| !b.is_ascii_digit()) {
        return None;
    }
    let exponent: i64 = exponent.parse().unwrap_or(EXPONENT_MAX).min(EXPONENT_MAX);
    let mut exponent = if negative { -exponent } else { exponent };
    let (mut mantissa, mut kept, mut seen, mut after_point, mut more) = (0_u128, 0_usize, 0_usize, false, false);
    for c in digits.chars() {
        match c {
            '.' if after_point => return None,
            '.' => after_point = true,
            _ => {
                let digit = c.to_digit(16)?;
                seen += 1;
                exponent -= if after_point { 4 } else { 0 };
                if kept < MANTISSA_DIGITS_MAX {
                    mantissa = mantissa * 16 + u128::from(digit);
                    kept += usize::from(mantissa != 0);
                } else {
                    exponent += 4;
                    more |= digit != 0;
                }
            }
        }
    }
    if seen == 0 {
        return None;
    }
    scaled(mantissa << 1 | u128::from(more), exponent - 1).filter(|number| number.is_finite())
}

/// Returns `mantissa` times two to the power of `exponent`, rounded once, to even.
fn scaled(mantissa: u128, exponent: i64) -> Option<f64> {
    const MANTISSA_BITS: i64 = 53;
    const LEAST_EXPONENT: i64 = -1074;
    if mantissa == 0 {
        return Some(0.0);
    }
    let bits = i64::from(u128::BITS - mantissa.leading_zeros());
    // These low bits do not fit into a double. Below the normal range there are more of them.
    let cut = (bits - MANTISSA_BITS).max(LEAST_EXPONENT - exponent).max(0);
    let (kept, exponent) = if cut >= i64::from(u128::BITS) {
        (0, exponent + cut)
    } else {
        let cut_bits = u32::try_from(cut).ok()?;
        let kept = mantissa >> cut_bits;
        let rest = mantissa - (kept << cut_bits);
        let half = if cut_bits == 0 { 0 } else { 1 << (cut_bits - 1) };
        let up = cut_bits > 0 && (rest > half || (rest == half && kept & 1 == 1));
        (kept + u128::from(up), exponent + cut)
    };
    let kept = from_uint(u64::try_from(kept).ok()?);
    // This takes two steps, since the power alone may lie outside of the range of doubles.
    let halves = i32::try_from((exponent / 2).clamp(-1_100, 1_100)).ok()?;
    let rest = i32::try_from((exponent - exponent / 2).clamp(-1_100, 1_100)).ok()?;
    Some(kept * 2_f64.powi(halves) * 2_f64.powi(rest))
}
