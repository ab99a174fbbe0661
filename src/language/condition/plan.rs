//! Makes the steps of an evaluation from a parsed and checked expression. Like CEL in Go, it computes in advance the
//! parts that do not depend on values: lists, maps and conversions of literals, and also regular expressions. A mistake
//! in one of these parts is a mistake in the model.
//!
//! CEL in Go joins a name and the fields after it into one step, an [`Attribute`]. A conditional `c ? a : b` is one
//! attribute, too. The cost depends on what counts as a step of its own, so the steps here are the same.

use std::sync::Arc;

use cel::IdedExpr;
use cel::common::ast::operators as op;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr};

use super::functions::{Conversion, Function};
use super::meter::{Meter, Price, StepId};
use super::number;
use super::pattern::Pattern;
use super::signatures::Overload;
use super::type_check::Notes;
use super::value::{Key, Map, Value};

/// A step of an evaluation.
#[derive(Debug)]
pub(super) enum Node {
    Constant {
        id: StepId,
        value: Value,
    },
    Attribute(Attribute),
    /// `has(a.b)`. The last qualifier of the attribute asks for presence.
    Presence {
        id: StepId,
        attribute: Attribute,
    },
    And {
        id: StepId,
        terms: Vec<Node>,
    },
    Or {
        id: StepId,
        terms: Vec<Node>,
    },
    /// The condition of a loop. It is false only if its argument is.
    NotStrictlyFalse {
        id: StepId,
        argument: Box<Node>,
    },
    /// A call. `overload` is set if only one overload is possible.
    Call {
        id: StepId,
        function: Function,
        overload: Option<&'static Overload>,
        arguments: Vec<Node>,
    },
    /// `a in [1, 2]`: asks whether the argument is one of some constants.
    Member {
        id: StepId,
        argument: Box<Node>,
        set: Vec<Key>,
    },
    List {
        id: StepId,
        elements: Vec<Node>,
    },
    Map {
        id: StepId,
        entries: Vec<(Node, Node)>,
    },
    Fold(Box<Fold>),
}

/// A base value, and the path of fields and elements from there.
#[derive(Debug)]
pub(super) struct Attribute {
    id: StepId,
    pub(super) base: Base,
    pub(super) qualifiers: Vec<Arc<Qualifier>>,
}

#[derive(Debug)]
pub(super) enum Base {
    /// The parameter with this number.
    Parameter(usize),
    /// The current element of a comprehension, which has this many comprehensions around it.
    Item(usize),
    /// The accumulated value of a comprehension.
    Gathered(usize),
    Node(Box<Node>),
    Conditional(Box<Conditional>),
}

#[derive(Debug)]
pub(super) struct Conditional {
    pub(super) condition: Node,
    pub(super) then: Attribute,
    pub(super) otherwise: Attribute,
}

/// A step of an attribute's path.
#[derive(Debug)]
pub(super) enum Qualifier {
    /// A field or a constant index.
    Key { id: StepId, key: Value },
    /// The last step of `has`.
    Presence { id: StepId, key: Value },
    /// An index that is an attribute.
    Attribute { id: StepId, index: Attribute },
    /// An index that is computed by another step.
    Node { id: StepId, index: Node },
}

/// A comprehension.
#[derive(Debug)]
pub(super) struct Fold {
    pub(super) id: StepId,
    pub(super) range: Node,
    pub(super) begin: Node,
    pub(super) condition: Node,
    pub(super) step: Node,
    pub(super) result: Node,
}

impl Attribute {
    pub(super) fn id(&self) -> StepId {
        match &self.base {
            Base::Conditional(conditional) => {
                let (then, otherwise) = (conditional.then.id(), conditional.otherwise.id());
                if then == otherwise { then } else { self.id }
            }
            Base::Parameter(_) | Base::Item(_) | Base::Gathered(_) | Base::Node(_) => {
                self.qualifiers.last().map_or(self.id, |last| last.id())
            }
        }
    }

    /// Appends a qualifier. If the base is a conditional, the qualifier applies to both branches.
    fn qualify(&mut self, qualifier: Arc<Qualifier>) {
        match &mut self.base {
            Base::Conditional(conditional) => {
                conditional.then.qualify(Arc::clone(&qualifier));
                conditional.otherwise.qualify(qualifier);
            }
            Base::Parameter(_) | Base::Item(_) | Base::Gathered(_) | Base::Node(_) => self.qualifiers.push(qualifier),
        }
    }
}

impl Qualifier {
    fn id(&self) -> StepId {
        match self {
            Self::Key { id, .. } | Self::Presence { id, .. } | Self::Attribute { id, .. } | Self::Node { id, .. } => {
                *id
            }
        }
    }
}

impl Node {
    pub(super) fn id(&self) -> StepId {
        match self {
            Self::Constant { id, .. }
            | Self::Presence { id, .. }
            | Self::And { id, .. }
            | Self::Or { id, .. }
            | Self::NotStrictlyFalse { id, .. }
            | Self::Call { id, .. }
            | Self::Member { id, .. }
            | Self::List { id, .. }
            | Self::Map { id, .. } => *id,
            Self::Attribute(attribute) => attribute.id(),
            Self::Fold(fold) => fold.id,
        }
    }

    fn constant(&self) -> Option<&Value> {
        if let Self::Constant { value, .. } = self { Some(value) } else { None }
    }

    /// Turns the step into an attribute that can be extended. A step that is not one becomes the base of a new one.
    fn into_attribute(self) -> Attribute {
        if let Self::Attribute(attribute) | Self::Presence { attribute, .. } = self {
            return attribute;
        }
        Attribute { id: self.id(), base: Base::Node(Box::new(self)), qualifiers: Vec::new() }
    }
}

/// Makes the steps of an expression. `parameters` are in the order of their numbers.
pub(super) fn plan(expression: &IdedExpr, parameters: &[&str], notes: &Notes) -> Result<Node, String> {
    Planner { parameters, notes, comprehensions: Vec::new() }.node(expression)
}

struct Planner<'a> {
    parameters: &'a [&'a str],
    notes: &'a Notes,
    comprehensions: Vec<Variables>,
}

/// The names that a comprehension declares.
struct Variables {
    /// The name of the element. The result of a comprehension has none.
    item: Option<String>,
    gathered: String,
}

fn step_id(id: u64) -> StepId {
    StepId::try_from(id).unwrap_or(StepId::MAX)
}

impl Planner<'_> {
    /// Makes the steps of one expression. The recursion is bounded because the depth of an expression is.
    fn node(&mut self, expression: &IdedExpr) -> Result<Node, String> {
        let id = step_id(expression.id);
        if let Some(name) = self.notes.types.get(&expression.id) {
            return Ok(Node::Constant { id, value: Value::Type(name) });
        }
        match &expression.expr {
            Expr::Literal(literal) => Ok(Node::Constant { id, value: literal_value(literal) }),
            Expr::Ident(name) => self.name(id, name),
            Expr::Select(select) => self.select(id, select),
            Expr::Call(call) => self.call(expression.id, call),
            Expr::List(list) => {
                let elements = self.nodes(list.elements.iter())?;
                let constants: Option<Vec<Value>> = elements.iter().map(|node| node.constant().cloned()).collect();
                Ok(match constants {
                    Some(items) => Node::Constant { id, value: Value::list(items) },
                    None => Node::List { id, elements },
                })
            }
            Expr::Map(map) => {
                let mut entries = Vec::new();
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err("a map has entries, not fields".to_owned());
                    };
                    entries.push((self.node(&entry.key)?, self.node(&entry.value)?));
                }
                constant_map(id, entries)
            }
            Expr::Comprehension(comprehension) => self.comprehension(id, comprehension),
            Expr::Struct(_) | Expr::Unspecified => Err("a part of it cannot be evaluated".to_owned()),
        }
    }

    fn nodes<'e>(&mut self, expressions: impl Iterator<Item = &'e IdedExpr>) -> Result<Vec<Node>, String> {
        expressions.map(|expression| self.node(expression)).collect()
    }

    fn name(&self, id: StepId, name: &str) -> Result<Node, String> {
        let local = self.comprehensions.iter().enumerate().rev().find_map(|(number, variables)| {
            if variables.gathered == name {
                return Some(Base::Gathered(number));
            }
            (variables.item.as_deref() == Some(name)).then_some(Base::Item(number))
        });
        let parameter = || self.parameters.iter().position(|parameter| *parameter == name).map(Base::Parameter);
        let base = local.or_else(parameter).ok_or_else(|| format!("`{name}` is not a parameter of it"))?;
        Ok(Node::Attribute(Attribute { id, base, qualifiers: Vec::new() }))
    }

    fn select(&mut self, id: StepId, select: &SelectExpr) -> Result<Node, String> {
        let mut attribute = self.node(&select.operand)?.into_attribute();
        let key = Value::string(&select.field);
        if select.test {
            attribute.qualify(Arc::new(Qualifier::Presence { id, key }));
            return Ok(Node::Presence { id, attribute });
        }
        attribute.qualify(Arc::new(Qualifier::Key { id, key }));
        Ok(Node::Attribute(attribute))
    }

    fn call(&mut self, number: u64, call: &CallExpr) -> Result<Node, String> {
        let id = step_id(number);
        let overload = self.notes.calls.get(&number).copied();
        let mut arguments = self.nodes(call.target.as_deref().into_iter().chain(&call.args))?;
        match call.func_name.as_str() {
            op::LOGICAL_AND => return Ok(Node::And { id, terms: arguments }),
            op::LOGICAL_OR => return Ok(Node::Or { id, terms: arguments }),
            op::CONDITIONAL => return conditional(id, arguments),
            op::INDEX => return index(id, arguments),
            op::NOT_STRICTLY_FALSE => {
                let argument = Box::new(arguments.pop().ok_or("a loop has no condition")?);
                return Ok(Node::NotStrictlyFalse { id, argument });
            }
            op::IN if overload.is_some_and(|overload| overload.price == Price::Elements) => {
                if let [_, Node::Constant { value: Value::List(list), .. }] = arguments.as_slice()
                    && let Some(set) = constant_set(&list.items)
                {
                    return Ok(if set.is_empty() {
                        Node::Constant { id, value: Value::Bool(false) }
                    } else {
                        Node::Member { id, argument: Box::new(arguments.swap_remove(0)), set }
                    });
                }
            }
            _ => {}
        }
        let mut function = Function::of_name(&call.func_name).ok_or_else(|| format!("no `{}`", call.func_name))?;
        if let (Function::Convert(conversion), [Node::Constant { value, .. }]) = (&function, arguments.as_slice()) {
            return constant_conversion(id, *conversion, value);
        }
        if let (Function::Matches, [_, Node::Constant { value: Value::String(pattern), .. }]) =
            (&function, arguments.as_slice())
        {
            function = Function::MatchesPattern(Arc::new(Pattern::compile(pattern)?));
        }
        Ok(Node::Call { id, function, overload, arguments })
    }

    fn comprehension(&mut self, id: StepId, c: &ComprehensionExpr) -> Result<Node, String> {
        if c.iter_var2.is_some() {
            return Err("a comprehension has one variable".to_owned());
        }
        let begin = self.node(&c.accu_init)?;
        let range = self.node(&c.iter_range)?;
        self.comprehensions.push(Variables { item: Some(c.iter_var.clone()), gathered: c.accu_var.clone() });
        let condition = self.node(&c.loop_cond)?;
        let step = self.node(&c.loop_step)?;
        if let Some(variables) = self.comprehensions.last_mut() {
            variables.item = None;
        }
        let result = self.node(&c.result)?;
        self.comprehensions.pop();
        Ok(Node::Fold(Box::new(Fold { id, range, begin, condition, step, result })))
    }
}

fn conditional(id: StepId, arguments: Vec<Node>) -> Result<Node, String> {
    let [condition, then, otherwise] =
        <[Node; 3]>::try_from(arguments).map_err(|_nodes| "an alternative has three parts")?;
    let (then, otherwise) = (then.into_attribute(), otherwise.into_attribute());
    let base = Base::Conditional(Box::new(Conditional { condition, then, otherwise }));
    Ok(Node::Attribute(Attribute { id, base, qualifiers: Vec::new() }))
}

fn index(id: StepId, arguments: Vec<Node>) -> Result<Node, String> {
    let [whole, index] = <[Node; 2]>::try_from(arguments).map_err(|_nodes| "an index has two parts")?;
    let mut attribute = whole.into_attribute();
    let qualifier = if let Node::Constant { value, .. } = index {
        if !may_be_key(&value) {
            return Err(format!("a {} is no index", value.type_name()));
        }
        Qualifier::Key { id, key: value }
    } else if let Node::Attribute(index) | Node::Presence { attribute: index, .. } = index {
        Qualifier::Attribute { id, index }
    } else {
        Qualifier::Node { id, index }
    };
    attribute.qualify(Arc::new(qualifier));
    Ok(Node::Attribute(attribute))
}

/// Returns whether a value may be an index or a field of something.
pub(super) fn may_be_key(value: &Value) -> bool {
    matches!(value, Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::String(_))
}

fn constant_map(id: StepId, entries: Vec<(Node, Node)>) -> Result<Node, String> {
    let constants: Option<Vec<(Value, Value)>> =
        entries.iter().map(|(key, value)| Some((key.constant()?.clone(), value.constant()?.clone()))).collect();
    let Some(constants) = constants else { return Ok(Node::Map { id, entries }) };
    let mut map = Map::new();
    for (number, (key, value)) in constants.into_iter().enumerate() {
        map.insert(Key::of(key, number).map_err(|stop| stop.to_string())?, value);
    }
    Ok(Node::Constant { id, value: Value::Map(Arc::new(map)) })
}

fn constant_conversion(id: StepId, conversion: Conversion, value: &Value) -> Result<Node, String> {
    let function = Function::Convert(conversion);
    let converted = function.apply(std::slice::from_ref(value), &mut Meter::default());
    converted.map(|value| Node::Constant { id, value }).map_err(|failure| failure.to_string())
}

/// Returns the constants of a list as keys, together with the numbers of other types that equal them. Returns `None` if
/// one of them is not a primitive value.
fn constant_set(items: &[Value]) -> Option<Vec<Key>> {
    let mut set = Vec::new();
    let mut add = |value: Value| {
        if let Ok(Some(key)) = Key::finding(&value) {
            set.push(key);
        }
    };
    for item in items {
        match item {
            Value::Bool(_) | Value::String(_) => {}
            Value::Int(number) => {
                add(Value::Double(number::from_int(*number)));
                if let Ok(number) = u64::try_from(*number) {
                    add(Value::Uint(number));
                }
            }
            Value::Uint(number) => {
                add(Value::Double(number::from_uint(*number)));
                if let Ok(number) = i64::try_from(*number) {
                    add(Value::Int(number));
                }
            }
            Value::Double(number) => {
                if let Some(number) = number::exact_int(*number) {
                    add(Value::Int(number));
                }
                if let Some(number) = number::exact_uint(*number) {
                    add(Value::Uint(number));
                }
            }
            Value::Null
            | Value::Bytes(_)
            | Value::List(_)
            | Value::Map(_)
            | Value::Timestamp(_)
            | Value::Duration(_)
            | Value::IpAddress(_)
            | Value::Type(_) => return None,
        }
        add(item.clone());
    }
    Some(set)
}

fn literal_value(literal: &LiteralValue) -> Value {
    match literal {
        LiteralValue::Boolean(value) => Value::Bool(*value.inner()),
        LiteralValue::Bytes(bytes) => Value::Bytes(bytes.inner().into()),
        LiteralValue::Double(number) => Value::Double(*number.inner()),
        LiteralValue::Int(number) => Value::Int(*number.inner()),
        LiteralValue::Null => Value::Null,
        LiteralValue::String(text) => Value::string(text.inner()),
        LiteralValue::UInt(number) => Value::Uint(*number.inner()),
    }
}
