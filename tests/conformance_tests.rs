//! Runs `OpenFGA`'s own check cases, and cases that the oracle once found, against everything that answers such
//! questions: the evaluator, Ragward over `OpenFGA`'s API, and a real `OpenFGA`, which proves this runner.
//!
//! Each case runs with its tuples stored, in the order of the file and in other orders, and with its tuples sent as
//! contextual ones. `RAGWARD_OPENFGA_TESTS` names another folder with files of the same form.
#![cfg(test)]

mod conformance {
    pub(crate) mod answers;
    pub(crate) mod random;
    pub(crate) mod situations;
}

mod support {
    pub(crate) mod cases;
    #[expect(dead_code, reason = "this program has its conversations over gRPC alone")]
    pub(crate) mod conversation;
    pub(crate) mod dice;
    pub(crate) mod held_port;
    #[expect(dead_code, reason = "this program has its conversations over gRPC alone")]
    pub(crate) mod http;
    pub(crate) mod openfga;
    pub(crate) mod ragward_server;
    pub(crate) mod random_world;
    pub(crate) mod shared_data;
}

use std::path::{Path, PathBuf};

use ragward::engine::snapshot::CONTEXTUAL_TUPLES_MAX;
use serde_json::Map;

use self::conformance::answers::{Answers, Extra, Reply};
use self::support::cases::{
    Case, Cases, CheckAssertion, ListAssertion, ListObjectsRequest, ListUsersRequest, Stage, Tuple,
};
use self::support::dice::Dice;
use self::support::openfga::OpenFga;
use self::support::ragward_server;
use self::support::shared_data::shared;

/// Cases that cannot hold: the name of the case, who answers (`evaluator`, `ragward`, `openfga`), and the reason.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

/// The number of questions that were asked. It is compared with the expected number, so that none is left out
/// unnoticed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Asked {
    cases: usize,
    stages: usize,
    checks: usize,
    object_lists: usize,
    user_lists: usize,
}

/// The way in which the tuples of a case are given.
#[derive(Clone, Copy, Debug)]
enum Given {
    /// The tuples are written to the store. Seed 0 keeps their order.
    Stored { seed: u64 },
    /// The tuples come with every request, if there are not too many.
    Contextual,
}

/// A file of cases.
struct File {
    name: String,
    cases: Cases,
}

/// The engine that answers.
enum Who {
    Evaluator,
    Server(&'static str, String),
}

impl Who {
    fn name(&self) -> &'static str {
        match self {
            Self::Evaluator => "evaluator",
            Self::Server(name, _) => name,
        }
    }

    async fn answers(&self) -> Answers {
        match self {
            Self::Evaluator => Answers::evaluator(),
            Self::Server(_, address) => Answers::api(address).await,
        }
    }
}

#[tokio::test]
async fn the_evaluator_holds() {
    conform(&Who::Evaluator, 5).await;
}

#[tokio::test]
async fn ragward_holds_over_the_api() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let address = ragward_server::serve(directory.path()).await;
    conform(&Who::Server("ragward", address), 3).await;
}

#[tokio::test]
async fn openfga_holds() {
    let Some(server) = OpenFga::start().await else { return };
    conform(&Who::Server("openfga", server.config("any").address), 2).await;
}

/// Runs every file with its tuples in this number of orders, and with its tuples as contextual ones.
async fn conform(who: &Who, orders: u64) {
    let mut failures = Vec::new();
    for file in files() {
        for given in (0..orders).map(|seed| Given::Stored { seed }).chain([Given::Contextual]) {
            let mut asked = Asked::default();
            for case in &file.cases.tests {
                run(who, case, given, &mut asked, &mut failures).await;
            }
            let contextual = matches!(given, Given::Contextual);
            assert_eq!(asked, expected(&file.name, contextual).unwrap_or(asked), "{}, {given:?}", file.name);
            eprintln!("{}, {}, {given:?}: {asked:?}", file.name, who.name());
        }
    }
    assert!(failures.is_empty(), "{} answers are wrong\n{}", failures.len(), failures.join("\n"));
}

/// Returns the files of the folder, and the cases that the oracle once found.
fn files() -> Vec<File> {
    let mut paths = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oracle_failures.yaml")];
    if let Some(folder) = folder() {
        let found = std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        let mut found: Vec<PathBuf> =
            found.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect();
        assert!(!found.is_empty(), "{} has no cases", folder.display());
        found.sort();
        paths.extend(found);
    }
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("readable");
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let cases = Cases::read(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        File { name, cases }
    };
    paths.into_iter().map(read).collect()
}

#[expect(clippy::disallowed_methods, reason = "a test may read the environment")]
fn folder() -> Option<PathBuf> {
    match std::env::var("RAGWARD_OPENFGA_TESTS") {
        Ok(folder) => {
            let folder = PathBuf::from(folder);
            let check = folder.join("check");
            Some(if check.is_dir() { check } else { folder })
        }
        Err(_) => shared("openfga-tests/check"),
    }
}

/// Returns the number of questions in a known file.
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

/// Runs the stages of a case on one store.
async fn run(who: &Who, case: &Case, given: Given, asked: &mut Asked, failures: &mut Vec<String>) {
    let few = |stage: &Stage| stage.tuples.as_ref().is_none_or(|tuples| tuples.len() <= CONTEXTUAL_TUPLES_MAX);
    if matches!(given, Given::Contextual) && !(case.stages.len() == 1 && case.stages.iter().all(few)) {
        return;
    }
    if let Some((.., reason)) = EXCEPTIONS.iter().find(|(name, of, _)| *name == case.name && *of == who.name()) {
        eprintln!("{}, {}: {reason}", case.name, who.name());
        return;
    }
    asked.cases += 1;
    let mut answers = who.answers().await;
    for (number, stage) in case.stages.iter().enumerate() {
        let name = stage.name.as_deref().unwrap_or_default();
        let at = format!("{}, {}, stage {number} {name} {given:?}", who.name(), case.name);
        asked.stages += 1;
        if let Err(error) = answers.write_model(&stage.model).await {
            failures.push(format!("{at}: the model was refused: {error}"));
            return;
        }
        let mut tuples: Vec<Tuple> = stage.tuples.clone().unwrap_or_default();
        if let Given::Stored { seed } = given {
            if seed > 0 {
                Dice::new(seed).shuffle(&mut tuples);
            }
            if let Err(error) = answers.write(&tuples).await {
                failures.push(format!("{at}: the tuples were refused: {error}"));
                return;
            }
            tuples.clear();
        }
        let mut asking = Asking { at, answers: &mut answers, contextual: tuples, failures };
        asking.ask(stage, asked).await;
    }
}

/// A stage of a case, and the store on which its questions are asked.
struct Asking<'a> {
    at: String,
    answers: &'a mut Answers,
    contextual: Vec<Tuple>,
    failures: &'a mut Vec<String>,
}

impl Asking<'_> {
    async fn ask(&mut self, stage: &Stage, asked: &mut Asked) {
        let checks = stage.check_assertions.as_deref().unwrap_or_default();
        for assertion in checks {
            asked.checks += 1;
            self.check(assertion).await;
        }
        self.batch(checks).await;
        for assertion in stage.list_objects_assertions.iter().flatten() {
            asked.object_lists += 1;
            let extra = self.extra(assertion.contextual_tuples.as_ref(), assertion.context.as_ref());
            let found = self.answers.list_objects(&assertion.request, &extra).await;
            let expected = listed(assertion.error_code, assertion.expectation.as_ref());
            let name = assertion.name.as_deref().unwrap_or_default();
            self.judge(&format!("{name} {:?}", assertion.request), &extra, &found, &expected, reason(assertion));
        }
        for assertion in stage.list_users_assertions.iter().flatten() {
            asked.user_lists += 1;
            let extra = self.extra(assertion.contextual_tuples.as_ref(), assertion.context.as_ref());
            let found = self.answers.list_users(&assertion.request, &extra).await;
            let expected = listed(assertion.error_code, assertion.expectation.as_ref());
            let name = assertion.name.as_deref().unwrap_or_default();
            self.judge(&format!("{name} {:?}", assertion.request), &extra, &found, &expected, reason(assertion));
        }
    }

    /// Returns the contextual tuples of the case and of the assertion. The assertion's replace equal ones of the case.
    fn extra(&self, contextual: Option<&Vec<Tuple>>, context: Option<&Map<String, serde_json::Value>>) -> Extra {
        let mut tuples = self.contextual.clone();
        for tuple in contextual.into_iter().flatten() {
            tuples.retain(|known| known.key() != tuple.key());
            tuples.push(tuple.clone());
        }
        Extra { contextual: tuples, context: context.cloned().unwrap_or_default() }
    }

    async fn check(&mut self, assertion: &CheckAssertion) {
        let extra = self.extra(assertion.contextual_tuples.as_ref(), assertion.context.as_ref());
        let found = self.answers.check(&assertion.tuple, &extra).await;
        let question = question(assertion);
        self.judge(&question, &extra, &found, &held(assertion), None);
        self.check_by_lists(assertion, &extra, &question).await;
    }

    /// Asks the same checks in batches.
    async fn batch(&mut self, checks: &[CheckAssertion]) {
        let extra =
            |assertion: &CheckAssertion| self.extra(assertion.contextual_tuples.as_ref(), assertion.context.as_ref());
        let asked: Vec<(&Tuple, Extra)> = checks.iter().map(|assertion| (&assertion.tuple, extra(assertion))).collect();
        let replies = self.answers.batch(&asked).await;
        assert_eq!(replies.len(), checks.len(), "{}", self.at);
        for ((assertion, (_, extra)), found) in checks.iter().zip(&asked).zip(&replies) {
            self.judge(&format!("in a batch, {}", question(assertion)), extra, found, &held(assertion), None);
        }
    }

    /// Checks the lists: whoever holds a relation on an object is in the list of the object's users, and the object is
    /// in the list of the user's objects. A list may fail where a check does not, because it reads more tuples.
    async fn check_by_lists(&mut self, assertion: &CheckAssertion, extra: &Extra, question: &str) {
        let Tuple { user, relation, object, .. } = &assertion.tuple;
        let (Some((type_name, _)), Some((user_type, id))) = (object.split_once(':'), user.split_once(':')) else {
            return;
        };
        let request =
            ListObjectsRequest { user: user.clone(), type_name: type_name.to_owned(), relation: relation.clone() };
        let found = self.answers.list_objects(&request, extra).await;
        self.judge_list(
            &format!("as objects, {question}"),
            &found,
            assertion,
            assertion.list_objects_error_code,
            &[object],
        );
        let filter = match id.split_once('#') {
            Some((_, relation)) => format!("{user_type}#{relation}"),
            None => user_type.to_owned(),
        };
        let request = ListUsersRequest { filters: vec![filter], object: object.clone(), relation: relation.clone() };
        let found = self.answers.list_users(&request, extra).await;
        let everybody = format!("{user_type}:*");
        let mut names = vec![user];
        // The wildcard stands for each user.
        if !id.contains('#') && assertion.expectation == Some(true) {
            names.push(&everybody);
        }
        self.judge_list(&format!("as users, {question}"), &found, assertion, assertion.list_users_error_code, &names);
    }

    /// Checks that a list holds one of the names exactly if the assertion says so.
    fn judge_list(&mut self, question: &str, found: &Reply, assertion: &CheckAssertion, code: u32, names: &[&String]) {
        let right = match found {
            Reply::Refused(number, _) if code != 0 => number.is_none_or(|number| number == code),
            // The condition of another object or another user may have failed.
            Reply::Refused(..) => true,
            Reply::Listed(listed) if code == 0 => {
                let holds = names.iter().any(|name| listed.contains(*name));
                assertion.error_code != 0 || holds == assertion.expectation.unwrap_or(false)
            }
            Reply::Listed(_) | Reply::Allowed(_) | Reply::Tree(_) => false,
        };
        if !right {
            self.failures.push(format!("{}: {question}: {found:?}", self.at));
        }
    }

    fn judge(&mut self, question: &str, extra: &Extra, found: &Reply, expected: &Reply, reason: Option<&str>) {
        let right = match (found, expected) {
            // Errors of the library have no number.
            (Reply::Refused(None, _), Reply::Refused(..)) => true,
            (Reply::Refused(found, _), Reply::Refused(expected, _)) => found == expected,
            _ => found == expected,
        };
        match (right, reason) {
            (true, _) => {}
            (false, Some(reason)) => eprintln!("{}: {question}: {reason}", self.at),
            (false, None) => {
                let context = &extra.context;
                self.failures.push(format!("{}: {question} {context:?}: {found:?}, expected {expected:?}", self.at));
            }
        }
    }
}

fn question(assertion: &CheckAssertion) -> String {
    let Tuple { user, relation, object, .. } = &assertion.tuple;
    format!("{} {user} {relation} {object}", assertion.name.as_deref().unwrap_or_default())
}

fn held(assertion: &CheckAssertion) -> Reply {
    match assertion.error_code {
        0 => Reply::Allowed(assertion.expectation.unwrap_or(false)),
        code => Reply::Refused(Some(code), String::new()),
    }
}

fn listed(error_code: u32, expectation: Option<&Vec<String>>) -> Reply {
    match error_code {
        0 => Reply::Listed(expectation.into_iter().flatten().cloned().collect()),
        code => Reply::Refused(Some(code), String::new()),
    }
}

fn reason<R>(assertion: &ListAssertion<R>) -> Option<&str> {
    assertion.temporarily_skip_reason.as_deref().filter(|reason| !reason.is_empty())
}
