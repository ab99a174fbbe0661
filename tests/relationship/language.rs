//! `OpenFGA`'s own cases for its modeling language: the same JSON, and the same mistakes in the same places.

use std::collections::BTreeSet;
use std::path::Path;

use ragward::language::dsl::modules::{self, ModuleText};
use ragward::language::dsl::{self, SourceErrors};
use ragward::language::{Object, json};
use serde::Deserialize;
use serde_json::Value;

use crate::support::shared_data::shared;

#[derive(Deserialize)]
struct Case {
    name: String,
    dsl: String,
    #[serde(default)]
    skip: bool,
    #[serde(default)]
    expected_errors: Vec<ExpectedError>,
}

/// An expected error. Its lines and columns are counted from 0.
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
    let path = shared(&format!("openfga-tests/language/{file}"))?;
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
    let Some(root) = shared("openfga-tests/language/transformer") else { return };
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

/// Returns the JSON without members that are empty or null.
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
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
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
            // OpenFGA's tools do not find these loops of computed relations. Its server does, and refuses the models.
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
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert_eq!((right, wrong), (7, 84));
}

#[derive(Deserialize)]
struct ManifestCase {
    name: String,
    #[serde(rename = "modFile")]
    text: String,
    #[serde(default)]
    expected_errors: Vec<ExpectedError>,
}

#[test]
fn manifests_are_read_and_their_mistakes_found_in_their_place() {
    let Some(path) = shared("openfga-tests/language/fga-mod-transformer-cases.yaml") else { return };
    let text = std::fs::read_to_string(path).expect("readable");
    let cases: Vec<ManifestCase> = serde_saphyr::from_str(&text).expect("the form of OpenFGA's cases");
    for case in &cases {
        let parsed = modules::parse_manifest(&case.text);
        if case.expected_errors.is_empty() {
            assert_eq!(parsed.expect(&case.name).len(), 4, "{}", case.name);
            continue;
        }
        let lines = |places: BTreeSet<(usize, usize)>| places.into_iter().map(|(line, _)| line).collect::<Vec<usize>>();
        let expected = case.expected_errors.iter().map(|e| (e.line.start + 1, e.column.start + 1)).collect();
        let found = places(&parsed.expect_err(&case.name));
        assert_eq!(lines(found), lines(expected), "{}", case.name);
    }
    assert_eq!(cases.len(), 9);
}

fn module_texts(folder: &Path) -> Vec<ModuleText> {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(folder.join("module")).expect("a folder") {
        let path = entry.expect("an entry").path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        texts.push(ModuleText { file, text: std::fs::read_to_string(&path).expect("readable") });
    }
    texts.sort_by(|a, b| a.file.cmp(&b.file));
    texts
}

#[test]
fn modules_are_one_model() {
    let Some(root) = shared("openfga-tests/language/transformer-module") else { return };
    for folder in ["00-simple-module", "02-module-with-extends"] {
        let folder = root.join(folder);
        let name = folder.display();
        let model = modules::load(&module_texts(&folder)).unwrap_or_else(|e| panic!("{name}: {}", e.picture()));
        let model = model.source().clone();
        let golden = std::fs::read_to_string(folder.join("authorization-model.json")).expect("readable");
        let types = |json: &str| {
            let mut json = normal(json);
            let types = json.get_mut("type_definitions").and_then(Value::as_array_mut).expect("types");
            types.sort_by_key(|definition| definition["type"].to_string());
            json
        };
        assert_eq!(types(&json::print(&model).expect("written")), types(&golden), "{name}");
        for model in [model, json::parse(&golden).expect("a model")] {
            let text = |name: &str| std::fs::read_to_string(folder.join(name)).expect("readable");
            assert_eq!(dsl::print(&model).trim_end(), text("combined.fga").trim_end(), "{name}");
            let with_sources = dsl::print_with_sources(&model);
            assert_eq!(with_sources.trim_end(), text("combined-sourceinfo.fga").trim_end(), "{name}");
            assert!(dsl::parse(&with_sources).is_ok(), "{name}: {with_sources}");
        }
    }
    let errors = modules::load(&module_texts(&root.join("01-module-with-errors"))).expect_err("mistakes");
    let found: Vec<String> = errors
        .0
        .iter()
        .flat_map(|m| m.errors.errors().iter().map(|e| format!("{}:{}", m.module.file, e.span.start.line)))
        .collect();
    assert_eq!(found, ["nomodule.fga:1", "org.fga:7", "org.fga:11", "org.fga:13", "syntax-error.fga:4"]);
}

#[derive(Deserialize)]
struct IdCase {
    name: String,
    object_id: String,
    valid: bool,
}

#[test]
fn object_ids_are_told_apart_as_by_the_tools() {
    // The tools refuse more than the server, whose ids may hold anything but `#`, `:` and white space.
    const TAKEN_BY_THE_SERVER: [&str; 1] = ["a,b"];
    let Some(path) = shared("openfga-tests/language/object-id-validation-cases.yaml") else { return };
    let text = std::fs::read_to_string(path).expect("readable");
    let cases: Vec<IdCase> = serde_saphyr::from_str(&text).expect("the form of OpenFGA's cases");
    for case in &cases {
        let expected = case.valid || TAKEN_BY_THE_SERVER.contains(&case.object_id.as_str());
        let object = Object::parse(&format!("document:{}", case.object_id));
        assert_eq!(object.is_ok(), expected, "{}: {object:?}", case.name);
    }
    assert_eq!(cases.len(), 23);
}
