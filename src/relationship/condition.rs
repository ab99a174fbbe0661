//! Conditions: CEL expressions over typed parameters that decide whether a tuple counts for a request.
//!
//! Compiled once, when a model is written; whatever can be refused then is refused then. An evaluation is bounded by
//! [`COST_MAX`], its depth by the bounds on the expression. A parameter without a value is an error that names it, also
//! where the expression would not have looked at it, as in `OpenFGA`: never *met*, never *not met*.

mod constants;
mod cost;
mod inputs;
mod ip_address;
mod kind;
mod presence;
mod syntax;
#[cfg(test)]
mod tests;
mod type_check;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use cel::common::types;
use cel::common::value::CowVal;
use cel::{Context, Env, ExecutionError, IdedExpr, Value as CelValue};
use serde_json::{Map, Value};

use self::kind::Kind;
use super::model::Condition;
use super::tuple::is_clean;

pub use inputs::{ConditionInput, InputSource};
pub use syntax::{EXPRESSION_BYTES_MAX, NESTING_MAX};

/// Most that one evaluation may cost (`OpenFGA`'s default limit): see `cost.rs` for what costs how much.
pub const COST_MAX: u64 = 100;

/// Deepest expression that is evaluated on the stack of whoever asks.
const DEPTH_ON_STACK_MAX: usize = 60;

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib().with_optional_support(false);
    environment.set_error_on_duplicate_map_keys(false);
    if let Err(error) = environment.add_overload("int", "int_from_duration", vec![types::DURATION_TYPE], nanoseconds) {
        tracing::error!(%error, "CEL declares `int` of a duration by itself");
    }
    Arc::new(environment)
});

#[expect(clippy::needless_pass_by_value, reason = "the form of a function of CEL")]
fn nanoseconds<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let duration = arguments.first().and_then(|duration| duration.downcast_ref::<types::CelDuration>());
    let nanoseconds = duration.and_then(|duration| duration.inner().num_nanoseconds());
    let nanoseconds = nanoseconds.ok_or_else(|| ExecutionError::function_error("int", "duration out of range"))?;
    Ok(CowVal::owned(types::CelInt::from(nanoseconds)))
}

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
pub(super) type TypedContext = BTreeMap<String, CelValue>;

/// A condition that can be evaluated.
#[derive(Debug)]
pub(super) struct CompiledCondition {
    name: Arc<str>,
    parameters: BTreeMap<String, Kind>,
    expression: IdedExpr,
    /// The same expression with a meter on every step, where its cost is not known to be small.
    metered: Option<IdedExpr>,
    tests_presence: bool,
    is_deep: bool,
}

impl CompiledCondition {
    pub(super) fn compile(name: &str, condition: &Condition) -> Result<Self, CompileError> {
        let refused = |detail: String| CompileError { condition: name.to_owned(), detail };
        let mut parameters = BTreeMap::new();
        for (parameter, parameter_type) in &condition.parameters {
            let kind = Kind::of_parameter(parameter_type);
            let kind = kind.map_err(|detail| refused(format!("parameter `{parameter}`: {detail}")))?;
            parameters.insert(parameter.clone(), kind);
        }
        let compiled = syntax::on_a_large_stack(|| {
            let mut expression = syntax::parse(&ENVIRONMENT, &condition.expression)?;
            let result = type_check::kind_of(&expression, &parameters)?;
            if result != Kind::Bool {
                return Err(format!("the expression must be a bool, but it is a {result}"));
            }
            constants::check(&ENVIRONMENT, &expression)?;
            let tests_presence = presence::rewrite(&mut expression);
            let metered = (!cost::is_small(&expression)).then(|| cost::metered(&expression));
            let is_deep = syntax::depth(metered.as_ref().unwrap_or(&expression)) > DEPTH_ON_STACK_MAX;
            Ok(Self { name: name.into(), parameters, expression, metered, tests_presence, is_deep })
        });
        compiled.map_err(refused)
    }

    /// The values of a tuple's context. Unlike a request's, a tuple's may only have what the condition declares.
    pub(super) fn tuple_context(&self, context: &Map<String, Value>) -> Result<TypedContext, ConditionError> {
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
    pub(super) fn is_met(&self, tuple: &TypedContext, request: &Map<String, Value>) -> Result<bool, ConditionError> {
        if self.parameters.is_empty() && !request.is_empty() {
            return Err(ConditionError::NoParameters { condition: Arc::clone(&self.name) });
        }
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        let mut missing = Vec::new();
        for (parameter, kind) in &self.parameters {
            if let Some(value) = tuple.get(parameter) {
                context.add_variable_from_value(parameter, value.clone());
            } else if let Some(value) = request.get(parameter) {
                context.add_variable_from_value(parameter, self.convert(parameter, kind, value)?);
            } else {
                missing.push(parameter.clone());
            }
        }
        if !missing.is_empty() {
            return Err(ConditionError::Missing { condition: Arc::clone(&self.name), parameters: missing });
        }
        self.evaluate(context).map_err(|e| match e {
            Stop::TooCostly => ConditionError::TooCostly { condition: Arc::clone(&self.name) },
            Stop::Failed(detail) => ConditionError::Failed { condition: Arc::clone(&self.name), detail },
        })
    }

    fn evaluate(&self, mut context: Context<'_, '_>) -> Result<bool, Stop> {
        let spent = Arc::new(AtomicU64::new(0));
        let declared = |e: cel::DeclarationError| Stop::Failed(e.to_string());
        ip_address::declare(&mut context).map_err(declared)?;
        if self.tests_presence {
            presence::declare(&mut context).map_err(declared)?;
        }
        let expression = match &self.metered {
            None => &self.expression,
            Some(metered) => {
                cost::declare_meter(&mut context, Arc::clone(&spent)).map_err(declared)?;
                metered
            }
        };
        let result = if self.is_deep {
            let resolved = syntax::on_a_large_stack(|| Ok(CelValue::resolve(expression, &context)));
            resolved.map_err(Stop::Failed)?
        } else {
            CelValue::resolve(expression, &context)
        };
        // The error of the meter may have been absorbed by an operand of `||` or `&&`.
        if spent.load(Ordering::Relaxed) > COST_MAX {
            return Err(Stop::TooCostly);
        }
        match result {
            Ok(CelValue::Bool(met)) => Ok(met),
            Ok(other) => Err(Stop::Failed(format!("it gave {other:?}, not a bool"))),
            Err(e) => Err(Stop::Failed(message(&e))),
        }
    }

    fn convert(&self, parameter: &str, kind: &Kind, value: &Value) -> Result<CelValue, ConditionError> {
        value::convert(kind, value).map_err(|detail| ConditionError::WrongType {
            condition: Arc::clone(&self.name),
            parameter: parameter.to_owned(),
            detail,
        })
    }
}

enum Stop {
    TooCostly,
    Failed(String),
}

/// Longest text of an error; it may show values.
const MESSAGE_CHARACTERS_MAX: usize = 200;

fn message(error: &ExecutionError) -> String {
    error.to_string().chars().take(MESSAGE_CHARACTERS_MAX).collect()
}
