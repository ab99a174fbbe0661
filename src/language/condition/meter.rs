//! What an evaluation costs, counted as CEL in Go counts it, and how many bytes it makes and looks at.
//!
//! CEL in Go notes the value of every step on a stack. A call finds its arguments there by the steps' numbers. If one of
//! them is not there, because an argument before it failed, the call costs nothing; but one of an earlier round of a
//! comprehension may still be there. So the stack is kept in the same way here: the cost is the same, whatever happens.

use super::value::Value;
use super::{COST_MAX, Stop};

/// Most bytes that the values of one evaluation may have together, and that it may look at. The cost bounds texts, but
/// lists can be doubled at a cost of one, and a comparison of two lists costs the same for elements of any size.
pub(super) const WORK_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A name or a field.
pub(super) const FIELD_COST: u64 = 1;
/// A list that is made.
pub(super) const LIST_COST: u64 = 10;
/// A map that is made.
pub(super) const MAP_COST: u64 = 30;
/// A step through a text costs so much for each character.
const COST_PER_CHARACTER: f64 = 0.1;
/// A step of a regular expression has about four characters.
const COST_PER_PATTERN_CHARACTER: f64 = 0.25;
/// Longer texts all cost more than is allowed, so nobody counts their characters.
const CHARACTERS_COUNTED_MAX: usize = 2_000;

/// The number of a step.
pub(super) type StepId = u32;

/// How a call's cost follows from the sizes of its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Price {
    One,
    /// A step through the first argument, or the second.
    First,
    Second,
    /// A step through the shorter one.
    Shorter,
    /// A step through both.
    Both,
    /// A comparison with every element of the second.
    Elements,
    /// Every step through the first argument with every step through the second.
    Search,
    Match,
}

/// Counts for one evaluation.
#[derive(Default)]
pub(super) struct Meter {
    cost: u64,
    work: usize,
    noted: Vec<(StepId, Option<Value>)>,
}

impl Meter {
    /// Counts bytes that are made or looked at.
    pub(super) fn work(&mut self, bytes: usize) -> Result<(), Stop> {
        self.work = self.work.saturating_add(bytes);
        if self.work > WORK_BYTES_MAX { Err(Stop::TooMuchWork) } else { Ok(()) }
    }

    pub(super) fn spend(&mut self, cost: u64) -> Result<(), Stop> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > COST_MAX { Err(Stop::TooCostly) } else { Ok(()) }
    }

    /// Notes the value of a step; `None` where it failed. A step of a loop may cost nothing, and what is noted of it stays until
    /// the loop has ended.
    pub(super) fn note(&mut self, step: StepId, value: Option<&Value>) -> Result<(), Stop> {
        self.work(size_of::<(StepId, Option<Value>)>())?;
        self.noted.push((step, value.cloned()));
        Ok(())
    }

    /// Forgets the last value of a step, and all after it.
    pub(super) fn forget(&mut self, step: StepId) {
        if let Some(at) = self.noted.iter().rposition(|(noted, _)| *noted == step) {
            self.noted.truncate(at);
        }
    }

    /// Takes the values of a call's arguments, the last one first; `None` once one is not there.
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

    /// Counts a call, before its value is made.
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
            // An empty text costs what a text of one character costs.
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

/// Characters, bytes, elements or entries; one for everything else.
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
