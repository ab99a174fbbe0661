//! Conditions: CEL expressions over typed parameters, which decide whether a tuple counts for a request.
//!
//! The crate `cel` parses an expression. This module does the rest itself, so that every answer, error and cost is that
//! of CEL in Go, which `OpenFGA` uses. A condition is compiled once, when its model is written. If this finds a
//! mistake, the model is refused. [`COST_MAX`] limits an evaluation, and so does a bound on the bytes that it makes.
//! Bounds on the expression limit its depth.
//!
//! As in `OpenFGA`, an evaluation fails if a parameter has no value, even if the expression would not have used it. The
//! error names the parameter. Such a condition is neither *met* nor *not met*.

mod comparison;
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

/// The cost that one evaluation may have: `OpenFGA`'s default limit. `meter.rs` counts it.
pub const COST_MAX: u64 = 100;

/// The deepest expression that is evaluated on the caller's stack. Deeper ones get a stack of their own.
const DEPTH_ON_STACK_MAX: usize = 60;

static ENVIRONMENT: LazyLock<Env> = LazyLock::new(|| Env::stdlib().with_optional_support(false));

/// A mistake for which a condition cannot be part of a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("condition `{condition}` cannot be compiled: {detail}")]
pub struct CompileError {
    /// The name of the condition.
    pub condition: String,
    /// The mistake in it.
    pub detail: String,
}

/// The reason why an evaluation did not decide whether a condition is met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// Neither the tuple nor the request has a value for some parameters.
    #[error("condition `{condition}`: the context has no value for {}", Names(.parameters))]
    Missing {
        /// The name of the condition.
        condition: Arc<str>,
        /// The parameters without a value, sorted.
        parameters: Vec<String>,
    },
    /// A value does not have the parameter's type.
    #[error("condition `{condition}`: parameter `{parameter}`: {detail}")]
    WrongType {
        /// The name of the condition.
        condition: Arc<str>,
        /// The name of the parameter.
        parameter: String,
        /// The expected type and the value that was found.
        detail: String,
    },
    /// A tuple stores a value for a parameter that the condition does not declare.
    #[error("condition `{condition}` has no parameter `{parameter}`")]
    UnknownParameter {
        /// The name of the condition.
        condition: Arc<str>,
        /// The name that the tuple has a value for.
        parameter: String,
    },
    /// There are values, but the condition declares no parameters at all.
    #[error("condition `{condition}` has no parameters, but the context has values")]
    NoParameters {
        /// The name of the condition.
        condition: Arc<str>,
    },
    /// A value that a tuple stores has a control character.
    #[error("condition `{condition}`: the context of the tuple has control characters")]
    ControlCharacter {
        /// The name of the condition.
        condition: Arc<str>,
    },
    /// The expression failed with these values, as in a division by zero.
    #[error("condition `{condition}` failed: {detail}")]
    Failed {
        /// The name of the condition.
        condition: Arc<str>,
        /// The error of the expression.
        detail: String,
    },
    /// With these values, the evaluation costs more than [`COST_MAX`].
    #[error("condition `{condition}` costs more than {COST_MAX} to evaluate")]
    TooCostly {
        /// The name of the condition.
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

/// Values for parameters, each converted to the parameter's type.
pub(crate) type TypedContext = BTreeMap<String, CelValue>;

/// A condition that is ready for evaluation.
#[derive(Debug)]
pub(crate) struct CompiledCondition {
    name: Arc<str>,
    parameters: BTreeMap<String, Kind>,
    /// The compiled expression. It numbers the parameters in the order of their names.
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

    /// Converts the values of a tuple's context. Unlike a request's context, a tuple's may hold only declared
    /// parameters.
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

    /// Evaluates the condition. The tuple's value for a parameter takes precedence over the request's.
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

/// The reason why a step of an evaluation has no value.
#[derive(Clone, Debug, thiserror::Error)]
enum Failure {
    /// An error of CEL. `&&` and `||` absorb it if their other side decides.
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

/// A failure that ends the evaluation at once.
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

/// The longest error message. Messages may show values.
const MESSAGE_CHARACTERS_MAX: usize = 200;

fn cut(message: &str) -> String {
    message.chars().take(MESSAGE_CHARACTERS_MAX).collect()
}
