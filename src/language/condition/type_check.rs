//! Finds the type of an expression from the types of its parameters, so that a mistake is found when the model is
//! written and not when somebody asks.
//!
//! It also tells which overload of a function is meant, if only one is possible: the cost of a call depends on it.

mod unify;

use std::collections::BTreeMap;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr};

use self::unify::Unifier;
use super::kind::Kind;
use super::signatures::{self, Overload, Sort};

/// Names in CEL that are types.
const TYPE_NAMES: [&str; 12] = [
    "bool",
    "bytes",
    "double",
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

/// Facts about an expression, by the numbers of its parts.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// The names that are types.
    pub(super) types: BTreeMap<u64, &'static str>,
    /// The calls for which only one overload is possible.
    pub(super) calls: BTreeMap<u64, &'static Overload>,
}

/// Checks that the expression is a bool. Its parts must be numbered: see [`super::syntax::parse`].
pub(super) fn check(expression: &IdedExpr, parameters: &BTreeMap<String, Kind>) -> Result<Notes, String> {
    let mut checker = Checker { parameters, locals: Vec::new(), unifier: Unifier::default(), notes: Notes::default() };
    let result = checker.kind(expression)?;
    let result = checker.unifier.known(&result)?;
    if result == Kind::Bool {
        return Ok(checker.notes);
    }
    Err(format!("the expression must be a bool, but it is a {result}"))
}

struct Checker<'a> {
    parameters: &'a BTreeMap<String, Kind>,
    /// The names that comprehensions declare. If a name is declared twice, the last one counts.
    locals: Vec<(String, Kind)>,
    unifier: Unifier,
    notes: Notes,
}

impl Checker<'_> {
    /// Finds the type of an expression. The recursion is bounded because the depth of an expression is.
    fn kind(&mut self, expression: &IdedExpr) -> Result<Kind, String> {
        match &expression.expr {
            Expr::Ident(name) => self.name(expression.id, name),
            Expr::Literal(literal) => Ok(literal_kind(literal)),
            Expr::List(list) => {
                let mut element = None;
                for item in &list.elements {
                    let kind = self.kind(item)?;
                    element = Some(self.join(element, kind)?);
                }
                Ok(Kind::List(Box::new(element.unwrap_or_else(|| self.unifier.variable()))))
            }
            Expr::Map(map) => {
                let (mut key, mut element) = (None, None);
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err("a map has entries, not fields".to_owned());
                    };
                    let key_kind = self.kind(&entry.key)?;
                    key = Some(self.join(key, key_kind)?);
                    let kind = self.kind(&entry.value)?;
                    element = Some(self.join(element, kind)?);
                }
                let key = key.unwrap_or_else(|| self.unifier.variable());
                let element = element.unwrap_or_else(|| self.unifier.variable());
                Ok(Kind::Map(Box::new(key), Box::new(element)))
            }
            Expr::Select(select) => self.select(expression.id, select),
            Expr::Call(call) => self.call(expression.id, call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(fields) => Err(format!("there is no message type `{}`", fields.type_name)),
            Expr::Unspecified => Err("a part of it is empty".to_owned()),
        }
    }

    /// Joins the types of elements: the result is a type that both may have.
    fn join(&mut self, known: Option<Kind>, kind: Kind) -> Result<Kind, String> {
        let Some(known) = known else { return Ok(kind) };
        if !self.unifier.assignable(&[(&known, &kind)])? {
            return Ok(Kind::Dyn);
        }
        Ok(if unify::is_less_specific(&known, &kind) { known } else { kind })
    }

    fn declared(&self, name: &str) -> Option<&Kind> {
        let local = self.locals.iter().rev().find(|(local, _)| local == name);
        local.map(|(_, kind)| kind).or_else(|| self.parameters.get(name))
    }

    fn name(&mut self, id: u64, name: &str) -> Result<Kind, String> {
        if let Some(kind) = self.declared(name).cloned() {
            // CEL in Go takes a variable whose value is a type for the name of a type.
            if self.unifier.known(&kind)? == Kind::Type {
                return Err(format!("`{name}` is a variable, not a type"));
            }
            return Ok(kind);
        }
        if let Some(name) = TYPE_NAMES.into_iter().find(|known| *known == name) {
            self.notes.types.insert(id, name);
            return Ok(Kind::Type);
        }
        Err(format!("`{name}` is not a parameter of it"))
    }

    fn select(&mut self, id: u64, select: &SelectExpr) -> Result<Kind, String> {
        if let Some(name) = self.type_name(select) {
            self.notes.types.insert(id, name);
            return Ok(Kind::Type);
        }
        let operand = self.kind(&select.operand)?;
        let element = match self.unifier.substitute(&operand)? {
            Kind::Any | Kind::Dyn => Kind::Dyn,
            Kind::Map(_, element) => *element,
            variable @ Kind::Variable(_) => {
                self.unifier.assignable(&[(&Kind::Dyn, &variable)])?;
                Kind::Dyn
            }
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
        if select.test { Ok(Kind::Bool) } else { self.unifier.substitute(&element) }
    }

    /// Reads a type's name with dots, such as `google.protobuf.Duration`, which the parser takes for fields of fields.
    fn type_name(&self, select: &SelectExpr) -> Option<&'static str> {
        let (mut words, mut at) = (vec![select.field.as_str()], &select.operand.expr);
        while let Expr::Select(inner) = at {
            words.push(&inner.field);
            at = &inner.operand.expr;
        }
        let Expr::Ident(first) = at else { return None };
        if select.test || self.declared(first).is_some() {
            return None;
        }
        words.push(first);
        words.reverse();
        let name = words.join(".");
        TYPE_NAMES.into_iter().find(|known| *known == name)
    }

    fn comprehension(&mut self, c: &ComprehensionExpr) -> Result<Kind, String> {
        if c.iter_var == c.accu_var {
            return Err(format!("`{}` names the result of a comprehension, so it cannot name an element", c.iter_var));
        }
        let range = self.kind(&c.iter_range)?;
        let accumulated = self.kind(&c.accu_init)?;
        let item = match self.unifier.substitute(&range)? {
            Kind::List(element) => *element,
            Kind::Map(key, _) => *key,
            unknown @ (Kind::Dyn | Kind::Variable(_)) => {
                self.unifier.assignable(&[(&Kind::Dyn, &unknown)])?;
                Kind::Dyn
            }
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
        self.locals.push((c.accu_var.clone(), accumulated.clone()));
        self.locals.push((c.iter_var.clone(), item));
        let condition = self.kind(&c.loop_cond)?;
        self.expect(&Kind::Bool, &condition)?;
        let step = self.kind(&c.loop_step)?;
        self.expect(&accumulated, &step)?;
        self.locals.pop();
        let result = self.kind(&c.result)?;
        self.locals.pop();
        self.unifier.substitute(&result)
    }

    fn expect(&mut self, expected: &Kind, found: &Kind) -> Result<(), String> {
        if self.unifier.assignable(&[(expected, found)])? {
            return Ok(());
        }
        Err(format!("expected a {expected} for each element, found a {found}"))
    }

    fn call(&mut self, id: u64, call: &CallExpr) -> Result<Kind, String> {
        let mut arguments = Vec::new();
        for argument in &call.args {
            arguments.push(self.kind(argument)?);
        }
        let name = call.func_name.as_str();
        let overloads = match call.target.as_deref() {
            Some(target) => {
                arguments.insert(0, self.kind(target)?);
                signatures::method(name)
            }
            None => signatures::function(name),
        };
        let mut found: Option<(Kind, &'static Overload)> = None;
        let mut only = true;
        for overload in overloads {
            let Some(result) = self.result(overload, &arguments)? else { continue };
            found = Some(match found {
                None => (result, overload),
                Some((known, first)) => {
                    only = false;
                    let keeps = matches!(known, Kind::Any | Kind::Dyn) || known == result;
                    (if keeps { known } else { Kind::Dyn }, first)
                }
            });
        }
        let Some((result, overload)) = found else {
            let shown = arguments.iter().map(|kind| self.unifier.known(kind).map(|kind| kind.to_string()));
            let shown = shown.collect::<Result<Vec<_>, _>>()?.join(", ");
            let form = if call.target.is_some() { "method" } else { "function" };
            let spoken = name.trim_matches(['_', '@']);
            return Err(format!("there is no {form} or operator `{spoken}` for ({shown})"));
        };
        if only {
            self.notes.calls.insert(id, overload);
        }
        Ok(result)
    }

    /// Returns the type that an overload gives for the arguments, or `None` if it does not take them.
    fn result(&mut self, overload: &Overload, arguments: &[Kind]) -> Result<Option<Kind>, String> {
        if overload.arguments.len() != arguments.len() {
            return Ok(None);
        }
        let (a, b) = (self.unifier.variable(), self.unifier.variable());
        let kind = |sort: Sort| match sort {
            Sort::A => a.clone(),
            Sort::B => b.clone(),
            Sort::ListOfA => Kind::List(Box::new(a.clone())),
            Sort::MapOfAToB => Kind::Map(Box::new(a.clone()), Box::new(b.clone())),
            Sort::Bool => Kind::Bool,
            Sort::Bytes => Kind::Bytes,
            Sort::Double => Kind::Double,
            Sort::Duration => Kind::Duration,
            Sort::Dyn => Kind::Dyn,
            Sort::Int => Kind::Int,
            Sort::IpAddress => Kind::IpAddress,
            Sort::String => Kind::String,
            Sort::Timestamp => Kind::Timestamp,
            Sort::Type => Kind::Type,
            Sort::Uint => Kind::Uint,
        };
        let expected: Vec<Kind> = overload.arguments.iter().map(|sort| kind(*sort)).collect();
        let pairs: Vec<(&Kind, &Kind)> = arguments.iter().zip(&expected).collect();
        if !self.unifier.assignable(&pairs)? {
            return Ok(None);
        }
        self.unifier.substitute(&kind(overload.result)).map(Some)
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
