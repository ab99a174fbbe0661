//! `OpenFGA`'s own check cases against the evaluator: as stored tuples, in the order of the file and in other orders, and
//! as contextual tuples. `RAGWARD_OPENFGA_TESTS` names another folder with files of that form.
#![cfg(test)]

#[path = "support/shared.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ragward::relationship::snapshot::{CONTEXTUAL_TUPLES_MAX, Snapshot, UserFilter};
use ragward::relationship::store::{OnConflict, RelationshipStores};
use ragward::relationship::{Object, Relation, RelationshipTuple, TupleCondition, TypeName, User, dsl};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Cases {
    tests: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    stages: Vec<Stage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stage {
    model: String,
    #[serde(default)]
    tuples: Option<Vec<Tuple>>,
    #[serde(default)]
    check_assertions: Option<Vec<CheckAssertion>>,
    #[serde(default)]
    list_objects_assertions: Option<Vec<ListObjectsAssertion>>,
    #[serde(default)]
    list_users_assertions: Option<Vec<ListUsersAssertion>>,
}

#[derive(Deserialize, Clone)]
struct Tuple {
    user: String,
    relation: String,
    object: String,
    #[serde(default)]
    condition: Option<Condition>,
}

#[derive(Deserialize, Clone)]
struct Condition {
    name: String,
    #[serde(default)]
    context: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CheckAssertion {
    #[serde(default)]
    name: Option<String>,
    tuple: Tuple,
    #[serde(default)]
    contextual_tuples: Option<Vec<Tuple>>,
    #[serde(default)]
    context: Option<Map<String, Value>>,
    #[serde(default)]
    expectation: bool,
    #[serde(default)]
    error_code: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListObjectsAssertion {
    request: ListObjectsRequest,
    #[serde(default)]
    contextual_tuples: Option<Vec<Tuple>>,
    #[serde(default)]
    context: Option<Map<String, Value>>,
    #[serde(default)]
    expectation: Option<Vec<String>>,
    #[serde(default)]
    error_code: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListUsersAssertion {
    request: ListUsersRequest,
    #[serde(default)]
    contextual_tuples: Option<Vec<Tuple>>,
    #[serde(default)]
    context: Option<Map<String, Value>>,
    #[serde(default)]
    expectation: Option<Vec<String>>,
    #[serde(default)]
    error_code: Option<u32>,
}

#[derive(Deserialize)]
struct ListUsersRequest {
    /// `user` or `group#member`.
    filters: Vec<String>,
    object: String,
    relation: String,
}

#[derive(Deserialize)]
struct ListObjectsRequest {
    user: String,
    #[serde(rename = "type")]
    type_name: String,
    relation: String,
}

/// What was asked, so that nothing is left out without notice.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Asked {
    cases: usize,
    stages: usize,
    checks: usize,
    object_lists: usize,
    user_lists: usize,
}

/// How the tuples of a case are given.
#[derive(Clone, Copy, Debug)]
enum Given {
    /// Written to the store. Seed 0 keeps their order.
    Stored { seed: u64 },
    /// With every request, where they are not too many.
    Contextual,
}

#[test]
fn openfga_cases() {
    let Some(folder) = folder() else { return };
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no cases", folder.display());
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("readable");
        // A number that is no double is no number; as a string, it is refused where a number is expected.
        let options =
            serde_saphyr::options! { non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::AsString };
        let cases: Cases =
            serde_saphyr::from_str_with_options(&text, options).unwrap_or_else(|e| panic!("{name}: {e}"));
        for seed in 0..5 {
            let asked = ask(&cases, Given::Stored { seed });
            assert_eq!(asked, expected(&name, false).unwrap_or(asked), "{name}, order {seed}");
        }
        let asked = ask(&cases, Given::Contextual);
        assert_eq!(asked, expected(&name, true).unwrap_or(asked), "{name}, contextual");
    }
}

#[expect(clippy::disallowed_methods, reason = "a test may read the environment")]
fn folder() -> Option<PathBuf> {
    match std::env::var("RAGWARD_OPENFGA_TESTS") {
        Ok(folder) => Some(Path::new(&folder).join("check")),
        Err(_) => support::shared("openfga-tests/check"),
    }
}

/// How much there is to ask of a known file.
fn expected(file: &str, contextual: bool) -> Option<Asked> {
    Some(match (file, contextual) {
        ("consolidated_part.yaml", false) => {
            Asked { cases: 57, stages: 66, checks: 147, object_lists: 116, user_lists: 117 }
        }
        ("consolidated_part.yaml", true) => {
            Asked { cases: 48, stages: 48, checks: 129, object_lists: 100, user_lists: 107 }
        }
        ("abac.yaml", false) => Asked { cases: 23, stages: 26, checks: 125, object_lists: 75, user_lists: 91 },
        ("abac.yaml", true) => Asked { cases: 21, stages: 21, checks: 116, object_lists: 70, user_lists: 85 },
        _ => return None,
    })
}

fn ask(cases: &Cases, given: Given) -> Asked {
    let mut asked = Asked::default();
    for case in &cases.tests {
        run(case, given, &mut asked);
    }
    asked
}

/// Runs the stages of a case on one durable store.
fn run(case: &Case, given: Given, asked: &mut Asked) {
    let few = |stage: &Stage| stage.tuples.as_ref().is_none_or(|tuples| tuples.len() <= CONTEXTUAL_TUPLES_MAX);
    if matches!(given, Given::Contextual) && !(case.stages.len() == 1 && case.stages.iter().all(few)) {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let stores = RelationshipStores::open(directory.path()).expect("opened");
    let store = stores.default_store_or_new().expect("a store");
    asked.cases += 1;
    for (number, stage) in case.stages.iter().enumerate() {
        let at = format!("{} stage {number} {given:?}", case.name);
        asked.stages += 1;
        let model = dsl::load(&stage.model).unwrap_or_else(|e| panic!("{at}: {}", e.picture(&stage.model)));
        store.write_model(model).expect("written");
        let mut tuples: Vec<RelationshipTuple> = stage.tuples.iter().flatten().map(parsed).collect();
        let mut asking =
            Asking { at, snapshot: store.snapshot().expect("read").expect("a model"), contextual: Vec::new() };
        match given {
            Given::Contextual => asking.contextual = tuples,
            Given::Stored { seed } => {
                shuffle(&mut tuples, seed);
                store.write_all(tuples, OnConflict::Refuse).unwrap_or_else(|e| panic!("{}: {e}", asking.at));
                asking.snapshot = store.snapshot().expect("read").expect("a model");
            }
        }
        for assertion in stage.check_assertions.iter().flatten() {
            asked.checks += 1;
            asking.check(assertion);
        }
        for assertion in stage.list_objects_assertions.iter().flatten() {
            asked.object_lists += 1;
            asking.list_objects(assertion);
        }
        for assertion in stage.list_users_assertions.iter().flatten() {
            asked.user_lists += 1;
            asking.list_users(assertion);
        }
    }
}

/// Where questions are asked.
struct Asking {
    at: String,
    snapshot: Arc<Snapshot>,
    contextual: Vec<RelationshipTuple>,
}

impl Asking {
    /// The state that a request is decided from.
    fn request(
        &self,
        contextual: Option<&Vec<Tuple>>,
        context: Option<&Map<String, Value>>,
    ) -> Result<Snapshot, String> {
        let mut tuples = self.contextual.clone();
        for tuple in contextual.into_iter().flatten().map(parsed) {
            tuples.retain(|known| known.key() != tuple.key());
            tuples.push(tuple);
        }
        self.snapshot.for_request(&tuples, context.cloned().unwrap_or_default()).map_err(|e| e.to_string())
    }

    fn check(&self, assertion: &CheckAssertion) {
        let Tuple { user, relation, object, .. } = &assertion.tuple;
        let (name, context) = (assertion.name.as_deref().unwrap_or_default(), &assertion.context);
        let at = format!("{} {name}: {user} {relation} {object} {context:?}", self.at);
        let request = self.request(assertion.contextual_tuples.as_ref(), assertion.context.as_ref());
        let answer = request.and_then(|snapshot| {
            let user = User::parse(user).map_err(|e| e.to_string())?;
            let relation = Relation::parse(relation).map_err(|e| e.to_string())?;
            let object = Object::parse(object).map_err(|e| e.to_string())?;
            snapshot.check(&user, &relation, &object).map_err(|e| e.to_string())
        });
        match assertion.error_code {
            Some(code) => assert!(answer.is_err(), "{at}: expected error {code}, got {answer:?}"),
            None => assert_eq!(answer, Ok(assertion.expectation), "{at}"),
        }
    }

    fn list_objects(&self, assertion: &ListObjectsAssertion) {
        let ListObjectsRequest { user, type_name, relation } = &assertion.request;
        let at = format!("{}: list {type_name} that {user} holds {relation} on, {:?}", self.at, assertion.context);
        let request = self.request(assertion.contextual_tuples.as_ref(), assertion.context.as_ref());
        let listed = request.and_then(|snapshot| {
            let user = User::parse(user).map_err(|e| e.to_string())?;
            let (type_name, relation) = (TypeName::parse(type_name), Relation::parse(relation));
            let (type_name, relation) = (type_name.map_err(|e| e.to_string())?, relation.map_err(|e| e.to_string())?);
            snapshot.list_objects(&user, &relation, &type_name).map_err(|e| e.to_string())
        });
        compare(&at, listed, assertion.error_code, assertion.expectation.as_ref());
    }

    fn list_users(&self, assertion: &ListUsersAssertion) {
        let ListUsersRequest { filters, object, relation } = &assertion.request;
        let at = format!("{}: list {filters:?} that hold {relation} on {object}, {:?}", self.at, assertion.context);
        let request = self.request(assertion.contextual_tuples.as_ref(), assertion.context.as_ref());
        let listed = request.and_then(|snapshot| {
            let (object, relation) = (Object::parse(object), Relation::parse(relation));
            let (object, relation) = (object.map_err(|e| e.to_string())?, relation.map_err(|e| e.to_string())?);
            let mut listed = Vec::new();
            for filter in filters {
                let (type_name, of) = filter.split_once('#').map_or((filter.as_str(), None), |(t, r)| (t, Some(r)));
                let filter = UserFilter {
                    type_name: TypeName::parse(type_name).expect("a type"),
                    relation: of.map(|relation| Relation::parse(relation).expect("a name")),
                };
                listed.extend(snapshot.list_users(&object, &relation, &filter).map_err(|e| e.to_string())?);
            }
            Ok(listed)
        });
        compare(&at, listed, assertion.error_code, assertion.expectation.as_ref());
    }
}

/// Lists are sets.
fn compare<T: ToString + std::fmt::Debug>(
    at: &str,
    listed: Result<Vec<T>, String>,
    error_code: Option<u32>,
    expected: Option<&Vec<String>>,
) {
    if let Some(code) = error_code {
        assert!(listed.is_err(), "{at}: expected error {code}, got {listed:?}");
        return;
    }
    let listed: BTreeSet<String> = listed.unwrap_or_else(|e| panic!("{at}: {e}")).iter().map(T::to_string).collect();
    let expected: BTreeSet<String> = expected.into_iter().flatten().cloned().collect();
    assert_eq!(listed, expected, "{at}");
}

fn parsed(tuple: &Tuple) -> RelationshipTuple {
    let parsed = RelationshipTuple::parse(&tuple.user, &tuple.relation, &tuple.object).expect("a tuple");
    match &tuple.condition {
        None => parsed,
        Some(condition) => {
            let context = condition.context.clone().unwrap_or_default();
            parsed.with_condition(TupleCondition::new(&condition.name, context).expect("a condition"))
        }
    }
}

/// A permutation that depends on the seed alone.
fn shuffle<T>(items: &mut [T], seed: u64) {
    if seed == 0 {
        return;
    }
    let mut state = seed;
    for last in (1..items.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let upper = usize::try_from(state >> 33).expect("31 bits");
        items.swap(last, upper % (last + 1));
    }
}
