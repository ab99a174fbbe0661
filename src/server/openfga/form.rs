//! The parts of the rules for `OpenFGA`'s messages: patterns, and the refusal of a field that breaks one.

use std::fmt::Display;

use tonic::Code;

use crate::server::refusal::Refusal;

/// Refuses a message that breaks a rule.
pub(super) type Checked = Result<(), Refusal>;

/// Returns the refusal of a message whose field breaks a rule.
pub(super) fn broken(message: &str, field: &str, rule: impl Display) -> Refusal {
    Refusal::new(Code::InvalidArgument, format!("invalid {message}.{field}: {rule}"))
}

pub(super) fn require(holds: bool, message: &str, field: &str, rule: impl Display) -> Checked {
    if holds { Ok(()) } else { Err(broken(message, field, rule)) }
}

/// White space, as `OpenFGA`'s patterns mean it (`\s` of RE2).
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\u{c}' | '\r')
}

/// Returns whether a text matches `[^:#@\s]{1,chars_max}`.
pub(super) fn is_name(text: &str, chars_max: usize) -> bool {
    is_text(text, 1, chars_max) && !text.contains([':', '#', '@'])
}

/// Returns whether a text matches `[^\s]{chars_min,chars_max}`.
pub(super) fn is_text(text: &str, chars_min: usize, chars_max: usize) -> bool {
    let count = text.chars().count();
    (chars_min..=chars_max).contains(&count) && !text.contains(is_space)
}
