//! What an evaluation costs, by the rules of CEL in Go: one for each name, field and call, more for a list or a map that
//! is made and for what looks at a whole text or list; literals, and lists and conversions of literals, cost nothing. The
//! interpreter has no meter of its own, so an expression that can cost much is rewritten: every such step becomes the
//! argument of a call that counts.
//!
//! Two texts that are compared or joined with each other cost one, whatever their length (in Go one for ten characters).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cel::common::ast::operators::{CONDITIONAL, IN, LOGICAL_AND, LOGICAL_OR};
use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue};
use cel::{Context, DeclarationError, ExecutionError, IdedExpr, Value};

use super::COST_MAX;
use super::constants::is_constant;
use super::syntax::parts;

/// No expression can name these: `@` begins no name in CEL.
const METER: &str = "@cost";
const SIZE_METER: &str = "@cost_of_size";

const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
/// Characters of a text that cost one.
const CHARACTERS_PER_COST: u64 = 10;
/// Characters of a regular expression that cost one for every part of the text.
const PATTERN_CHARACTERS_PER_COST: u64 = 4;

/// Whether it costs at most [`COST_MAX`] whatever the values are.
pub(super) fn is_small(expression: &IdedExpr) -> bool {
    let (mut cost, mut pending) = (0, vec![expression]);
    while let Some(expression) = pending.pop() {
        if matches!(expression.expr, Expr::Comprehension(_)) || sized(&expression.expr).is_some() {
            return false;
        }
        cost += step(expression);
        if !is_free(expression) {
            pending.extend(parts(expression));
        }
    }
    cost <= COST_MAX
}

/// What is known before any evaluation.
fn is_free(expression: &IdedExpr) -> bool {
    match &expression.expr {
        Expr::List(list) => list.elements.iter().all(is_free),
        Expr::Map(map) => map.entries.iter().all(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => is_free(&entry.key) && is_free(&entry.value),
            EntryExpr::StructField(_) => false,
        }),
        Expr::Unspecified
        | Expr::Ident(_)
        | Expr::Literal(_)
        | Expr::Call(_)
        | Expr::Select(_)
        | Expr::Struct(_)
        | Expr::Comprehension(_) => is_constant(expression),
    }
}

/// The cost of an expression without its parts, as far as it does not depend on their sizes.
fn step(expression: &IdedExpr) -> u64 {
    if is_free(expression) {
        return 0;
    }
    match &expression.expr {
        Expr::Ident(_) | Expr::Select(_) => 1,
        Expr::Call(call) => match call.func_name.as_str() {
            // These cost what their operands cost.
            LOGICAL_AND | LOGICAL_OR | CONDITIONAL => 0,
            IN if call.args.get(1).is_some_and(is_free) => 0,
            _ if sized(&expression.expr).is_some() => 0,
            _ => 1,
        },
        Expr::List(_) => LIST_COST,
        Expr::Map(_) => MAP_COST,
        Expr::Unspecified | Expr::Literal(_) | Expr::Struct(_) | Expr::Comprehension(_) => 0,
    }
}

/// How the size of an operand counts.
#[derive(Clone, Copy)]
struct Sized {
    per: u64,
    times: u64,
}

/// The operand whose size a call costs; `None` where the cost does not depend on one.
fn sized(expression: &Expr) -> Option<Sized> {
    let Expr::Call(call) = expression else { return None };
    let whole_text = Sized { per: CHARACTERS_PER_COST, times: 1 };
    let length = |argument: Option<&IdedExpr>| match argument.map(|argument| &argument.expr) {
        Some(Expr::Literal(LiteralValue::String(text))) => {
            u64::try_from(text.inner().chars().count()).unwrap_or(u64::MAX)
        }
        Some(_) | None => CHARACTERS_PER_COST,
    };
    match (call.func_name.as_str(), call.target.is_some()) {
        ("contains", true) => {
            Some(Sized { times: length(call.args.first()).div_ceil(CHARACTERS_PER_COST), ..whole_text })
        }
        ("matches", _) => {
            Some(Sized { times: length(call.args.last()).div_ceil(PATTERN_CHARACTERS_PER_COST), ..whole_text })
        }
        (IN, false) if call.args.get(1).is_some_and(|list| !is_free(list)) => Some(Sized { per: 1, times: 1 }),
        _ => None,
    }
}

/// The expression with a meter on every step. Its depth is bounded, so this may call itself.
pub(super) fn metered(expression: &IdedExpr) -> IdedExpr {
    let mut copy = expression.clone();
    meter(&mut copy);
    copy
}

fn meter(expression: &mut IdedExpr) {
    if is_free(expression) {
        return;
    }
    let (cost, by_size) = (step(expression), sized(&expression.expr));
    match &mut expression.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Call(call) => {
            call.target.iter_mut().for_each(|target| meter(target));
            call.args.iter_mut().for_each(meter);
            if let Some(by_size) = by_size {
                let whole = match (call.func_name.as_str(), &mut call.target) {
                    (IN, _) => call.args.get_mut(1),
                    (_, Some(target)) => Some(&mut **target),
                    (_, None) => call.args.first_mut(),
                };
                if let Some(whole) = whole {
                    wrap(whole, SIZE_METER, &[by_size.per, by_size.times]);
                }
            }
        }
        Expr::Select(select) => meter(&mut select.operand),
        Expr::List(list) => list.elements.iter_mut().for_each(meter),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| meter_entry(&mut entry.expr)),
        Expr::Struct(fields) => fields.entries.iter_mut().for_each(|entry| meter_entry(&mut entry.expr)),
        Expr::Comprehension(c) => {
            for part in [&mut c.iter_range, &mut c.accu_init, &mut c.loop_cond, &mut c.loop_step, &mut c.result] {
                meter(part);
            }
        }
    }
    if cost > 0 {
        wrap(expression, METER, &[cost]);
    }
}

fn wrap(expression: &mut IdedExpr, function: &str, numbers: &[u64]) {
    let id = expression.id;
    let mut args = vec![std::mem::take(expression)];
    args.extend(numbers.iter().map(|number| {
        let number = i64::try_from(*number).unwrap_or(i64::MAX);
        IdedExpr { id, expr: Expr::Literal(LiteralValue::Int(number.into())) }
    }));
    *expression = IdedExpr { id, expr: Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args }) };
}

fn meter_entry(entry: &mut EntryExpr) {
    match entry {
        EntryExpr::StructField(field) => meter(&mut field.value),
        EntryExpr::MapEntry(entry) => {
            meter(&mut entry.key);
            meter(&mut entry.value);
        }
    }
}

/// Puts the meters into a context. Past the limit every step fails, so nothing goes on for long.
pub(super) fn declare_meter(context: &mut Context<'_, '_>, spent: Arc<AtomicU64>) -> Result<(), DeclarationError> {
    let by_size = Arc::clone(&spent);
    context.add_function(METER, move |value: Value, cost: i64| spend(&spent, cost.unsigned_abs(), value))?;
    context.add_function(SIZE_METER, move |value: Value, per: i64, times: i64| {
        let parts = size(&value).div_ceil(per.unsigned_abs().max(1));
        spend(&by_size, parts.saturating_mul(times.unsigned_abs()), value)
    })
}

fn spend(spent: &AtomicU64, cost: u64, value: Value) -> Result<Value, ExecutionError> {
    if spent.fetch_add(cost, Ordering::Relaxed).saturating_add(cost) > COST_MAX {
        return Err(ExecutionError::function_error(METER, "too costly"));
    }
    Ok(value)
}

fn size(value: &Value) -> u64 {
    let size = match value {
        Value::String(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.len(),
        Value::Map(entries) => entries.map.len(),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::UInt(_)
        | Value::Float(_)
        | Value::Duration(_)
        | Value::Timestamp(_)
        | Value::Function(..)
        | Value::Struct(_)
        | Value::Opaque(_) => 1,
    };
    u64::try_from(size).unwrap_or(u64::MAX)
}
