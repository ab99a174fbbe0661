//! Counts the cost of an evaluation as CEL in Go counts it, and the bytes that it makes and reads.
//!
//! CEL in Go notes the value of every step on a stack, and a call finds its arguments there by the numbers of the
//! steps. If an argument is not there, because an argument before it failed, the call costs nothing. But a value from
//! an earlier round of a comprehension may still be there. This module keeps the same stack, so the cost is the same in
//! every case.

use super::value::Value;
use super::{COST_MAX, Stop};

/// The bytes that one evaluation may make and read. The cost limits strings, but a list can be doubled at a cost of
/// one, and comparing two lists costs the same for elements of any size.
pub(super) const WORK_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The cost of reading a name or a field.
pub(super) const FIELD_COST: u64 = 1;
/// The cost of making a list.
pub(super) const LIST_COST: u64 = 10;
/// The cost of making a map.
pub(super) const MAP_COST: u64 = 30;
/// The cost of each character that a function goes through.
const COST_PER_CHARACTER: f64 = 0.1;
/// The cost of each character of a regular expression: about four characters make one step of it.
const COST_PER_PATTERN_CHARACTER: f64 = 0.25;
/// The longest text whose characters are counted. A longer one costs more than the limit anyway.
const CHARACTERS_COUNTED_MAX: usize = 2_000;

/// The number of a step.
pub(super) type StepId = u32;

/// The way in which a call's cost follows from the sizes of its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Price {
    /// The call costs one, whatever its arguments.
    One,
    /// The call goes through the first argument.
    First,
    /// The call goes through the second argument.
    Second,
    /// The call goes through the shorter argument.
    Shorter,
    /// The call goes through both arguments.
    Both,
    /// The call compares the first argument with every element of the second.
    Elements,
    /// The call searches: every step through the first argument meets every step through the second.
    Search,
    /// The call matches the first argument against a pattern, the second.
    Match,
}

/// The counts of one evaluation.
#[derive(Default)]
pub(super) struct Meter {
    cost: u64,
    work: usize,
    noted: Vec<(StepId, Option<Value>)>,
}

impl Meter {
    /// Counts bytes that are made or read.
    pub(super) fn work(&mut self, bytes: usize) -> Result<(), Stop> {
        self.work = self.work.saturating_add(bytes);
        if self.work > WORK_BYTES_MAX { Err(Stop::TooMuchWork) } else { Ok(()) }
    }

    pub(super) fn spend(&mut self, cost: u64) -> Result<(), Stop> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > COST_MAX { Err(Stop::TooCostly) } else { Ok(()) }
    }

    /// Notes the value of a step, or `None` if it failed. A note counts as work, because a step in a loop may cost
    /// nothing, and its notes stay until the loop has ended.
    pub(super) fn note(&mut self, step: StepId, value: Option<&Value>) -> Result<(), Stop> {
        self.work(size_of::<(StepId, Option<Value>)>())?;
        self.noted.push((step, value.cloned()));
        Ok(())
    }

    /// Forgets the last value of a step, and all values noted after it.
    pub(super) fn forget(&mut self, step: StepId) {
        if let Some(at) = self.noted.iter().rposition(|(noted, _)| *noted == step) {
            self.noted.truncate(at);
        }
    }

    /// Takes the values of a call's arguments, the last one first. Returns `None` if one is missing.
    pub(super) fn take(&mut self, steps: impl DoubleEndedIterator<Item = StepId>) -> Option<Vec<Option<Value>>> {
        let mut values = Vec::new();
        for step in steps.rev() {
            let at = self.noted.iter().rposition(|(noted, _)| *noted == step)?;
            values.push(self.noted.get_mut(at)?.1.take());
            self.noted.truncate(at);
        }
        values.reverse();
        Some(values)
    }

    /// Counts the cost of a call, before the call is made.
    pub(super) fn call(&mut self, price: Price, steps: impl DoubleEndedIterator<Item = StepId>) -> Result<(), Stop> {
        let Some(arguments) = self.take(steps) else { return Ok(()) };
        let size = |at: usize| arguments.get(at).and_then(Option::as_ref).map_or(1, size);
        let cost = match price {
            Price::One => 1,
            Price::First => characters_cost(size(0), COST_PER_CHARACTER),
            Price::Second => characters_cost(size(1), COST_PER_CHARACTER),
            Price::Shorter => characters_cost(size(0).min(size(1)), COST_PER_CHARACTER),
            Price::Both => characters_cost(size(0).saturating_add(size(1)), COST_PER_CHARACTER),
            Price::Elements => u64::from(size(1)),
            Price::Search => {
                characters_cost(size(0), COST_PER_CHARACTER) * characters_cost(size(1), COST_PER_CHARACTER)
            }
            // An empty text costs as much as one of a single character.
            Price::Match => {
                characters_cost(size(0).saturating_add(1), COST_PER_CHARACTER)
                    * characters_cost(size(1), COST_PER_PATTERN_CHARACTER)
            }
        };
        self.spend(cost)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole, small and not negative")]
fn characters_cost(characters: u32, cost: f64) -> u64 {
    (f64::from(characters) * cost).ceil() as u64
}

/// Returns the number of characters, bytes, elements or entries, and one for every other value.
fn size(value: &Value) -> u32 {
    let size = match value {
        Value::String(text) => text.chars().take(CHARACTERS_COUNTED_MAX).count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.items.len(),
        Value::Map(map) => map.len(),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Uint(_)
        | Value::Double(_)
        | Value::Timestamp(_)
        | Value::Duration(_)
        | Value::IpAddress(_)
        | Value::Type(_) => 1,
    };
    u32::try_from(size).unwrap_or(u32::MAX)
}
