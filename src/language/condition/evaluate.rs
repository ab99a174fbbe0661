//! Evaluates the steps of a compiled expression.
//!
//! An error is a value: `&&` and `||` absorb it if their other side decides. So do `exists` and `all`, which consist of
//! `&&` and `||`. A [`Stop`](super::Stop), such as too high a cost, is never absorbed.

use std::sync::Arc;

use super::meter::{FIELD_COST, LIST_COST, MAP_COST, Meter, Price};
use super::number;
use super::plan::{Attribute, Base, Fold, Node, Qualifier, may_be_key};
use super::signatures::Overload;
use super::value::{self, Key, Map, Value};
use super::{Failure, Stop};

/// Evaluates an expression. `parameters` holds the values of its parameters by their numbers.
pub(super) fn evaluate(node: &Node, parameters: &[Value]) -> Result<Value, Failure> {
    Machine { parameters, comprehensions: Vec::new(), meter: Meter::default() }.node(node)
}

struct Machine<'a> {
    parameters: &'a [Value],
    comprehensions: Vec<Comprehension>,
    meter: Meter,
}

/// The state of a comprehension.
struct Comprehension {
    item: Value,
    gathered: Result<Value, Failure>,
}

#[derive(Clone, Copy, PartialEq)]
enum LogicalOperator {
    And,
    Or,
}

impl Machine<'_> {
    /// Evaluates a step and notes its value. The recursion is bounded because the depth of the steps is.
    fn node(&mut self, node: &Node) -> Result<Value, Failure> {
        let result = match self.unnoted(node) {
            Err(stop @ Failure::Stop(_)) => return Err(stop),
            result @ (Ok(_) | Err(Failure::Error(_))) => result,
        };
        self.meter.note(node.id(), result.as_ref().ok())?;
        result
    }

    /// Evaluates a step and counts its cost, without noting its value.
    fn unnoted(&mut self, node: &Node) -> Result<Value, Failure> {
        match node {
            Node::Constant { value, .. } => Ok(value.clone()),
            Node::Attribute(attribute) | Node::Presence { attribute, .. } => {
                let result = self.attribute(attribute);
                self.settle(attribute)?;
                result
            }
            Node::And { terms, .. } => self.logic(LogicalOperator::And, terms),
            Node::Or { terms, .. } => self.logic(LogicalOperator::Or, terms),
            Node::NotStrictlyFalse { id: _, argument } => {
                let result = match self.node(argument) {
                    Err(stop @ Failure::Stop(_)) => return Err(stop),
                    Ok(value @ Value::Bool(_)) => value,
                    Ok(_) | Err(Failure::Error(_)) => Value::Bool(true),
                };
                self.meter.call(Price::One, std::iter::once(argument.id()))?;
                Ok(result)
            }
            Node::Call { function, overload, arguments, .. } => {
                let values = self.arguments(arguments.iter());
                if !matches!(values, Err(Failure::Stop(_))) {
                    let price = overload.map_or(Price::One, |overload| overload.price);
                    self.meter.call(price, arguments.iter().map(Node::id))?;
                }
                let values = values?;
                let guard = overload.filter(|_| function.has_guards());
                let fits =
                    |overload: &Overload| overload.arguments.iter().zip(&values).all(|(sort, value)| sort.has(value));
                if guard.is_some_and(|overload| !fits(overload)) {
                    return Err(function.no_such_overload());
                }
                function.apply(&values, &mut self.meter)
            }
            Node::Member { argument, set, .. } => {
                let value = self.node(argument)?;
                let key = Key::finding(&value)?;
                Ok(Value::Bool(key.is_some_and(|key| set.contains(&key))))
            }
            Node::List { elements, .. } => {
                let values = self.arguments(elements.iter());
                self.constructed(LIST_COST, elements.iter(), &values)?;
                let values = values?;
                self.meter.work(values.len().saturating_mul(size_of::<Value>()))?;
                Ok(Value::list(values))
            }
            Node::Map { entries, .. } => {
                let parts = || entries.iter().flat_map(|(key, value)| [key, value]);
                let values = self.arguments(parts());
                self.constructed(MAP_COST, parts(), &values)?;
                let values = values?;
                self.meter.work(values.len().saturating_mul(size_of::<Value>()))?;
                let mut map = Map::new();
                let mut values = values.into_iter();
                while let (Some(key), Some(value)) = (values.next(), values.next()) {
                    let entry = map.len();
                    map.insert(Key::of(key, entry)?, value);
                }
                Ok(Value::Map(Arc::new(map)))
            }
            Node::Fold(fold) => {
                let result = self.fold(fold);
                if !matches!(result, Err(Failure::Stop(_))) {
                    self.meter.forget(fold.range.id());
                }
                result
            }
        }
    }

    /// Evaluates all nodes, up to the first failure.
    fn arguments<'n>(&mut self, nodes: impl Iterator<Item = &'n Node>) -> Result<Vec<Value>, Failure> {
        nodes.map(|node| self.node(node)).collect()
    }

    fn constructed<'n>(
        &mut self,
        cost: u64,
        parts: impl DoubleEndedIterator<Item = &'n Node>,
        values: &Result<Vec<Value>, Failure>,
    ) -> Result<(), Stop> {
        if let Err(Failure::Stop(_)) = values {
            return Ok(());
        }
        // The notes of the parts are dropped.
        let _taken = self.meter.take(parts.map(Node::id));
        self.meter.spend(cost)
    }

    /// Evaluates `&&`, which `false` decides, or `||`, which `true` decides.
    fn logic(&mut self, operator: LogicalOperator, terms: &[Node]) -> Result<Value, Failure> {
        let decides = operator == LogicalOperator::Or;
        let mut failed = None;
        let mut settled = false;
        for term in terms {
            match self.node(term) {
                Ok(Value::Bool(value)) if value == decides => {
                    settled = true;
                    break;
                }
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or(Some(Failure::no_such_overload("a logical operator"))),
                Err(stop @ Failure::Stop(_)) => return Err(stop),
                Err(error @ Failure::Error(_)) => failed = failed.or(Some(error)),
            }
        }
        for term in terms {
            self.meter.forget(term.id());
        }
        match failed {
            _ if settled => Ok(Value::Bool(decides)),
            Some(error) => Err(error),
            None => Ok(Value::Bool(!decides)),
        }
    }

    /// Counts the cost of an attribute, whether its value was found or not.
    fn settle(&mut self, attribute: &Attribute) -> Result<(), Stop> {
        match &attribute.base {
            // A conditional costs only what its parts cost.
            Base::Conditional(conditional) => {
                self.meter.forget(conditional.otherwise.id());
                self.meter.forget(conditional.then.id());
                self.meter.forget(conditional.condition.id());
                Ok(())
            }
            Base::Parameter(_) | Base::Item(_) | Base::Gathered(_) | Base::Node(_) => {
                self.meter.forget(attribute.id());
                self.meter.spend(FIELD_COST)
            }
        }
    }

    fn attribute(&mut self, attribute: &Attribute) -> Result<Value, Failure> {
        let mut value = match &attribute.base {
            Base::Parameter(number) => self.parameters.get(*number).cloned().ok_or(Stop::Inconsistent)?,
            Base::Item(number) => self.comprehensions.get(*number).ok_or(Stop::Inconsistent)?.item.clone(),
            Base::Gathered(number) => self.comprehensions.get(*number).ok_or(Stop::Inconsistent)?.gathered.clone()?,
            Base::Node(node) => self.node(node)?,
            Base::Conditional(conditional) => {
                let Value::Bool(holds) = self.node(&conditional.condition)? else {
                    return Err(Failure::no_such_overload("an alternative"));
                };
                return self.attribute(if holds { &conditional.then } else { &conditional.otherwise });
            }
        };
        for qualifier in &attribute.qualifiers {
            value = self.qualifier(qualifier, &value)?;
        }
        Ok(value)
    }

    fn qualifier(&mut self, qualifier: &Qualifier, whole: &Value) -> Result<Value, Failure> {
        let (id, result) = match qualifier {
            Qualifier::Key { id, key } => (*id, field(whole, key)),
            Qualifier::Presence { id, key } => (*id, is_present(whole, key)),
            Qualifier::Attribute { id, index } => {
                (*id, self.attribute(index).and_then(|index| checked_field(whole, &index)))
            }
            Qualifier::Node { id, index } => {
                let result = self.node(index).and_then(|index| checked_field(whole, &index));
                if !matches!(result, Err(Failure::Stop(_))) {
                    self.meter.forget(*id);
                }
                (*id, result)
            }
        };
        if let Err(stop @ Failure::Stop(_)) = result {
            return Err(stop);
        }
        self.meter.spend(FIELD_COST)?;
        self.meter.note(id, result.as_ref().ok())?;
        result
    }

    fn fold(&mut self, fold: &Fold) -> Result<Value, Failure> {
        let range = self.node(&fold.range)?;
        let items: Box<dyn Iterator<Item = Value>> = if let Value::List(list) = &range {
            Box::new(list.items.iter().cloned())
        } else if let Value::Map(map) = &range {
            Box::new(map.keys().cloned().map(Key::into_value))
        } else {
            return Err(Failure::no_such_overload("a comprehension"));
        };
        // The value is noted when it is first read, and every loop of CEL begins by reading it.
        let begin = self.node(&fold.begin);
        if let Err(stop @ Failure::Stop(_)) = begin {
            return Err(stop);
        }
        self.comprehensions.push(Comprehension { item: Value::Null, gathered: begin });
        let result = self.rounds(fold, items);
        self.comprehensions.pop();
        result
    }

    fn rounds(&mut self, fold: &Fold, items: impl Iterator<Item = Value>) -> Result<Value, Failure> {
        for item in items {
            let comprehension = self.comprehensions.last_mut().ok_or(Stop::Inconsistent)?;
            comprehension.item = item;
            match self.node(&fold.condition) {
                Ok(Value::Bool(false)) => break,
                Ok(_) | Err(Failure::Error(_)) => {}
                Err(stop @ Failure::Stop(_)) => return Err(stop),
            }
            let gathered = self.node(&fold.step);
            if let Err(stop @ Failure::Stop(_)) = gathered {
                return Err(stop);
            }
            let comprehension = self.comprehensions.last_mut().ok_or(Stop::Inconsistent)?;
            comprehension.gathered = gathered;
        }
        self.node(&fold.result)
    }
}

fn checked_field(whole: &Value, key: &Value) -> Result<Value, Failure> {
    if may_be_key(key) {
        field(whole, key)
    } else {
        Err(Failure::Error(format!("a {} is no index", key.type_name()).into()))
    }
}

/// Evaluates `whole.key` or `whole[key]`.
fn field(whole: &Value, key: &Value) -> Result<Value, Failure> {
    found(whole, key)?.ok_or_else(|| Failure::Error("there is no such field or element".into()))
}

/// Evaluates `has(whole.key)`. A value without fields has no field `key`, but asking a list is an error.
fn is_present(whole: &Value, key: &Value) -> Result<Value, Failure> {
    Ok(Value::Bool(found(whole, key)?.is_some()))
}

/// Reads an index from a whole number of any type.
fn index_of(key: &Value) -> Result<i64, Failure> {
    let index = if let Value::Int(index) = key {
        Some(*index)
    } else if let Value::Uint(index) = key {
        i64::try_from(*index).ok()
    } else if let Value::Double(index) = key {
        number::exact_int(*index)
    } else {
        None
    };
    index.ok_or_else(|| Failure::Error(format!("a {} is no index", key.type_name()).into()))
}

fn found(whole: &Value, key: &Value) -> Result<Option<Value>, Failure> {
    match whole {
        Value::Map(map) => Ok(value::find(map, key)?.cloned()),
        Value::List(list) => {
            let index = index_of(key)?;
            Ok(usize::try_from(index).ok().and_then(|index| list.items.get(index)).cloned())
        }
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Uint(_)
        | Value::Double(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::Timestamp(_)
        | Value::Duration(_)
        | Value::IpAddress(_)
        | Value::Type(_) => Ok(None),
    }
}
