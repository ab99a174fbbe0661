//! Shows people the values that a condition was evaluated with.

use serde_json::{Map, Value};

use super::moment;
use super::value::{Key, Value as CelValue};
use super::{CompiledCondition, TypedContext};
use crate::language::tuple::canonical_value;

/// The longest text of one value, in characters.
const VALUE_CHARACTERS_MAX: usize = 80;

/// A parameter with its value and the value's origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionInput {
    /// The name of the parameter.
    pub parameter: String,
    /// The parameter's value as JSON, cut if it is long.
    pub value: String,
    /// The origin of the value.
    pub source: InputSource,
}

/// The origin of a parameter's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputSource {
    /// The tuple stores the value, which takes precedence over the request's.
    Tuple,
    /// The request brings the value.
    Request,
    /// There is no value, so the condition cannot be evaluated.
    Missing,
}

impl CompiledCondition {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the parameters, each with the value that [`CompiledCondition::is_met`] would use. A tuple whose stored
    /// values do not fit the condition has none.
    pub(crate) fn inputs(&self, tuple: Option<&TypedContext>, request: &Map<String, Value>) -> Vec<ConditionInput> {
        let input = |parameter: &String| {
            let of_tuple = tuple.and_then(|tuple| tuple.get(parameter)).map(shown);
            let of_request = || request.get(parameter).map(|value| canonical_value(value.clone()).to_string());
            let (value, source) = match (of_tuple, of_request) {
                (Some(value), _) => (value, InputSource::Tuple),
                (None, of_request) => match of_request() {
                    Some(value) => (value, InputSource::Request),
                    None => (String::new(), InputSource::Missing),
                },
            };
            ConditionInput { parameter: parameter.clone(), value: cut(&value), source }
        };
        self.parameters.keys().map(input).collect()
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Writes a value as JSON. The recursion is bounded because a stored context is bounded in size and nesting.
fn shown(value: &CelValue) -> String {
    match value {
        CelValue::List(list) => {
            let items: Vec<String> = list.items.iter().map(shown).collect();
            format!("[{}]", items.join(", "))
        }
        CelValue::Map(entries) => {
            let entry = |(key, item)| format!("{}: {}", shown_key(key), shown(item));
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!("{{{}}}", entries.join(", "))
        }
        CelValue::Int(number) => number.to_string(),
        CelValue::Uint(number) => number.to_string(),
        CelValue::Double(number) => number.to_string(),
        CelValue::String(text) => Value::String(text.to_string()).to_string(),
        CelValue::Bool(value) => value.to_string(),
        CelValue::Duration(nanoseconds) => moment::duration_text(*nanoseconds),
        CelValue::Timestamp(time) => time.text().unwrap_or_else(|| "…".to_owned()),
        CelValue::Null => "null".to_owned(),
        CelValue::IpAddress(address) => address.to_string(),
        // No parameter has a value of these types.
        CelValue::Bytes(_) | CelValue::Type(_) => "…".to_owned(),
    }
}

/// Returns a key's name. The keys of a context's maps are strings.
fn shown_key(key: &Key) -> &str {
    if let Key::String(name) = key { name } else { "…" }
}
