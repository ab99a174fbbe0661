//! The flag for values that a request states for the conditions of the model.

use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Failure;
use super::contextual::context_message;
use crate::language::tuple::shown;

#[derive(Debug, Args)]
pub(super) struct RequestContextArgs {
    /// Set a parameter of the model's conditions, as JSON: `purpose="audit"`. The server must let requests set it
    /// (`identity.request_context`). May be given more than once.
    #[arg(long = "context", value_name = "KEY=JSON")]
    values: Vec<String>,
}

impl RequestContextArgs {
    /// Returns the message of all values, or `None` if there are none.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        let values = self.values()?;
        if values.is_empty() { Ok(None) } else { context_message(values).map(Some) }
    }

    fn values(&self) -> Result<Map<String, Value>, Failure> {
        let mut values = Map::new();
        for text in &self.values {
            let wrong = |why: &str| Failure::usage(format!("`--context {}`: {why}", shown(text)));
            let (key, json) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
                wrong("give the name of a parameter and its value as JSON, as in `purpose=\"audit\"` or `level=3`")
            })?;
            let value: Value = serde_json::from_str(json)
                .map_err(|e| wrong(&format!("the value must be JSON; a text stands in quotes ({e})")))?;
            if values.insert(key.to_owned(), value).is_some() {
                return Err(wrong("this parameter has a value already"));
            }
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_flag_sets_one_parameter() {
        let rows: [(&str, &[&str], Option<Value>); 9] = [
            ("none", &[], Some(json!({}))),
            ("a text", &["purpose=\"audit\""], Some(json!({"purpose": "audit"}))),
            ("a text with `=`", &["purpose=\"a=b\""], Some(json!({"purpose": "a=b"}))),
            ("a number and a list", &["level=3", "of=[\"a\"]"], Some(json!({"level": 3, "of": ["a"]}))),
            ("a text without quotes", &["purpose=audit"], None),
            ("no value", &["purpose"], None),
            ("an empty value", &["purpose="], None),
            ("no name", &["=1"], None),
            ("one parameter twice", &["level=3", "level=3"], None),
        ];
        for (row, flags, expected) in rows {
            let values = flags.iter().map(|flag| (*flag).to_owned()).collect();
            let found = RequestContextArgs { values }.values().ok().map(Value::Object);
            assert_eq!(found, expected, "{row}");
        }
    }
}
