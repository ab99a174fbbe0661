//! Finds the type of an expression from the types of its parameters, so that a mistake is found when the model is
//! written, not when somebody asks.

use std::collections::BTreeMap;

use cel::IdedExpr;
use cel::common::ast::operators as op;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr};

use super::kind::Kind;

/// Names of CEL that are types.
const TYPE_NAMES: [&str; 13] = [
    "bool",
    "bytes",
    "double",
    "dyn",
    "google.protobuf.Duration",
    "google.protobuf.Timestamp",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
];
const DATE_PARTS: [&str; 10] = [
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
];
const DURATION_PARTS: [&str; 4] = ["getHours", "getMinutes", "getSeconds", "getMilliseconds"];

/// The type, or why the expression has none.
pub(super) fn kind_of(expression: &IdedExpr, parameters: &BTreeMap<String, Kind>) -> Result<Kind, String> {
    Checker { parameters, locals: Vec::new() }.kind(expression)
}

struct Checker<'a> {
    parameters: &'a BTreeMap<String, Kind>,
    /// Of comprehensions; the last of a name counts.
    locals: Vec<(String, Kind)>,
}

impl Checker<'_> {
    /// The depth of an expression is bounded, so this may call itself.
    fn kind(&mut self, expression: &IdedExpr) -> Result<Kind, String> {
        match &expression.expr {
            Expr::Ident(name) => self.name(name),
            Expr::Literal(literal) => Ok(literal_kind(literal)),
            Expr::List(list) => {
                let mut element: Option<Kind> = None;
                for item in &list.elements {
                    let kind = self.kind(item)?;
                    element = Some(element.map_or(kind.clone(), |known| known.or(kind)));
                }
                Ok(Kind::List(Box::new(element.unwrap_or(Kind::Dyn))))
            }
            Expr::Map(map) => {
                let (mut key, mut element): (Option<Kind>, Option<Kind>) = (None, None);
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err("a map has entries, not fields".to_owned());
                    };
                    let (key_kind, kind) = (self.kind(&entry.key)?, self.kind(&entry.value)?);
                    key = Some(key.map_or(key_kind.clone(), |known| known.or(key_kind)));
                    element = Some(element.map_or(kind.clone(), |known| known.or(kind)));
                }
                Ok(Kind::Map(Box::new(key.unwrap_or(Kind::Dyn)), Box::new(element.unwrap_or(Kind::Dyn))))
            }
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(fields) => Err(format!("there is no message type `{}`", fields.type_name)),
            Expr::Unspecified => Err("a part of it is empty".to_owned()),
        }
    }

    fn name(&self, name: &str) -> Result<Kind, String> {
        let local = self.locals.iter().rev().find(|(local, _)| local == name);
        if let Some(kind) = local.map(|(_, kind)| kind).or_else(|| self.parameters.get(name)) {
            return Ok(kind.clone());
        }
        if TYPE_NAMES.contains(&name) {
            return Ok(Kind::Type);
        }
        Err(format!("`{name}` is not a parameter of it"))
    }

    fn select(&mut self, select: &SelectExpr) -> Result<Kind, String> {
        if self.is_type_name(select) {
            return Ok(Kind::Type);
        }
        let element = match self.kind(&select.operand)? {
            Kind::Any | Kind::Dyn => Kind::Dyn,
            Kind::Map(_, element) => *element,
            other @ (Kind::Bool
            | Kind::Int
            | Kind::Uint
            | Kind::Double
            | Kind::String
            | Kind::Bytes
            | Kind::Null
            | Kind::Duration
            | Kind::Timestamp
            | Kind::IpAddress
            | Kind::List(_)
            | Kind::Type) => return Err(format!("a {other} has no field `{}`", select.field)),
        };
        Ok(if select.test { Kind::Bool } else { element })
    }

    /// A name with dots, such as `google.protobuf.Duration`, is parsed as fields of fields.
    fn is_type_name(&self, select: &SelectExpr) -> bool {
        let (mut words, mut at) = (vec![select.field.as_str()], &select.operand.expr);
        while let Expr::Select(inner) = at {
            words.push(&inner.field);
            at = &inner.operand.expr;
        }
        let Expr::Ident(first) = at else { return false };
        words.push(first);
        words.reverse();
        !select.test && self.name(first).is_err() && TYPE_NAMES.contains(&words.join(".").as_str())
    }

    fn comprehension(&mut self, c: &ComprehensionExpr) -> Result<Kind, String> {
        let item = match self.kind(&c.iter_range)? {
            Kind::Dyn => Kind::Dyn,
            Kind::List(element) => *element,
            Kind::Map(key, _) => *key,
            other @ (Kind::Any
            | Kind::Bool
            | Kind::Int
            | Kind::Uint
            | Kind::Double
            | Kind::String
            | Kind::Bytes
            | Kind::Null
            | Kind::Duration
            | Kind::Timestamp
            | Kind::IpAddress
            | Kind::Type) => return Err(format!("a {other} has no elements to go through")),
        };
        let outer = self.locals.len();
        let mut accumulated = self.kind(&c.accu_init)?;
        self.locals.push((c.iter_var.clone(), item.clone()));
        if let Some(second) = &c.iter_var2 {
            self.locals.push((second.clone(), Kind::Dyn));
        }
        self.locals.push((c.accu_var.clone(), accumulated.clone()));
        let step = self.kind(&c.loop_step)?;
        if let (Kind::List(empty), Kind::List(_)) = (&accumulated, &step)
            && **empty == Kind::Dyn
        {
            // `map` and `filter` begin with an empty list, which says nothing about its elements.
            accumulated = step.clone();
        }
        if !step.fits(&accumulated) {
            return Err(format!("expected a {accumulated} for each element, found a {step}"));
        }
        if let Some((_, kind)) = self.locals.last_mut() {
            *kind = accumulated;
        }
        let condition = self.kind(&c.loop_cond)?;
        let result = self.kind(&c.result)?;
        self.locals.truncate(outer);
        if !condition.fits(&Kind::Bool) {
            return Err(format!("expected a bool, found a {condition}"));
        }
        Ok(result)
    }

    fn call(&mut self, call: &CallExpr) -> Result<Kind, String> {
        let mut arguments = Vec::new();
        for argument in &call.args {
            arguments.push(self.kind(argument)?);
        }
        let target = call.target.as_deref().map(|target| self.kind(target)).transpose()?;
        let name = call.func_name.as_str();
        let found = match &target {
            Some(target) => method(name, target, &arguments),
            None => function(name, &arguments),
        };
        found.ok_or_else(|| {
            let shown: Vec<String> = target.iter().chain(&arguments).map(ToString::to_string).collect();
            let form = if target.is_some() { "method" } else { "function" };
            let spoken = name.trim_matches(['_', '@']);
            format!("there is no {form} or operator `{spoken}` for ({})", shown.join(", "))
        })
    }
}

fn literal_kind(literal: &LiteralValue) -> Kind {
    match literal {
        LiteralValue::Boolean(_) => Kind::Bool,
        LiteralValue::Bytes(_) => Kind::Bytes,
        LiteralValue::Double(_) => Kind::Double,
        LiteralValue::Int(_) => Kind::Int,
        LiteralValue::Null => Kind::Null,
        LiteralValue::String(_) => Kind::String,
        LiteralValue::UInt(_) => Kind::Uint,
    }
}

/// The result of `target.name(arguments)`.
fn method(name: &str, target: &Kind, arguments: &[Kind]) -> Option<Kind> {
    let is = |kind: &Kind, expected: &Kind| kind.fits(expected);
    match (name, arguments) {
        ("size", []) => has_size(target).then_some(Kind::Int),
        ("contains" | "startsWith" | "endsWith" | "matches", [part]) => {
            (is(target, &Kind::String) && is(part, &Kind::String)).then_some(Kind::Bool)
        }
        ("in_cidr", [network]) => (is(target, &Kind::IpAddress) && is(network, &Kind::String)).then_some(Kind::Bool),
        (part, []) if DURATION_PARTS.contains(&part) && is(target, &Kind::Duration) => Some(Kind::Int),
        (part, []) if DATE_PARTS.contains(&part) => is(target, &Kind::Timestamp).then_some(Kind::Int),
        (part, [zone]) if DATE_PARTS.contains(&part) => {
            (is(target, &Kind::Timestamp) && is(zone, &Kind::String)).then_some(Kind::Int)
        }
        _ => None,
    }
}

fn has_size(kind: &Kind) -> bool {
    matches!(kind, Kind::Any | Kind::Dyn | Kind::String | Kind::Bytes | Kind::List(_) | Kind::Map(..))
}

/// The result of an operator or of `name(arguments)`.
fn function(name: &str, arguments: &[Kind]) -> Option<Kind> {
    match (name, arguments) {
        (op::CONDITIONAL, [condition, then, otherwise]) => {
            let result = if then.is_unknown() { otherwise } else { then };
            (condition.fits(&Kind::Bool) && then.fits(otherwise)).then(|| result.clone())
        }
        (op::LOGICAL_NOT | op::NOT_STRICTLY_FALSE, [one]) => one.fits(&Kind::Bool).then_some(Kind::Bool),
        (op::LOGICAL_AND | op::LOGICAL_OR, [a, b]) => {
            (a.fits(&Kind::Bool) && b.fits(&Kind::Bool)).then_some(Kind::Bool)
        }
        (op::NEGATE, [Kind::Any | Kind::Dyn]) => Some(Kind::Dyn),
        (op::NEGATE, [one]) => matches!(one, Kind::Int | Kind::Double).then(|| one.clone()),
        (op::EQUALS | op::NOT_EQUALS, [a, b]) => a.fits(b).then_some(Kind::Bool),
        (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [a, b]) => {
            (has_order(a) && has_order(b) && a.fits(b)).then_some(Kind::Bool)
        }
        (op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO, [a, b]) => arithmetic(name, a, b),
        (op::IN, [element, Kind::List(of) | Kind::Map(of, _)]) => element.fits(of).then_some(Kind::Bool),
        (op::IN, [_, Kind::Any | Kind::Dyn]) => Some(Kind::Bool),
        (op::INDEX, [Kind::List(of), index]) => index.fits(&Kind::Int).then(|| (**of).clone()),
        (op::INDEX, [Kind::Map(key, of), index]) => index.fits(key).then(|| (**of).clone()),
        (op::INDEX, [Kind::Any | Kind::Dyn, _]) | ("dyn", [_]) => Some(Kind::Dyn),
        ("size", [one]) => has_size(one).then_some(Kind::Int),
        ("matches", [text, pattern]) => (text.fits(&Kind::String) && pattern.fits(&Kind::String)).then_some(Kind::Bool),
        ("type", [_]) => Some(Kind::Type),
        (conversion, [from]) => converted(conversion, from),
        _ => None,
    }
}

fn has_order(kind: &Kind) -> bool {
    !matches!(kind, Kind::List(_) | Kind::Map(..) | Kind::Type | Kind::IpAddress)
}

/// What an operand may be that is known only at evaluation.
const OPERANDS: [Kind; 7] =
    [Kind::Int, Kind::Uint, Kind::Double, Kind::String, Kind::Bytes, Kind::Duration, Kind::Timestamp];

fn arithmetic(operator: &str, a: &Kind, b: &Kind) -> Option<Kind> {
    match (a.is_unknown(), b.is_unknown()) {
        (true, true) => Some(Kind::Dyn),
        (true, false) => one_of(OPERANDS.iter().chain([b]).filter_map(|a| known_arithmetic(operator, a, b))),
        (false, true) => one_of(OPERANDS.iter().chain([a]).filter_map(|b| known_arithmetic(operator, a, b))),
        (false, false) => known_arithmetic(operator, a, b),
    }
}

/// What is known where several are possible.
fn one_of(possible: impl Iterator<Item = Kind>) -> Option<Kind> {
    possible.reduce(|a, b| if a == b { a } else { Kind::Dyn })
}

fn known_arithmetic(operator: &str, a: &Kind, b: &Kind) -> Option<Kind> {
    let adds = operator == op::ADD;
    let subtracts = operator == op::SUBSTRACT;
    match (a, b) {
        (Kind::Int, Kind::Int) => Some(Kind::Int),
        (Kind::Uint, Kind::Uint) => Some(Kind::Uint),
        (Kind::Double, Kind::Double) if operator != op::MODULO => Some(Kind::Double),
        (Kind::String, Kind::String) if adds => Some(Kind::String),
        (Kind::Bytes, Kind::Bytes) if adds => Some(Kind::Bytes),
        (Kind::List(x), Kind::List(y)) if adds && x.fits(y) => {
            Some(if **x == Kind::Dyn { b.clone() } else { a.clone() })
        }
        (Kind::Duration, Kind::Duration) if adds || subtracts => Some(Kind::Duration),
        (Kind::Timestamp, Kind::Duration) if adds || subtracts => Some(Kind::Timestamp),
        (Kind::Duration, Kind::Timestamp) if adds => Some(Kind::Timestamp),
        (Kind::Timestamp, Kind::Timestamp) if subtracts => Some(Kind::Duration),
        _ => None,
    }
}

fn converted(to: &str, from: &Kind) -> Option<Kind> {
    let (result, sources): (Kind, &[Kind]) = match to {
        "bool" => (Kind::Bool, &[Kind::Bool, Kind::String]),
        "bytes" => (Kind::Bytes, &[Kind::Bytes, Kind::String]),
        "double" => (Kind::Double, &[Kind::Double, Kind::Int, Kind::Uint, Kind::String]),
        "int" => (Kind::Int, &[Kind::Int, Kind::Uint, Kind::Double, Kind::String, Kind::Timestamp, Kind::Duration]),
        "uint" => (Kind::Uint, &[Kind::Uint, Kind::Int, Kind::Double, Kind::String]),
        "string" => (
            Kind::String,
            &[
                Kind::String,
                Kind::Bool,
                Kind::Bytes,
                Kind::Double,
                Kind::Int,
                Kind::Uint,
                Kind::Duration,
                Kind::Timestamp,
            ],
        ),
        "duration" => (Kind::Duration, &[Kind::Duration, Kind::String]),
        "timestamp" => (Kind::Timestamp, &[Kind::Timestamp, Kind::String, Kind::Int]),
        "ipaddress" => (Kind::IpAddress, &[Kind::String]),
        _ => return None,
    };
    sources.iter().any(|source| from.fits(source)).then_some(result)
}
