//! Parses an expression without exhausting the stack. The text is bounded before the parser reads it. Code that walks
//! the result runs [`on_a_large_stack`], and the depth of the result is bounded.

use std::thread;

use cel::common::ast::{EntryExpr, Expr};
use cel::{Env, IdedExpr};

use super::strings;

/// The longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 32 * 1024;
/// The deepest nesting of brackets, as in `OpenFGA`.
pub const NESTING_MAX: u16 = 249;
/// The deepest nesting of the parsed expression. `OpenFGA` takes no expression of more than 512 bytes, and every
/// operator takes at least two of them.
const DEPTH_MAX: usize = 260;
/// The number of characters that may belong to operators. The parser's work and stack grow with a chain of them.
const OPERATORS_MAX: usize = 4_096;
/// A stack that is large enough for the longest chain of operators.
const STACK_BYTES: usize = 256 * 1024 * 1024;

/// Runs work that recurses for every level of an expression on a large stack.
pub(super) fn on_a_large_stack<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let working = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let working = working.map_err(|e| format!("its thread cannot be started: {e}"))?;
        working.join().unwrap_or_else(|_| Err("its thread panicked".to_owned()))
    })
}

/// Parses an expression and gives each part a number of its own, or says what is wrong. Call it on a large stack.
pub(super) fn parse(environment: &Env, text: &str) -> Result<IdedExpr, String> {
    check_text(text)?;
    let mut parsed = environment.parser().max_recursion_depth(NESTING_MAX).parse(text).map_err(|e| e.to_string())?;
    if depth(&parsed) > DEPTH_MAX {
        return Err(too_deep());
    }
    number(&mut parsed, &mut 0);
    Ok(parsed)
}

/// Gives every part a number of its own. The recursion is bounded because the depth is.
fn number(expression: &mut IdedExpr, given: &mut u64) {
    *given += 1;
    expression.id = *given;
    match &mut expression.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Call(call) => {
            call.target.iter_mut().for_each(|target| number(target, given));
            call.args.iter_mut().for_each(|argument| number(argument, given));
        }
        Expr::Select(select) => number(&mut select.operand, given),
        Expr::List(list) => list.elements.iter_mut().for_each(|element| number(element, given)),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| number_entry(&mut entry.expr, given)),
        Expr::Struct(fields) => fields.entries.iter_mut().for_each(|entry| number_entry(&mut entry.expr, given)),
        Expr::Comprehension(c) => {
            for part in [&mut c.iter_range, &mut c.accu_init, &mut c.loop_cond, &mut c.loop_step, &mut c.result] {
                number(part, given);
            }
        }
    }
}

fn number_entry(entry: &mut EntryExpr, given: &mut u64) {
    match entry {
        EntryExpr::StructField(field) => number(&mut field.value, given),
        EntryExpr::MapEntry(entry) => {
            number(&mut entry.key, given);
            number(&mut entry.value, given);
        }
    }
}

fn too_deep() -> String {
    format!("it is nested more than {NESTING_MAX} deep")
}

fn check_text(text: &str) -> Result<(), String> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(format!("it has {} bytes, at most {EXPRESSION_BYTES_MAX} are allowed", text.len()));
    }
    // Brackets in strings count too, since no sensible string has so many.
    let (mut open, mut operators) = (0_u16, 0_usize);
    for c in text.chars() {
        match c {
            '(' | '[' | '{' => open = open.saturating_add(1),
            ')' | ']' | '}' => open = open.saturating_sub(1),
            '+' | '-' | '*' | '/' | '%' | '!' | '?' | '.' | '<' | '>' | '=' => operators += 1,
            _ => {}
        }
        if open > NESTING_MAX {
            return Err(too_deep());
        }
    }
    if operators > OPERATORS_MAX {
        return Err(format!("it has more than {OPERATORS_MAX} operators"));
    }
    // The parser knows another name of `exists_one`, which `OpenFGA` does not.
    let code = strings::without_strings(text);
    let mut calls = code.match_indices("existsOne");
    let called = |(at, name): (usize, &str)| {
        let before = code.get(..at).is_some_and(|before| before.trim_end().ends_with('.'));
        before && code.get(at + name.len()..).is_some_and(|after| after.trim_start().starts_with('('))
    };
    if calls.any(called) {
        return Err("there is no method `existsOne`; it is called `exists_one`".to_owned());
    }
    Ok(())
}

/// Returns the number of levels of an expression.
pub(super) fn depth(expression: &IdedExpr) -> usize {
    let mut deepest = 0;
    let mut pending = vec![(expression, 1)];
    while let Some((expression, depth)) = pending.pop() {
        deepest = deepest.max(depth);
        pending.extend(parts(expression).into_iter().map(|part| (part, depth + 1)));
    }
    deepest
}

/// Returns the direct parts of an expression.
pub(super) fn parts(expression: &IdedExpr) -> Vec<&IdedExpr> {
    match &expression.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Call(call) => call.target.iter().map(|target| &**target).chain(&call.args).collect(),
        Expr::Select(select) => vec![&*select.operand],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Struct(fields) => fields.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Comprehension(c) => vec![&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result],
    }
}

fn entry_parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}
