//! What an evaluation costs: one for each name, field and call that is evaluated. The interpreter has no meter of its
//! own, so an expression that can cost much is rewritten: every such step becomes the argument of a call that counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cel::common::ast::operators::{CONDITIONAL, LOGICAL_AND, LOGICAL_OR};
use cel::common::ast::{CallExpr, EntryExpr, Expr};
use cel::{Context, DeclarationError, ExecutionError, IdedExpr, Value};

use super::COST_MAX;
use super::kind::Kind;
use super::syntax::parts;

/// No expression can name it: `@` begins no name in CEL.
const METER: &str = "@cost";

/// Whether it costs at most [`COST_MAX`] whatever the values are.
pub(super) fn is_small(expression: &IdedExpr) -> bool {
    let (mut cost, mut pending) = (0, vec![expression]);
    while let Some(expression) = pending.pop() {
        if matches!(expression.expr, Expr::Comprehension(_)) {
            return false;
        }
        cost += u64::from(costs(&expression.expr));
        pending.extend(parts(expression));
    }
    cost <= COST_MAX
}

fn costs(expression: &Expr) -> bool {
    match expression {
        Expr::Ident(_) | Expr::Select(_) => true,
        // These cost what their operands cost.
        Expr::Call(call) => !matches!(call.func_name.as_str(), LOGICAL_AND | LOGICAL_OR | CONDITIONAL),
        Expr::Unspecified
        | Expr::Literal(_)
        | Expr::List(_)
        | Expr::Map(_)
        | Expr::Struct(_)
        | Expr::Comprehension(_) => false,
    }
}

/// The expression with a meter on every step. Its depth is bounded, so this may call itself.
pub(super) fn metered(expression: &IdedExpr, parameters: &BTreeMap<String, Kind>) -> IdedExpr {
    let mut copy = expression.clone();
    meter(&mut copy);
    debug_assert!(parameters.keys().all(|name| name != METER), "a parameter has a name of the grammar");
    copy
}

fn meter(expression: &mut IdedExpr) {
    match &mut expression.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Call(call) => {
            call.target.iter_mut().for_each(|target| meter(target));
            call.args.iter_mut().for_each(meter);
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
    if costs(&expression.expr) {
        let id = expression.id;
        let counted = std::mem::take(expression);
        let call = CallExpr { func_name: METER.to_owned(), target: None, args: vec![counted] };
        *expression = IdedExpr { id, expr: Expr::Call(call) };
    }
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

/// Puts the meter into a context. Past the limit every step fails, so nothing goes on for long.
pub(super) fn declare_meter(context: &mut Context<'_, '_>, spent: Arc<AtomicU64>) -> Result<(), DeclarationError> {
    context.add_function(METER, move |value: Value| -> Result<Value, ExecutionError> {
        if spent.fetch_add(1, Ordering::Relaxed) >= COST_MAX {
            return Err(ExecutionError::function_error(METER, "too costly"));
        }
        Ok(value)
    })
}
