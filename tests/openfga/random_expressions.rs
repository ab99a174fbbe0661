//! Compares random expressions of conditions with a real `OpenFGA`: whether it accepts a model with the expression, and
//! the outcome in contexts with random values: met, not met, failed, or too costly.
//!
//! Some 1,000 expressions are compared. `RAGWARD_EXPRESSIONS` sets another number, `RAGWARD_SEED` another seed.

mod generator;

use std::sync::Arc;

use openfga_client::client::{
    BatchCheckItem, BatchCheckRequest, CheckRequestTupleKey, ContextualTupleKeys, CreateStoreRequest,
    OpenFgaServiceClient, RelationshipCondition, TupleKey, WriteAuthorizationModelRequest, batch_check_single_result,
};
use ragward::engine::snapshot::Snapshot;
use ragward::language::validate::ValidModel;
use ragward::language::{Object, Relation, RelationshipTuple, TupleCondition, User, json as model_json};
use serde_json::{Map, Value, json};
use tonic::transport::{Channel, Endpoint};

use self::generator::Generator;
use crate::support::openfga::OpenFga;

/// The number of expressions that are compared by default.
const EXPRESSIONS: usize = 1_000;
const CONTEXTS_PER_EXPRESSION: usize = 3;
/// The number of conditions that a model may have.
const CONDITIONS_PER_MODEL: usize = 25;
/// The number of differences that are shown.
const SHOWN_MAX: usize = 40;

/// Reads a number from the environment of the test.
#[expect(clippy::disallowed_methods, reason = "a test may read the environment and say so")]
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{name} is no number: {e}")))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Met,
    NotMet,
    TooCostly,
    Failed,
}

struct Case {
    expression: String,
    contexts: Vec<Map<String, Value>>,
}

#[derive(Default)]
struct Tally {
    refused: usize,
    outcomes: [usize; 4],
    differences: Vec<String>,
}

#[tokio::test]
async fn random_expressions_mean_the_same() {
    let Some(server) = OpenFga::start().await else { return };
    let seed = setting("RAGWARD_SEED").unwrap_or(1);
    let count = setting("RAGWARD_EXPRESSIONS").map_or(EXPRESSIONS, |count| usize::try_from(count).expect("a count"));
    eprintln!("{count} expressions, seed {seed}");
    let mut generator = Generator::new(seed);
    let mut theirs = Theirs::connect(&server.config("any").address).await;
    let mut tally = Tally::default();
    let mut pending = Vec::new();
    for _ in 0..count {
        let expression = generator.expression();
        let contexts = (0..CONTEXTS_PER_EXPRESSION).map(|_| generator.context()).collect();
        let case = Case { expression, contexts };
        match Ours::compile(&case.expression) {
            Ok(ours) => pending.push((case, ours)),
            Err(refused) => {
                tally.refused += 1;
                if theirs.write(std::slice::from_ref(&case.expression)).await.is_ok() {
                    tally.differences.push(format!("{}\n  only Ragward refuses it: {refused}", case.expression));
                }
            }
        }
        if pending.len() == CONDITIONS_PER_MODEL {
            compare(&mut theirs, &std::mem::take(&mut pending), &mut tally).await;
        }
    }
    compare(&mut theirs, &pending, &mut tally).await;
    let [met, not_met, costly, failed] = tally.outcomes;
    eprintln!("refused {}; met {met}, not met {not_met}, too costly {costly}, failed {failed}", tally.refused);
    let shown: Vec<&str> = tally.differences.iter().take(SHOWN_MAX).map(String::as_str).collect();
    assert!(shown.is_empty(), "seed {seed}: {} differences\n{}", tally.differences.len(), shown.join("\n"));
}

async fn compare(theirs: &mut Theirs, cases: &[(Case, Ours)], tally: &mut Tally) {
    let expressions: Vec<String> = cases.iter().map(|(case, _)| case.expression.clone()).collect();
    let model = match theirs.write(&expressions).await {
        Ok(model) => model,
        Err(refused) if cases.len() <= 1 => {
            let expression = expressions.first().map_or("", String::as_str);
            if !expressions.is_empty() {
                tally.differences.push(format!("{expression}\n  only OpenFGA refuses it: {refused}"));
            }
            return;
        }
        Err(_) => {
            for one in cases.chunks(1) {
                Box::pin(compare(theirs, one, tally)).await;
            }
            return;
        }
    };
    for (number, (case, ours)) in cases.iter().enumerate() {
        let answers = theirs.ask(&model, number, &case.contexts).await;
        for (context, expected) in case.contexts.iter().zip(answers) {
            let (found, detail) = ours.ask(context);
            let place = match expected.0 {
                Outcome::Met => 0,
                Outcome::NotMet => 1,
                Outcome::TooCostly => 2,
                Outcome::Failed => 3,
            };
            tally.outcomes[place] += 1;
            if found != expected.0 {
                let context = generator::relevant(&case.expression, context);
                tally.differences.push(format!(
                    "{}\n  with {context}\n  OpenFGA {:?} {}\n  Ragward {found:?} {detail}",
                    case.expression, expected.0, expected.1
                ));
            }
        }
    }
}

fn model(expressions: &[String]) -> Value {
    let parameters = generator::parameters();
    let condition = |(number, text): (usize, &String)| {
        let name = format!("c{number}");
        (name.clone(), json!({ "name": name, "expression": text, "parameters": parameters }))
    };
    let restrictions: Vec<Value> =
        (0..expressions.len()).map(|number| json!({ "type": "user", "condition": format!("c{number}") })).collect();
    json!({
        "schema_version": "1.1",
        "type_definitions": [{ "type": "user" }, {
            "type": "doc",
            "relations": { "viewer": { "this": {} } },
            "metadata": { "relations": { "viewer": { "directly_related_user_types": restrictions } } },
        }],
        "conditions": expressions.iter().enumerate().map(condition).collect::<Map<_, _>>(),
    })
}

struct Ours {
    state: Snapshot,
}

impl Ours {
    fn compile(expression: &str) -> Result<Self, String> {
        let model = model(std::slice::from_ref(&expression.to_owned())).to_string();
        let model = model_json::parse(&model).map_err(|e| e.to_string())?;
        let model = ValidModel::new(model)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        let state = Snapshot::new("model", Arc::new(model));
        let tuple = RelationshipTuple::parse("user:anne", "viewer", "doc:1").expect("a tuple");
        let tuple = tuple.with_condition(TupleCondition::new("c0", Map::new()).expect("a condition"));
        Ok(Self { state: state.with_tuples(&[tuple]).expect("a tuple of the model") })
    }

    fn ask(&self, context: &Map<String, Value>) -> (Outcome, String) {
        let user = User::parse("user:anne").expect("a user");
        let relation = Relation::parse("viewer").expect("a relation");
        let object = Object::parse("doc:1").expect("an object");
        match self.state.with_context(context.clone()).check(&user, &relation, &object) {
            Ok(true) => (Outcome::Met, String::new()),
            Ok(false) => (Outcome::NotMet, String::new()),
            Err(e) if e.to_string().contains("costs more than") => (Outcome::TooCostly, e.to_string()),
            Err(e) => (Outcome::Failed, e.to_string()),
        }
    }
}

struct Theirs {
    client: OpenFgaServiceClient<Channel>,
    store_id: String,
}

impl Theirs {
    async fn connect(address: &str) -> Self {
        let channel =
            Endpoint::from_shared(address.to_owned()).expect("an address").connect().await.expect("connected");
        let mut client = OpenFgaServiceClient::new(channel);
        let store = client.create_store(CreateStoreRequest { name: "expressions".to_owned() }).await.expect("a store");
        Self { client, store_id: store.into_inner().id }
    }

    /// Writes a model with these expressions, and returns its id, or the reason why it is refused.
    async fn write(&mut self, expressions: &[String]) -> Result<String, String> {
        if expressions.is_empty() {
            return Err("no expressions".to_owned());
        }
        let mut model = model(expressions);
        model["store_id"] = json!(self.store_id);
        let request: WriteAuthorizationModelRequest = serde_json::from_value(model).expect("a request");
        match self.client.write_authorization_model(request).await {
            Ok(written) => Ok(written.into_inner().authorization_model_id),
            Err(status) => Err(status.message().to_owned()),
        }
    }

    /// Evaluates the condition with this number in each context.
    async fn ask(&mut self, model: &str, number: usize, contexts: &[Map<String, Value>]) -> Vec<(Outcome, String)> {
        let (user, relation, object) = ("user:anne".to_owned(), "viewer".to_owned(), "doc:1".to_owned());
        let condition = RelationshipCondition { name: format!("c{number}"), context: None };
        let key = CheckRequestTupleKey { user: user.clone(), relation: relation.clone(), object: object.clone() };
        let tuple = TupleKey { user, relation, object, condition: Some(condition) };
        let check = |(position, context): (usize, &Map<String, Value>)| BatchCheckItem {
            tuple_key: Some(key.clone()),
            contextual_tuples: Some(ContextualTupleKeys { tuple_keys: vec![tuple.clone()] }),
            context: Some(serde_json::from_value(Value::Object(context.clone())).expect("a context")),
            correlation_id: format!("{position}"),
        };
        let request = BatchCheckRequest {
            store_id: self.store_id.clone(),
            authorization_model_id: model.to_owned(),
            checks: contexts.iter().enumerate().map(check).collect(),
            consistency: 0,
        };
        let answer = self.client.batch_check(request).await.expect("a batch of checks").into_inner();
        (0..contexts.len())
            .map(|position| match &answer.result[&format!("{position}")].check_result {
                Some(batch_check_single_result::CheckResult::Allowed(true)) => (Outcome::Met, String::new()),
                Some(batch_check_single_result::CheckResult::Allowed(false)) => (Outcome::NotMet, String::new()),
                Some(batch_check_single_result::CheckResult::Error(error)) => {
                    let text = error.message.clone();
                    let costly = text.contains("cost limit exceeded");
                    (if costly { Outcome::TooCostly } else { Outcome::Failed }, text)
                }
                None => panic!("an answer without a result"),
            })
            .collect()
    }
}
