//! The conditions of random worlds, written down a second time, in Rust: no CEL here.

use serde_json::{Map, Value};

/// Whether a condition is met; `None` where it fails. A value of the tuple wins over one of the request.
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
