//! The engines that answer the questions of a case: the evaluator over a durable store, or a server over `OpenFGA`'s
//! API.

use std::collections::BTreeSet;

use ragward::engine::snapshot::{Snapshot, UserFilter};
use ragward::language::model::AuthorizationModel;
use ragward::language::validate::ValidModel;
use ragward::language::{Object, Relation, RelationshipTuple, TypeName, User, dsl, json as model_json};
use ragward::tuple_store::{OnConflict, RelationshipStores};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::support::cases::{ListObjectsRequest, ListUsersRequest, Tuple};
use crate::support::conversation::{Answer, Conversation};

/// `OpenFGA`'s limits of one call.
const TUPLES_PER_WRITE: usize = 100;
pub(crate) const CHECKS_PER_BATCH: usize = 50;

/// The answer to a question. The library's errors have no number; those on the wire have one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Allowed(bool),
    Listed(BTreeSet<String>),
    /// The answer of `Expand` as JSON, with parents sorted.
    Tree(String),
    Refused(Option<u32>, String),
}

/// The tuples and the context that a request brings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extra {
    pub(crate) contextual: Vec<Tuple>,
    pub(crate) context: Map<String, Value>,
}

/// An engine with one store.
pub(crate) enum Answers {
    Evaluator { _directory: TempDir, stores: RelationshipStores },
    Api(Box<Conversation>),
}

impl Answers {
    pub(crate) fn evaluator() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let stores = RelationshipStores::open(directory.path()).expect("opened");
        Self::Evaluator { _directory: directory, stores }
    }

    pub(crate) async fn api(address: &str) -> Self {
        let mut conversation = Conversation::with(address);
        let made = conversation.call("CreateStore", json!({ "name": "conformance" })).await;
        assert!(matches!(made, Answer::Message(_)), "{made}");
        Self::Api(Box::new(conversation))
    }

    pub(crate) async fn write_model(&mut self, text: &str) -> Result<(), String> {
        match self {
            Self::Evaluator { stores, .. } => {
                let model = dsl::load(text).map_err(|errors| errors.picture(text))?;
                let store = stores.default_store_or_new().map_err(|error| error.to_string())?;
                store.write_model(model).map(drop).map_err(|error| error.to_string())
            }
            Self::Api(_) => {
                // The server itself decides what is valid.
                let model = dsl::parse(text).map_err(|errors| errors.picture(text))?.model;
                self.write_parsed_model(&model).await
            }
        }
    }

    pub(crate) async fn write_parsed_model(&mut self, model: &AuthorizationModel) -> Result<(), String> {
        match self {
            Self::Evaluator { stores, .. } => {
                let model = ValidModel::new(model.clone()).map_err(|errors| format!("{errors:?}"))?;
                let store = stores.default_store_or_new().map_err(text)?;
                store.write_model(model).map(drop).map_err(text)
            }
            Self::Api(conversation) => {
                let message = model_json::print(model).map_err(text)?;
                done(conversation.call("WriteAuthorizationModel", serde_json::from_str(&message).expect("JSON")).await)
            }
        }
    }

    pub(crate) async fn write(&mut self, tuples: &[Tuple]) -> Result<(), String> {
        match self {
            Self::Evaluator { stores, .. } => {
                let tuples: Result<Vec<RelationshipTuple>, String> = tuples.iter().map(Tuple::parsed).collect();
                let store = stores.default_store_or_new().map_err(|error| error.to_string())?;
                store.write_all(tuples?, OnConflict::Refuse).map(drop).map_err(|error| error.to_string())
            }
            Self::Api(conversation) => {
                for some in tuples.chunks(TUPLES_PER_WRITE) {
                    let keys: Vec<Value> = some.iter().map(Tuple::json).collect();
                    let request = json!({ "writes": { "tuple_keys": keys }, "authorization_model_id": "$model" });
                    done(conversation.call("Write", request).await)?;
                }
                Ok(())
            }
        }
    }

    pub(crate) async fn check(&mut self, asked: &Tuple, extra: &Extra) -> Reply {
        match self {
            Self::Evaluator { stores, .. } => state(stores, extra)
                .and_then(|snapshot| {
                    let (user, relation, object) =
                        (User::parse(&asked.user), Relation::parse(&asked.relation), Object::parse(&asked.object));
                    let (user, relation, object) =
                        (user.map_err(text)?, relation.map_err(text)?, object.map_err(text)?);
                    snapshot.check(&user, &relation, &object).map_err(text)
                })
                .map_or_else(refused, Reply::Allowed),
            Self::Api(conversation) => {
                let request = with(json!({ "tuple_key": question(asked) }), extra);
                reply(conversation.call("Check", request).await, allowed)
            }
        }
    }

    /// Asks all checks in batches. The library has no batches, and checks one by one.
    pub(crate) async fn batch(&mut self, asked: &[(&Tuple, Extra)]) -> Vec<Reply> {
        let mut replies = Vec::new();
        for some in asked.chunks(CHECKS_PER_BATCH) {
            let Self::Api(conversation) = self else {
                for (tuple, extra) in some {
                    replies.push(self.check(tuple, extra).await);
                }
                continue;
            };
            let items = some.iter().enumerate().map(|(position, (tuple, extra))| {
                let mut item = item(tuple, extra);
                item["correlation_id"] = json!(position.to_string());
                item
            });
            let request = json!({ "checks": items.collect::<Vec<_>>(), "authorization_model_id": "$model" });
            let answer = conversation.call("BatchCheck", request).await;
            let Answer::Message(message) = &answer else { panic!("{answer}") };
            for position in 0..some.len() {
                let result = &message["result"][position.to_string()];
                replies.push(batch_reply(result).unwrap_or_else(|| panic!("{answer}")));
            }
        }
        replies
    }

    pub(crate) async fn list_objects(&mut self, request: &ListObjectsRequest, extra: &Extra) -> Reply {
        let ListObjectsRequest { user, type_name, relation } = request;
        match self {
            Self::Evaluator { stores, .. } => state(stores, extra)
                .and_then(|snapshot| {
                    let (user, of) = (User::parse(user).map_err(text)?, TypeName::parse(type_name).map_err(text)?);
                    let relation = Relation::parse(relation).map_err(text)?;
                    snapshot.list_objects(&user, &relation, &of).map_err(text)
                })
                .map_or_else(refused, |listed| Reply::Listed(listed.iter().map(ToString::to_string).collect())),
            Self::Api(conversation) => {
                let request = with(json!({ "user": user, "type": type_name, "relation": relation }), extra);
                let listed = reply(conversation.call("ListObjects", request.clone()).await, objects);
                let streamed = reply(conversation.call("StreamedListObjects", request).await, objects);
                match (&listed, &streamed) {
                    (Reply::Refused(one, _), Reply::Refused(other, _)) => assert_eq!(one, other, "streamed"),
                    _ => assert_eq!(listed, streamed, "streamed"),
                }
                listed
            }
        }
    }

    /// Expands one level of a definition. Only servers can do that.
    pub(crate) async fn expand(&mut self, object: &str, relation: &str, extra: &Extra) -> Reply {
        let Self::Api(conversation) = self else { panic!("the library has no Expand") };
        let mut request = with(json!({ "tuple_key": { "object": object, "relation": relation } }), extra);
        if let Value::Object(fields) = &mut request {
            fields.remove("context");
        }
        reply(conversation.call("Expand", request).await, |message| {
            let mut message = message.clone();
            sort_parents(&mut message);
            Reply::Tree(message.to_string())
        })
    }

    /// Lists users, with one request for each filter, since the API takes only one.
    pub(crate) async fn list_users(&mut self, request: &ListUsersRequest, extra: &Extra) -> Reply {
        let mut all = BTreeSet::new();
        for filter in &request.filters {
            match self.list_users_of(filter, request, extra).await {
                Reply::Listed(listed) => all.extend(listed),
                other @ (Reply::Allowed(_) | Reply::Tree(_) | Reply::Refused(..)) => return other,
            }
        }
        Reply::Listed(all)
    }

    async fn list_users_of(&mut self, filter: &str, request: &ListUsersRequest, extra: &Extra) -> Reply {
        let ListUsersRequest { object, relation, .. } = request;
        let (of, userset) = filter.split_once('#').map_or((filter, None), |(of, relation)| (of, Some(relation)));
        match self {
            Self::Evaluator { stores, .. } => state(stores, extra)
                .and_then(|snapshot| {
                    let (object, relation) =
                        (Object::parse(object).map_err(text)?, Relation::parse(relation).map_err(text)?);
                    let userset = userset.map(Relation::parse).transpose().map_err(text)?;
                    let filter = UserFilter { type_name: TypeName::parse(of).map_err(text)?, relation: userset };
                    snapshot.list_users(&object, &relation, &filter).map_err(text)
                })
                .map_or_else(refused, |listed| Reply::Listed(listed.iter().map(ToString::to_string).collect())),
            Self::Api(conversation) => {
                let (object_type, id) = object.split_once(':').unwrap_or((object, ""));
                let mut request = json!({
                    "object": { "type": object_type, "id": id },
                    "relation": relation,
                    "user_filters": [{ "type": of, "relation": userset.unwrap_or_default() }],
                    "contextual_tuples": extra.contextual.iter().map(Tuple::json).collect::<Vec<_>>(),
                    "authorization_model_id": "$model",
                });
                if !extra.context.is_empty() {
                    request["context"] = json!(extra.context);
                }
                reply(conversation.call("ListUsers", request).await, users)
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
fn text<E: ToString>(error: E) -> String {
    error.to_string()
}

fn refused(detail: String) -> Reply {
    Reply::Refused(None, detail)
}

/// Returns the state that a request is decided from.
fn state(stores: &RelationshipStores, extra: &Extra) -> Result<Snapshot, String> {
    let store = stores.default_store_or_new().map_err(text)?;
    let snapshot = store.snapshot().map_err(text)?.ok_or("no model")?;
    let contextual: Result<Vec<RelationshipTuple>, String> = extra.contextual.iter().map(Tuple::parsed).collect();
    snapshot.for_request(&contextual?, extra.context.clone()).map_err(text)
}

fn question(asked: &Tuple) -> Value {
    json!({ "user": asked.user, "relation": asked.relation, "object": asked.object })
}

fn item(asked: &Tuple, extra: &Extra) -> Value {
    let mut item = with(json!({ "tuple_key": question(asked) }), extra);
    if let Value::Object(fields) = &mut item {
        fields.remove("authorization_model_id");
    }
    item
}

fn with(mut request: Value, extra: &Extra) -> Value {
    request["authorization_model_id"] = json!("$model");
    if !extra.contextual.is_empty() {
        let keys: Vec<Value> = extra.contextual.iter().map(Tuple::json).collect();
        request["contextual_tuples"] = json!({ "tuple_keys": keys });
    }
    if !extra.context.is_empty() {
        request["context"] = json!(extra.context);
    }
    request
}

fn done(answer: Answer) -> Result<(), String> {
    match answer {
        Answer::Message(_) => Ok(()),
        Answer::Refused(number, text) => Err(format!("{number}: {text}")),
    }
}

/// Reads an answer. The client's JSON leaves out what is false or empty.
fn reply(answer: Answer, read: impl Fn(&Value) -> Reply) -> Reply {
    match answer {
        Answer::Refused(number, text) => Reply::Refused(Some(number), text),
        Answer::Message(message) => read(&message),
    }
}

fn allowed(message: &Value) -> Reply {
    Reply::Allowed(message.get("allowed").is_some_and(|allowed| allowed.as_bool().expect("a bool")))
}

fn objects(message: &Value) -> Reply {
    let objects = message.get("objects").and_then(Value::as_array);
    Reply::Listed(objects.into_iter().flatten().map(|object| object.as_str().expect("a name").to_owned()).collect())
}

fn users(message: &Value) -> Reply {
    let users = message.get("users").and_then(Value::as_array);
    Reply::Listed(users.into_iter().flatten().map(user_text).collect())
}

fn user_text(user: &Value) -> String {
    let part = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(object) = user.get("object") {
        return format!("{}:{}", part(object, "type"), part(object, "id"));
    }
    if let Some(userset) = user.get("userset") {
        return format!("{}:{}#{}", part(userset, "type"), part(userset, "id"), part(userset, "relation"));
    }
    format!("{}:*", part(user.get("wildcard").unwrap_or_else(|| panic!("{user}")), "type"))
}

fn batch_reply(result: &Value) -> Option<Reply> {
    if let Some(allowed) = result.get("allowed") {
        return Some(Reply::Allowed(allowed.as_bool()?));
    }
    let error = result.get("error")?;
    let name = error.get("input_error").or_else(|| error.get("internal_error"))?.as_str()?;
    let text = error.get("message").and_then(Value::as_str).unwrap_or_default();
    Some(Reply::Refused(Some(named(name)?), text.to_owned()))
}

/// Returns the number of an error name that checks give.
fn named(name: &str) -> Option<u32> {
    match name {
        "validation_error" => Some(2000),
        "authorization_model_resolution_too_complex" => Some(2002),
        "invalid_tuple" => Some(2027),
        "internal_error" => Some(4000),
        _ => None,
    }
}

/// Sorts parents, which otherwise have the order of the tuples in the store.
fn sort_parents(tree: &mut Value) {
    match tree {
        Value::Object(fields) => {
            if let Some(Value::Array(parents)) = fields.get_mut("computed") {
                parents.sort_by_key(ToString::to_string);
            }
            fields.values_mut().for_each(sort_parents);
        }
        Value::Array(items) => items.iter_mut().for_each(sort_parents),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
