//! What is refused when a model is written since its value is known then: a conversion of a literal that fails, and a
//! regular expression that is none. CEL in Go does these steps ahead of every evaluation.

use std::sync::Arc;

use cel::common::ast::operators::NEGATE;
use cel::common::ast::{CallExpr, Expr, LiteralValue};
use cel::{Context, Env, IdedExpr, Value};

use super::syntax::parts;

const CONVERSIONS: [&str; 8] = ["bool", "bytes", "double", "duration", "int", "string", "timestamp", "uint"];

/// The depth of an expression is bounded, so what is called here may call itself.
pub(super) fn check(environment: &Arc<Env>, expression: &IdedExpr) -> Result<(), String> {
    for part in parts(expression) {
        check(environment, part)?;
    }
    let known_step = match &expression.expr {
        Expr::Call(call) if is_conversion_of_constant(call) => expression.clone(),
        Expr::Call(call) => match literal_pattern(call) {
            Some(pattern) => pattern,
            None => return Ok(()),
        },
        Expr::Unspecified
        | Expr::Ident(_)
        | Expr::Literal(_)
        | Expr::List(_)
        | Expr::Map(_)
        | Expr::Select(_)
        | Expr::Struct(_)
        | Expr::Comprehension(_) => return Ok(()),
    };
    let tried = Value::resolve(&known_step, &Context::with_env(Arc::clone(environment)));
    tried.map(|_| ()).map_err(|e| super::message(&e))
}

/// Whether it is a literal, or a conversion of one.
pub(super) fn is_constant(expression: &IdedExpr) -> bool {
    match &expression.expr {
        Expr::Literal(_) => true,
        Expr::Call(call) => is_conversion_of_constant(call) || is_negative_number(call),
        Expr::Unspecified
        | Expr::Ident(_)
        | Expr::List(_)
        | Expr::Map(_)
        | Expr::Select(_)
        | Expr::Struct(_)
        | Expr::Comprehension(_) => false,
    }
}

fn is_conversion_of_constant(call: &CallExpr) -> bool {
    let converts = call.target.is_none() && CONVERSIONS.contains(&call.func_name.as_str());
    converts && matches!(call.args.as_slice(), [one] if is_constant(one))
}

fn is_negative_number(call: &CallExpr) -> bool {
    call.func_name == NEGATE && call.args.iter().all(|arg| matches!(arg.expr, Expr::Literal(_)))
}

/// A match against the pattern of this one, where that is a literal.
fn literal_pattern(call: &CallExpr) -> Option<IdedExpr> {
    let form = (call.func_name.as_str(), call.target.is_some(), call.args.as_slice());
    let (("matches", true, [pattern]) | ("matches", false, [_, pattern])) = form else { return None };
    let Expr::Literal(LiteralValue::String(_)) = &pattern.expr else { return None };
    let call = CallExpr { func_name: "matches".to_owned(), target: None, args: vec![pattern.clone(), pattern.clone()] };
    Some(IdedExpr { id: pattern.id, expr: Expr::Call(call) })
}
