//! The flags for contextual tuples and values of conditions, which hold for one question only.

use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Failure;
use crate::engine::Contextual;
use crate::language::RelationshipTuple;
use crate::language::tuple::{TupleCondition, shown};

#[derive(Debug, Args)]
pub(super) struct ContextualArgs {
    /// Add a tuple for this question only: `user:anne reader document:handbook`, followed by its condition if it has
    /// one: `… with in_hours {"opens": 9}`. May be given more than once.
    #[arg(long = "contextual-tuple", value_name = "TUPLE")]
    tuples: Vec<String>,
    /// Values for the parameters of conditions, as a JSON object: `{"hour": 9}`, or `@FILE` to read it from a file.
    #[arg(long, value_name = "JSON|@FILE")]
    context: Option<String>,
}

impl ContextualArgs {
    pub(super) fn read(&self) -> Result<Contextual, Failure> {
        let tuples: Result<Vec<RelationshipTuple>, Failure> = self.tuples.iter().map(|text| read_tuple(text)).collect();
        let context = self.context.as_deref().map(read_context).transpose()?;
        Ok(Contextual { tuples: tuples?, context: context.unwrap_or_default() })
    }
}

/// Turns values for conditions into their message.
pub(super) fn context_message<T: DeserializeOwned>(context: Map<String, Value>) -> Result<T, Failure> {
    let context = Value::Object(context);
    serde_json::from_value(context).map_err(|e| Failure::usage(format!("the context cannot be sent: {e}")))
}

fn read_tuple(text: &str) -> Result<RelationshipTuple, Failure> {
    let wrong = |why: &str| Failure::usage(format!("`--contextual-tuple {}`: {why}", shown(text)));
    let (user, rest) = next_word(text);
    let (relation, rest) = next_word(rest);
    let (object, rest) = next_word(rest);
    if object.is_empty() {
        return Err(wrong("give user, relation and object, as in `user:anne reader document:handbook`"));
    }
    let tuple = RelationshipTuple::parse(user, relation, object).map_err(|e| wrong(&e.to_string()))?;
    let (with, rest) = next_word(rest);
    match with {
        "" => Ok(tuple),
        "with" => {
            let (name, context) = next_word(rest);
            if name.is_empty() {
                return Err(wrong("name the condition after `with`"));
            }
            let condition = TupleCondition::parse(name, context).map_err(|e| wrong(&e.to_string()))?;
            Ok(tuple.with_condition(condition))
        }
        _ => Err(wrong("only `with` and the name of a condition can follow the object")),
    }
}

fn next_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_once(char::is_whitespace).unwrap_or((text, ""))
}

/// Reads a context from the value of `--context`.
pub(super) fn read_context(argument: &str) -> Result<Map<String, Value>, Failure> {
    let (text, source) = match argument.strip_prefix('@') {
        None => (argument.to_owned(), "`--context`".to_owned()),
        Some(file) => {
            let source = format!("`--context @{file}`");
            let text = std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("{source}: {e}")))?;
            (text, source)
        }
    };
    serde_json::from_str(&text).map_err(|e| {
        let what = "it must be a JSON object of parameters, as in `{\"hour\": 9}`";
        Failure::usage(format!("{source}: {what} ({e})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuples_are_read_with_and_without_a_condition() {
        let rows = [
            ("user:anne reader doc:1", Some("user:anne reader doc:1"), None),
            ("  group:a#member\treader  doc:1 ", Some("group:a#member reader doc:1"), None),
            ("user:a reader doc:1 with c", Some("user:a reader doc:1"), Some(("c", "{}"))),
            ("user:a reader doc:1 with c {\"x\": 1}", Some("user:a reader doc:1"), Some(("c", "{\"x\":1}"))),
            ("user:a reader", None, None),
            ("", None, None),
            ("anne reader doc:1", None, None),
            ("user:a reader doc:1 if c", None, None),
            ("user:a reader doc:1 with", None, None),
            ("user:a reader doc:1 with c [1]", None, None),
        ];
        for (text, names, condition) in rows {
            let read = read_tuple(text).ok();
            let found = read.as_ref().and_then(|tuple| tuple.condition.as_ref());
            assert_eq!(found.map(|c| (c.name(), c.context_json())), condition, "{text}");
            assert_eq!(read.as_ref().map(ToString::to_string).as_deref(), names, "{text}");
        }
    }

    #[test]
    fn a_context_is_an_object_here_or_in_a_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("context.json");
        std::fs::write(&file, "{\"x\": 2}").expect("written");
        let at = |file: &std::path::Path| format!("@{}", file.display());
        assert_eq!(read_context("{\"x\": 1}").expect("read").get("x"), Some(&Value::from(1)));
        assert_eq!(read_context(&at(&file)).expect("read").get("x"), Some(&Value::from(2)));
        for wrong in ["[1]", "{", "x=1", &at(&directory.path().join("gone"))] {
            assert!(read_context(wrong).is_err(), "{wrong}");
        }
    }
}
