//! `OpenFGA`'s own cases for its modeling language: the same JSON, the same mistakes in the same places.
#![cfg(test)]

#[path = "support/shared.rs"]
mod support;

use std::collections::BTreeSet;

use ragward::relationship::dsl::{self, SourceErrors};
use ragward::relationship::json;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Case {
    name: String,
    dsl: String,
    #[serde(default)]
    skip: bool,
    #[serde(default)]
    expected_errors: Vec<ExpectedError>,
}

/// Lines and columns are counted from 0 here.
#[derive(Deserialize)]
struct ExpectedError {
    line: Range,
    column: Range,
}

#[derive(Deserialize)]
struct Range {
    start: usize,
}

fn cases(file: &str) -> Option<Vec<Case>> {
    let path = support::shared(&format!("openfga-tests/language/{file}"))?;
    let text = std::fs::read_to_string(path).expect("readable");
    Some(serde_saphyr::from_str(&text).expect("the form of OpenFGA's cases"))
}

fn expected_places(case: &Case) -> BTreeSet<(usize, usize)> {
    case.expected_errors.iter().map(|e| (e.line.start + 1, e.column.start + 1)).collect()
}

fn places(errors: &SourceErrors) -> BTreeSet<(usize, usize)> {
    errors.errors().iter().map(|e| (e.span.start.line, e.span.start.column)).collect()
}

#[test]
fn json_and_text_are_the_same_models() {
    let Some(root) = support::shared("openfga-tests/language/transformer") else { return };
    let mut models = 0;
    for folder in std::fs::read_dir(root).expect("a folder") {
        let folder = folder.expect("an entry").path();
        let at = folder.display().to_string();
        let text = std::fs::read_to_string(folder.join("authorization-model.fga")).expect("readable");
        let golden = std::fs::read_to_string(folder.join("authorization-model.json")).expect("readable");
        let from_text = dsl::parse(&text).unwrap_or_else(|e| panic!("{at}: {}", e.picture(&text))).model;
        let from_json = json::parse(&golden).unwrap_or_else(|e| panic!("{at}: {e}"));

        let written = json::print(&from_text).expect("written");
        assert_eq!(normal(&written), normal(&golden), "{at}: text to JSON");
        let through_json = json::print(&from_json).expect("written");
        assert_eq!(normal(&through_json), normal(&golden), "{at}: JSON to JSON");
        let printed = dsl::print(&from_json);
        let read_back = dsl::parse(&printed).unwrap_or_else(|e| panic!("{at}: {}", e.picture(&printed))).model;
        assert_eq!(read_back, from_json, "{at}: JSON to text");
        assert_eq!(dsl::parse(&dsl::print(&from_text)).map(|d| d.model), Ok(from_text), "{at}: text to text");
        models += 1;
    }
    assert_eq!(models, 16);
}

/// JSON without what says nothing: empty and null members.
fn normal(json: &str) -> Value {
    fn strip(value: Value) -> Value {
        match value {
            Value::Object(members) => {
                let kept = members.into_iter().map(|(key, value)| (key, strip(value)));
                let says_nothing = |key: &str, value: &Value| {
                    let empty_map = value.as_object().is_some_and(serde_json::Map::is_empty);
                    let empty_list = value.as_array().is_some_and(Vec::is_empty);
                    (empty_map && key != "this" && key != "wildcard") || empty_list || value.is_null()
                };
                Value::Object(kept.filter(|(key, value)| !says_nothing(key, value)).collect())
            }
            Value::Array(items) => Value::Array(items.into_iter().map(strip).collect()),
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
        }
    }
    strip(serde_json::from_str(json).expect("JSON"))
}

#[test]
fn syntax_mistakes_are_found_in_their_line() {
    let Some(cases) = cases("dsl-syntax-validation-cases.yaml") else { return };
    let (mut right, mut wrong) = (0, 0);
    let mut elsewhere = Vec::new();
    for case in &cases {
        if case.expected_errors.is_empty() {
            dsl::parse(&case.dsl).unwrap_or_else(|e| panic!("{}: {}", case.name, e.picture(&case.dsl)));
            right += 1;
            continue;
        }
        let Err(errors) = dsl::load(&case.dsl) else { panic!("{}: it was taken", case.name) };
        wrong += 1;
        let first_line = |places: &BTreeSet<(usize, usize)>| places.first().map(|(line, _)| *line);
        if first_line(&places(&errors)) != first_line(&expected_places(case)) {
            elsewhere.push(case.name.as_str());
        }
    }
    // A module is refused in its first line.
    assert_eq!(elsewhere, ["disallows multiple extends for same type"]);
    assert_eq!((right, wrong), (31, 50));
}

#[test]
fn semantic_mistakes_are_found_in_their_place() {
    let Some(cases) = cases("dsl-semantic-validation-cases.yaml") else { return };
    let (mut right, mut wrong) = (0, 0);
    let mut elsewhere = Vec::new();
    for case in &cases {
        if case.expected_errors.is_empty() {
            let loaded = dsl::load(&case.dsl);
            // OpenFGA's tools do not see these loops of computed relations; its server does, and refuses the models.
            assert_eq!(loaded.is_err(), case.skip, "{}: {:?}", case.name, loaded.err());
            right += 1;
            continue;
        }
        let Err(errors) = dsl::load(&case.dsl) else { panic!("{}: it was taken", case.name) };
        wrong += 1;
        if places(&errors) != expected_places(case) {
            elsewhere.push(case.name.as_str());
        }
    }
    // Schema 1.2 is refused before anything else is looked at.
    let with_schema_1_2 = [
        "missing relation reference with a trailing comment on the type line",
        "multiple missing relation references with module comments on every type line",
    ];
    assert_eq!(elsewhere, with_schema_1_2);
    assert_eq!((right, wrong), (7, 84));
}
