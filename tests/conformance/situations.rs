//! Situations in which the answer shows how `OpenFGA` evaluates: what a request adds to stored tuples, failed
//! conditions beside others, and long chains. Every answer in `tests/data/situations.yaml` is `OpenFGA`'s, and a real
//! server is asked, too. If Ragward's answer differs, the row has that answer and the reason.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::conformance::answers::{Extra, Reply};
use crate::support::cases::{Condition, ListObjectsRequest, ListUsersRequest, Tuple};
use crate::support::openfga::OpenFga;
use crate::{Who, ragward_server};

/// `OpenFGA` chooses among strategies by how fast they were, so now and then one of its answers differs.
const ATTEMPTS: usize = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The models, by name.
    models: std::collections::BTreeMap<String, String>,
    situations: Vec<Situation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Situation {
    name: String,
    /// The name of the model.
    model: String,
    /// Tuples: `user relation object`, or that with ` with condition {…}`.
    #[serde(default)]
    tuples: Vec<String>,
    /// Tuples that are each written this many times: `{n}` counts from 0, `{next}` is one more.
    #[serde(default)]
    chains: Vec<(usize, String)>,
    /// Tuples that are written for each pair of different numbers, `{n}` and `{other}`.
    #[serde(default)]
    meshes: Vec<(usize, String)>,
    #[serde(default)]
    contextual: Vec<String>,
    #[serde(default)]
    context: Map<String, Value>,
    questions: Vec<Question>,
}

/// A question with its answer: a bool, a list, the length of a list, or the number of an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    /// `check user relation object`, `objects user relation type` or `users object relation filter`.
    ask: String,
    answer: Value,
    /// The answer of Ragward, if it differs, and the reason.
    #[serde(default)]
    ragward: Option<(Value, String)>,
}

fn file() -> File {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/situations.yaml");
    serde_saphyr::from_str(&std::fs::read_to_string(path).expect("the situations")).expect("situations")
}

fn tuple(text: &str) -> Tuple {
    let (names, condition) = text.split_once(" with ").map_or((text, None), |(names, rest)| (names, Some(rest)));
    let [user, relation, object] = names.split(' ').collect::<Vec<_>>()[..] else { panic!("`{text}` is no tuple") };
    let condition = condition.map(|condition| {
        let (name, context) = condition.split_once(' ').unwrap_or((condition, "{}"));
        Condition { name: name.to_owned(), context: Some(serde_json::from_str(context).expect("a context")) }
    });
    Tuple { user: user.to_owned(), relation: relation.to_owned(), object: object.to_owned(), condition }
}

impl Situation {
    fn stored(&self) -> Vec<Tuple> {
        let with = |text: &str, number: &str, n: usize| text.replace(number, &n.to_string());
        let one = |text: &str, n: usize| tuple(&with(&with(text, "{n}", n), "{next}", n + 1));
        let pair = |text: &str, n: usize, other: usize| tuple(&with(&with(text, "{n}", n), "{other}", other));
        let chains = self.chains.iter().flat_map(|(length, text)| (0..*length).map(move |n| one(text, n)));
        let others = |n: usize, count: usize| (0..count).filter(move |other| *other != n);
        let meshes = self.meshes.iter().flat_map(|(count, text)| {
            (0..*count).flat_map(move |n| others(n, *count).map(move |other| pair(text, n, other)))
        });
        self.tuples.iter().map(|text| tuple(text)).chain(chains).chain(meshes).collect()
    }

    fn extra(&self) -> Extra {
        Extra { contextual: self.contextual.iter().map(|text| tuple(text)).collect(), context: self.context.clone() }
    }
}

/// Answers all questions of a situation, from a new store.
async fn answers(who: &Who, models: &File, situation: &Situation) -> Vec<Reply> {
    let mut answers = who.answers().await;
    let name = &situation.name;
    answers.write_model(&models.models[&situation.model]).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    answers.write(&situation.stored()).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    let extra = &situation.extra();
    let mut replies = Vec::new();
    for Question { ask, .. } in &situation.questions {
        let [kind, first, relation, last] = ask.split(' ').collect::<Vec<_>>()[..] else { panic!("{name}: `{ask}`") };
        let (first, relation, last) = (first.to_owned(), relation.to_owned(), last.to_owned());
        replies.push(match kind {
            "check" => {
                let asked = Tuple { user: first, relation, object: last, condition: None };
                answers.check(&asked, extra).await
            }
            "objects" => {
                let request = ListObjectsRequest { user: first, type_name: last, relation };
                answers.list_objects(&request, extra).await
            }
            "users" => {
                let request = ListUsersRequest { filters: vec![last], object: first, relation };
                answers.list_users(&request, extra).await
            }
            other => panic!("{name}: `{other}` is no question"),
        });
    }
    replies
}

fn is(reply: &Reply, expected: &Value) -> bool {
    match (reply, expected) {
        (Reply::Allowed(found), Value::Bool(allowed)) => found == allowed,
        (Reply::Listed(found), Value::Array(listed)) => {
            *found == listed.iter().map(|name| name.as_str().expect("a name").to_owned()).collect::<BTreeSet<_>>()
        }
        (Reply::Listed(found), Value::Number(count)) => count.as_u64() == u64::try_from(found.len()).ok(),
        // Errors of the library have no number.
        (Reply::Refused(None, _), Value::Object(refused)) => refused.contains_key("refused"),
        (Reply::Refused(Some(number), _), refused @ Value::Object(_)) => *refused == json!({ "refused": number }),
        _ => false,
    }
}

async fn hold(who: &Who) {
    let file = file();
    let is_openfga = who.name() == "openfga";
    let mut failures = Vec::new();
    for situation in &file.situations {
        let mut open: Vec<usize> = (0..situation.questions.len()).collect();
        let mut last = Vec::new();
        for _ in 0..if is_openfga { ATTEMPTS } else { 1 } {
            if open.is_empty() {
                break;
            }
            last = answers(who, &file, situation).await;
            open.retain(|position| {
                let Question { answer, ragward, .. } = &situation.questions[*position];
                let expected = ragward.as_ref().filter(|_| !is_openfga).map_or(answer, |(answer, _)| answer);
                !is(&last[*position], expected)
            });
        }
        failures.extend(open.into_iter().map(|position| {
            let Situation { name, questions, .. } = situation;
            format!("{}, {name}: {}: {:?}", who.name(), questions[position].ask, last[position])
        }));
    }
    assert!(failures.is_empty(), "{} answers are others\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test]
async fn the_evaluator_answers_in_every_situation() {
    hold(&Who::Evaluator).await;
}

#[tokio::test]
async fn ragward_answers_in_every_situation() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let address = ragward_server::serve(directory.path()).await;
    hold(&Who::Server("ragward", address)).await;
}

#[tokio::test]
async fn openfga_answers_in_every_situation() {
    let Some(server) = OpenFga::start().await else { return };
    hold(&Who::Server("openfga", server.config("any").address)).await;
}
