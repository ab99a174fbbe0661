//! `has(a.b.c)`: whether there is a field. Of what has no fields, CEL in Go says that it is not there, where the
//! interpreter here fails; so the question is put to a function of our own.

use std::sync::Arc;

use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue};
use cel::objects::Key;
use cel::{Context, DeclarationError, IdedExpr, Value};

/// No expression can name it.
const HAS: &str = "@has";

/// Puts the function in place of every test; whether there was one. The depth is bounded, so this may call itself.
pub(super) fn rewrite(expression: &mut IdedExpr) -> bool {
    let mut found = false;
    match &mut expression.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Call(call) => {
            for part in call.target.iter_mut().map(|target| &mut **target).chain(&mut call.args) {
                found |= rewrite(part);
            }
        }
        Expr::Select(select) => {
            found |= rewrite(&mut select.operand);
            if select.test {
                let field = Expr::Literal(LiteralValue::String(select.field.clone().into()));
                let field = IdedExpr { id: expression.id, expr: field };
                let args = vec![std::mem::take(&mut *select.operand), field];
                expression.expr = Expr::Call(CallExpr { func_name: HAS.to_owned(), target: None, args });
                found = true;
            }
        }
        Expr::List(list) => list.elements.iter_mut().for_each(|element| found |= rewrite(element)),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| found |= rewrite_entry(&mut entry.expr)),
        Expr::Struct(fields) => fields.entries.iter_mut().for_each(|entry| found |= rewrite_entry(&mut entry.expr)),
        Expr::Comprehension(c) => {
            for part in [&mut c.iter_range, &mut c.accu_init, &mut c.loop_cond, &mut c.loop_step, &mut c.result] {
                found |= rewrite(part);
            }
        }
    }
    found
}

fn rewrite_entry(entry: &mut EntryExpr) -> bool {
    match entry {
        EntryExpr::StructField(field) => rewrite(&mut field.value),
        EntryExpr::MapEntry(entry) => rewrite(&mut entry.key) | rewrite(&mut entry.value),
    }
}

/// Puts the function into a context.
pub(super) fn declare(context: &mut Context<'_, '_>) -> Result<(), DeclarationError> {
    context.add_function(HAS, |value: Value, field: Arc<String>| match value {
        Value::Map(map) => map.map.contains_key(&Key::from(field.as_str())),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::UInt(_)
        | Value::Float(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::List(_)
        | Value::Duration(_)
        | Value::Timestamp(_)
        | Value::Function(..)
        | Value::Struct(_)
        | Value::Opaque(_) => false,
    })
}
