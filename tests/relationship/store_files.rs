//! The store files that `ragward test` passes, fails and refuses, compared with `fga model test`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ragward::store_file;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::fga::{Fga, Verdict};

/// The number of runs of `fga` at the same time.
const THREADS: usize = 4;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    head: String,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    rest: Option<String>,
    whole: Option<String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
    verdict: Verdict,
    /// The verdict of `fga`, if it differs.
    fga: Option<Verdict>,
    /// The reason, which is required if one passes and the other does not.
    why: Option<String>,
}

fn rows() -> (String, Vec<Row>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store_files.yaml");
    let Rows { head, rows } = serde_saphyr::from_str(&std::fs::read_to_string(path).expect("the rows")).expect("rows");
    (head, rows)
}

impl Row {
    /// Writes the files and returns the path of the store file.
    fn write(&self, head: &str, directory: &Path) -> PathBuf {
        let folder = directory.join("store");
        std::fs::create_dir(&folder).expect("a folder");
        for (name, text) in &self.files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, text).expect("written");
        }
        let text = match (&self.rest, &self.whole) {
            (Some(rest), None) => format!("{head}{rest}\n"),
            (None, Some(whole)) => whole.clone(),
            _ => panic!("{}: one of `rest` and `whole`", self.name),
        };
        let path = folder.join("store.fga.yaml");
        std::fs::write(&path, text).expect("written");
        path
    }
}

/// Returns our verdict, and why a file is refused.
fn ours(path: &Path) -> (Verdict, String) {
    let store = match store_file::read(path) {
        Ok(store) => store,
        Err(error) => return (Verdict::Refused, error.to_string()),
    };
    match store_file::run(store) {
        Ok(outcome) if outcome.passed() => (Verdict::Pass, String::new()),
        Ok(_) => (Verdict::Fail, String::new()),
        Err(misfit) => (Verdict::Refused, misfit.to_string()),
    }
}

/// Returns the result of `make` for each item, in the order of the items.
fn in_parallel<T: Sync, R: Send>(items: &[T], make: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let make = &make;
    std::thread::scope(|scope| {
        let chunks = items.chunks(items.len().div_ceil(THREADS).max(1));
        let threads: Vec<_> =
            chunks.map(|chunk| scope.spawn(move || chunk.iter().map(make).collect::<Vec<R>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect()
    })
}

#[test]
fn each_row_has_its_verdict() {
    let (head, rows) = rows();
    let mut wrong = Vec::new();
    for row in &rows {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (verdict, why) = ours(&row.write(&head, directory.path()));
        if verdict != row.verdict {
            wrong.push(format!("{}: {verdict:?} {why}", row.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn fga_says_the_same_or_there_is_a_reason() {
    let Some(fga) = Fga::find() else { return };
    let (head, rows) = rows();
    let wrong = in_parallel(&rows, |row| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let verdict = fga.test(&row.write(&head, directory.path()));
        let expected = row.fga.unwrap_or(row.verdict);
        let passes = |verdict| verdict == Verdict::Pass;
        if verdict != expected {
            return Some(format!("{}: fga says {verdict:?}", row.name));
        }
        // Refusing a file in place of failing an assertion is a difference that needs no reason.
        let needs_a_reason = passes(expected) != passes(row.verdict);
        (needs_a_reason != row.why.is_some()).then(|| format!("{}: a reason where there is a difference", row.name))
    });
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Returns a store file with one of everything.
fn complete() -> Value {
    let model = "model\n  schema 1.1\ntype user\ntype group\n  relations\n    define member: [user]\ntype doc\n  relations\n    \
                 define owner: [user]\n    define viewer: [user, group#member, user with recent] or owner\ncondition \
                 recent(age: int) {\n  age < 10\n}\n";
    json!({
        "name": "store",
        "model": model,
        "tuples": [
            {"user": "user:1", "relation": "owner", "object": "doc:1"},
            {"user": "user:2", "relation": "viewer", "object": "doc:1", "condition": {"name": "recent", "context": {"age": 3}}},
        ],
        "tuple_file": "t.json",
        "tuple_files": ["t.csv"],
        "tests": [{
            "name": "test",
            "description": "all of it",
            "tuples": [{"user": "user:5", "relation": "owner", "object": "doc:1"}],
            "tuple_file": "u.json",
            "check": [
                {"user": "user:1", "object": "doc:1", "context": {"age": 1}, "assertions": {"viewer": true, "owner": true}},
                {"users": ["user:2"], "objects": ["doc:1"], "assertions": {"viewer": true}},
            ],
            "list_objects": [{"user": "user:1", "type": "doc", "context": {"age": 1}, "assertions": {"viewer": ["doc:1"]}}],
            "list_users": [{
                "object": "doc:1", "user_filter": [{"type": "group", "relation": "member"}], "context": {"age": 1},
                "assertions": {"viewer": {"users": ["group:1#member"]}},
            }],
        }],
    })
}

const TUPLE_FILES: [(&str, &str); 3] = [
    ("t.json", r#"[{"user": "user:3", "relation": "owner", "object": "doc:1"}]"#),
    ("t.csv", "user_type,user_id,user_relation,relation,object_type,object_id\ngroup,1,member,viewer,doc,1\n"),
    ("u.json", r#"[{"user": "user:4", "relation": "owner", "object": "doc:1"}]"#),
];

/// Collects every place below `value`, as a JSON pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(items) => items.iter().enumerate().for_each(|(i, item)| places(item, &format!("{at}/{i}"), found)),
        Value::Object(fields) => fields.iter().for_each(|(name, field)| places(field, &format!("{at}/{name}"), found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Returns the complete file with each of its places changed in each way.
fn changed_files() -> Vec<(String, Value)> {
    let complete = complete();
    let mut all_places = Vec::new();
    places(&complete, "", &mut all_places);
    let values = [
        json!(null),
        json!(""),
        json!("x"),
        json!("user:1"),
        json!("yes"),
        json!(1),
        json!(1.5),
        json!(true),
        json!(false),
        json!([]),
        json!([null]),
        json!([""]),
        json!({}),
        json!({"x": 1}),
    ];
    let mut files = vec![("as it is".to_owned(), complete.clone())];
    for place in &all_places {
        for value in &values {
            let mut file = complete.clone();
            *file.pointer_mut(place).expect("a place") = value.clone();
            files.push((format!("{place} = {value}"), file));
        }
        let mut file = complete.clone();
        match file.pointer_mut(place).expect("a place") {
            Value::Array(items) => items.push(items[0].clone()),
            Value::Object(fields) => drop(fields.insert("unknown".to_owned(), json!("x"))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => continue,
        }
        files.push((format!("{place} with more"), file));
    }
    for place in &all_places {
        let Some((parent, name)) = place.rsplit_once('/') else { continue };
        let mut file = complete.clone();
        match file.pointer_mut(parent).expect("a place") {
            Value::Array(items) => drop(items.remove(name.parse().expect("an index"))),
            Value::Object(fields) => drop(fields.remove(name)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => continue,
        }
        files.push((format!("{place} left out"), file));
    }
    files
}

/// The files that we refuse and `fga` passes, by our message.
const STRICTER: [(&str, &str); 3] = [
    ("list_objects 1: user `` must have the form", "fga asks nothing where nothing is asserted"),
    ("it has neither `model` nor `model_file`", "fga asks a server then, and passes where nothing is asked"),
    ("must be a list of one filter", "fga looks at the first one alone"),
];

#[test]
fn a_file_that_is_changed_anywhere_passes_only_where_fga_passes_it() {
    let Some(fga) = Fga::find() else { return };
    let files = changed_files();
    let wrong = in_parallel(&files, |(change, file)| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in TUPLE_FILES {
            std::fs::write(directory.path().join(name), text).expect("written");
        }
        let path = directory.path().join("store.fga.yaml");
        std::fs::write(&path, file.to_string()).expect("written");
        let (verdict, told) = ours(&path);
        let reference = fga.test(&path);
        let alike = (verdict == Verdict::Pass) == (reference == Verdict::Pass);
        let stricter = verdict == Verdict::Refused && STRICTER.iter().any(|(words, _)| told.contains(words));
        (!alike && !stricter).then(|| format!("{change}: {verdict:?}, fga {reference:?}; {told}"))
    });
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), files.len());
}
