//! Conditions: CEL expressions over typed parameters that decide whether a tuple counts for a request.
//!
//! `cel` parses an expression; the rest is done here, so that every answer, every error and every cost is that of CEL in Go,
//! which `OpenFGA` uses. Compiled once, when a model is written; whatever can be refused then is refused then. An evaluation
//! is bounded by [`COST_MAX`] and by the bytes that it makes, its depth by the bounds on the expression. A parameter without a value is an error that names it, also
//! where the expression would not have looked at it, as in `OpenFGA`: never *met*, never *not met*.

mod context;
mod evaluate;
mod functions;
mod inputs;
mod ip_address;
mod kind;
mod meter;
mod moment;
mod number;
mod pattern;
mod plan;
mod signatures;
mod strings;
mod syntax;
#[cfg(test)]
mod tests;
mod type_check;
mod value;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::Env;
use serde_json::{Map, Value};

use self::kind::Kind;
use self::plan::Node;
use self::value::Value as CelValue;
use super::model::Condition;
use super::tuple::is_clean;

pub use inputs::{ConditionInput, InputSource};
pub(crate) use strings::string_length;
pub use syntax::{EXPRESSION_BYTES_MAX, NESTING_MAX};

/// Most that one evaluation may cost (`OpenFGA`'s default limit): see `meter.rs` for what costs how much.
pub const COST_MAX: u64 = 100;

/// Deepest expression that is evaluated on the stack of whoever asks.
const DEPTH_ON_STACK_MAX: usize = 60;

static ENVIRONMENT: LazyLock<Env> = LazyLock::new(|| Env::stdlib().with_optional_support(false));

/// Why a condition cannot be part of a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("condition `{condition}` cannot be compiled: {detail}")]
pub struct CompileError {
    /// The condition.
    pub condition: String,
    /// What is wrong with it.
    pub detail: String,
}

/// Why it was not decided whether a condition is met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// Parameters have no value, neither in the tuple nor in the request.
    #[error("condition `{condition}`: the context has no value for {}", Names(.parameters))]
    Missing {
        /// The condition.
        condition: Arc<str>,
        /// The parameters, sorted.
        parameters: Vec<String>,
    },
    /// A value does not have the parameter's type.
    #[error("condition `{condition}`: parameter `{parameter}`: {detail}")]
    WrongType {
        /// The condition.
        condition: Arc<str>,
        /// The parameter.
        parameter: String,
        /// What was expected and what was found.
        detail: String,
    },
    /// A tuple brings a value for a parameter that the condition does not have.
    #[error("condition `{condition}` has no parameter `{parameter}`")]
    UnknownParameter {
        /// The condition.
        condition: Arc<str>,
        /// The name that was found.
        parameter: String,
    },
    /// There are values, but the condition has no parameters at all.
    #[error("condition `{condition}` has no parameters, but the context has values")]
    NoParameters {
        /// The condition.
        condition: Arc<str>,
    },
    /// A value that a tuple brings has a control character.
    #[error("condition `{condition}`: the context of the tuple has control characters")]
    ControlCharacter {
        /// The condition.
        condition: Arc<str>,
    },
    /// The expression failed with these values, as in a division by zero.
    #[error("condition `{condition}` failed: {detail}")]
    Failed {
        /// The condition.
        condition: Arc<str>,
        /// How.
        detail: String,
    },
    /// It costs too much with these values.
    #[error("condition `{condition}` costs more than {COST_MAX} to evaluate")]
    TooCostly {
        /// The condition.
        condition: Arc<str>,
    },
}

struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}`{name}`")?;
        }
        Ok(())
    }
}

/// Values by parameter, of the parameters' types.
pub(crate) type TypedContext = BTreeMap<String, CelValue>;

/// A condition that can be evaluated.
#[derive(Debug)]
pub(crate) struct CompiledCondition {
    name: Arc<str>,
    parameters: BTreeMap<String, Kind>,
    /// The parameters have numbers in the order of their names.
    steps: Node,
    is_deep: bool,
}

impl CompiledCondition {
    pub(crate) fn compile(name: &str, condition: &Condition) -> Result<Self, CompileError> {
        let refused = |detail: String| CompileError { condition: name.to_owned(), detail };
        let mut parameters = BTreeMap::new();
        for (parameter, parameter_type) in &condition.parameters {
            let kind = Kind::of_parameter(parameter_type);
            let kind = kind.map_err(|detail| refused(format!("parameter `{parameter}`: {detail}")))?;
            parameters.insert(parameter.clone(), kind);
        }
        let compiled = syntax::on_a_large_stack(|| {
            let expression = syntax::parse(&ENVIRONMENT, &condition.expression)?;
            let notes = type_check::check(&expression, &parameters)?;
            let names: Vec<&str> = parameters.keys().map(String::as_str).collect();
            let steps = plan::plan(&expression, &names, &notes).map_err(|detail| cut(&detail))?;
            let is_deep = syntax::depth(&expression) > DEPTH_ON_STACK_MAX;
            Ok(Self { name: name.into(), parameters, steps, is_deep })
        });
        compiled.map_err(refused)
    }

    /// The values of a tuple's context. Unlike a request's, a tuple's may only have what the condition declares.
    pub(crate) fn tuple_context(&self, context: &Map<String, Value>) -> Result<TypedContext, ConditionError> {
        if let Some(unknown) = context.keys().find(|name| !self.parameters.contains_key(*name)) {
            return Err(ConditionError::UnknownParameter {
                condition: Arc::clone(&self.name),
                parameter: unknown.clone(),
            });
        }
        if context.values().any(|value| !is_clean(value)) {
            return Err(ConditionError::ControlCharacter { condition: Arc::clone(&self.name) });
        }
        let mut typed = TypedContext::new();
        for (parameter, value) in context {
            if let Some(kind) = self.parameters.get(parameter) {
                typed.insert(parameter.clone(), self.convert(parameter, kind, value)?);
            }
        }
        Ok(typed)
    }

    /// Whether it is met. A value of the tuple wins over one of the request.
    pub(crate) fn is_met(&self, tuple: &TypedContext, request: &Map<String, Value>) -> Result<bool, ConditionError> {
        if self.parameters.is_empty() && !request.is_empty() {
            return Err(ConditionError::NoParameters { condition: Arc::clone(&self.name) });
        }
        let mut values = Vec::with_capacity(self.parameters.len());
        let mut missing = Vec::new();
        for (parameter, kind) in &self.parameters {
            if let Some(value) = tuple.get(parameter) {
                values.push(value.clone());
            } else if let Some(value) = request.get(parameter) {
                values.push(self.convert(parameter, kind, value)?);
            } else {
                missing.push(parameter.clone());
            }
        }
        if !missing.is_empty() {
            return Err(ConditionError::Missing { condition: Arc::clone(&self.name), parameters: missing });
        }
        let failed = |detail: &str| ConditionError::Failed { condition: Arc::clone(&self.name), detail: cut(detail) };
        match self.evaluate(&values) {
            Ok(CelValue::Bool(met)) => Ok(met),
            Ok(other) => Err(failed(&format!("it gave a {}, not a bool", other.type_name()))),
            Err(Failure::Stop(Stop::TooCostly)) => Err(ConditionError::TooCostly { condition: Arc::clone(&self.name) }),
            Err(failure) => Err(failed(&failure.to_string())),
        }
    }

    fn evaluate(&self, values: &[CelValue]) -> Result<CelValue, Failure> {
        if !self.is_deep {
            return evaluate::evaluate(&self.steps, values);
        }
        let evaluated = syntax::on_a_large_stack(|| Ok(evaluate::evaluate(&self.steps, values)));
        evaluated.unwrap_or_else(|detail| Err(Failure::Error(detail.into())))
    }

    fn convert(&self, parameter: &str, kind: &Kind, value: &Value) -> Result<CelValue, ConditionError> {
        context::convert(kind, value).map_err(|detail| ConditionError::WrongType {
            condition: Arc::clone(&self.name),
            parameter: parameter.to_owned(),
            detail,
        })
    }
}

/// Why a step of an evaluation has no value.
#[derive(Clone, Debug, thiserror::Error)]
enum Failure {
    /// An error of CEL, which `&&` and `||` may pass over.
    #[error("{0}")]
    Error(Cow<'static, str>),
    #[error(transparent)]
    Stop(#[from] Stop),
}

impl Failure {
    fn no_such_overload(function: &str) -> Self {
        Self::Error(format!("no such overload of {function}").into())
    }
}

/// What ends an evaluation at once.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Stop {
    #[error("it costs more than {COST_MAX}")]
    TooCostly,
    #[error("it makes or compares more than {} bytes", meter::WORK_BYTES_MAX)]
    TooMuchWork,
    #[error("bytes are no key")]
    BytesAsKey,
    #[error("an address is no operand")]
    AddressAsOperand,
    #[error("a variable has no value")]
    Inconsistent,
}

/// Longest text of an error; it may show values.
const MESSAGE_CHARACTERS_MAX: usize = 200;

fn cut(message: &str) -> String {
    message.chars().take(MESSAGE_CHARACTERS_MAX).collect()
}
