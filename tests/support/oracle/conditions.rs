//! The conditions of random worlds, written a second time in Rust, without CEL.

use serde_json::{Map, Value};

/// Evaluates a condition. Returns `None` if it fails. The tuple's value takes precedence over the request's.
pub(crate) fn is_met(name: &str, stored: &Map<String, Value>, request: &Map<String, Value>) -> Option<bool> {
    let value = |parameter: &str| stored.get(parameter).or_else(|| request.get(parameter));
    let whole = |parameter| {
        let number = value(parameter)?.as_f64()?;
        (number.fract() == 0.0).then_some(number)
    };
    let text = |parameter| value(parameter)?.as_str();
    match name {
        "small" => Some(whole("x")? < 3.0),
        "named" => Some(matches!(text("s")?, "a" | "b")),
        "enabled" => value("b")?.as_bool(),
        "listed" => {
            let list: Option<Vec<&str>> = value("l")?.as_array()?.iter().map(Value::as_str).collect();
            let sought = text("s")?;
            Some(list?.contains(&sought))
        }
        "divides" => {
            let x = whole("x")?;
            (x != 0.0).then(|| (6.0 / x).trunc() > 1.0)
        }
        other => panic!("`{other}` is no condition of a random world"),
    }
}
