//! Calls to one server in a row, with what earlier answers gave: requests and answers are JSON, numbers of errors are
//! those on the wire.

use std::fmt;

use futures::TryStreamExt;
use http_body_util::BodyExt;
use openfga_client::client::OpenFgaServiceClient;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tower::ServiceExt;
use tower::util::{BoxCloneService, MapResponse};

use ragward::relationship::{dsl, json as model_json};

/// tonic forgets a `grpc-status` that it does not know; a copy stays in the metadata.
const NUMBER_COPY: &str = "number-on-the-wire";

/// An answer, or the number of the error with its text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Message(Value),
    Refused(u32, String),
}

/// Most results of a list.
const LISTED_MAX: usize = 1_000;

type Wire = BoxCloneService<http::Request<Body>, http::Response<Body>, tonic::transport::Error>;

/// See the module.
pub(crate) struct Conversation {
    client: OpenFgaServiceClient<Wire>,
    store: String,
    models: Vec<String>,
    token: String,
}

impl Conversation {
    pub(crate) fn with(address: &str) -> Self {
        let channel = Endpoint::from_shared(address.to_owned()).expect("an address").connect_lazy();
        let wire: MapResponse<Channel, _> = channel.map_response(copy_number);
        let client = OpenFgaServiceClient::new(BoxCloneService::new(wire));
        Self { client, store: String::new(), models: Vec::new(), token: String::new() }
    }

    /// Calls a method. `{$repeat: [n, {…}]}` is a list, `{$names: n}` so many relations with metadata; `$model` is the latest model, `$first_model` the first, `$token` the token of the last answer; the
    /// store is the latest one, unless the request names one. `Model` writes a model from its text.
    pub(crate) async fn call(&mut self, method: &str, request: Value) -> Answer {
        let (method, request) = match request.clone() {
            Value::String(text) if method == "Model" => ("WriteAuthorizationModel", model_request(&text)),
            Value::Null => (method, json!({})),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                (method, request)
            }
        };
        let answer = self.send(method, self.complete(method, request)).await;
        if let Answer::Message(message) = &answer {
            let text = |key: &str| message.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            match method {
                "CreateStore" => self.store = text("id"),
                "WriteAuthorizationModel" => self.models.push(text("authorization_model_id")),
                _ => {}
            }
            self.token = text("continuation_token");
        }
        answer
    }

    fn complete(&self, method: &str, request: Value) -> Value {
        let mut request = self.filled(request);
        if let (Value::Object(fields), false) = (&mut request, matches!(method, "CreateStore" | "ListStores")) {
            fields.entry("store_id").or_insert_with(|| Value::String(self.store.clone()));
        }
        request
    }

    fn filled(&self, value: Value) -> Value {
        match value.clone() {
            Value::String(text) => Value::String(match text.as_str() {
                "$model" => self.models.last().cloned().unwrap_or_default(),
                "$first_model" => self.models.first().cloned().unwrap_or_default(),
                "$token" => self.token.clone(),
                "$store" => self.store.clone(),
                _ => repeated(text),
            }),
            Value::Array(items) => Value::Array(items.into_iter().map(|item| self.filled(item)).collect()),
            Value::Object(fields) => {
                if let Some(Value::Array(repeat)) = fields.get("$repeat") {
                    return self.filled(many(repeat));
                }
                if let Some(count) = fields.get("$names").and_then(Value::as_u64) {
                    let name = |n| (format!("relation_with_a_long_name_{n}"), json!({ "module": "m" }));
                    return Value::Object((0..count).map(name).collect());
                }
                let filled = fields.into_iter().map(|(key, value)| (key, self.filled(value)));
                Value::Object(filled.collect::<Map<_, _>>())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }

    async fn send(&mut self, method: &str, request: Value) -> Answer {
        let client = &mut self.client;
        match method {
            "CreateStore" => answer(client.create_store(parsed(&request)).await),
            "UpdateStore" => answer(client.update_store(parsed(&request)).await),
            "GetStore" => answer(client.get_store(parsed(&request)).await),
            "DeleteStore" => answer(client.delete_store(parsed(&request)).await),
            "ListStores" => answer(client.list_stores(parsed(&request)).await),
            "WriteAuthorizationModel" => answer(client.write_authorization_model(parsed(&request)).await),
            "ReadAuthorizationModel" => answer(client.read_authorization_model(parsed(&request)).await),
            "ReadAuthorizationModels" => answer(client.read_authorization_models(parsed(&request)).await),
            "Write" => answer(client.write(parsed(&request)).await),
            "Read" => answer(client.read(parsed(&request)).await),
            "ReadChanges" => answer(client.read_changes(parsed(&request)).await),
            "Check" => answer(client.check(parsed(&request)).await),
            "BatchCheck" => answer(client.batch_check(parsed(&request)).await),
            "Expand" => answer(client.expand(parsed(&request)).await),
            "ListObjects" => answer(client.list_objects(parsed(&request)).await),
            "ListUsers" => answer(client.list_users(parsed(&request)).await),
            "ReadAssertions" => answer(client.read_assertions(parsed(&request)).await),
            "WriteAssertions" => answer(client.write_assertions(parsed(&request)).await),
            "StreamedListObjects" => match client.streamed_list_objects(parsed(&request)).await {
                Ok(stream) => match stream.into_inner().try_collect::<Vec<_>>().await {
                    Ok(found) => {
                        Answer::Message(json!({ "objects": found.iter().map(|f| &f.object).collect::<Vec<_>>() }))
                    }
                    Err(status) => refused(&status),
                },
                Err(status) => refused(&status),
            },
            other => panic!("`{other}` is not a method"),
        }
    }
}

impl Answer {
    /// Without what differs by nature.
    pub(crate) fn masked(&self) -> Value {
        match self {
            Self::Message(message) => masked("", message),
            Self::Refused(number, _) => json!(number),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(_) => write!(f, "{}", self.masked()),
            Self::Refused(number, text) => write!(f, "{number}: {text}"),
        }
    }
}

fn masked(key: &str, value: &Value) -> Value {
    match value {
        Value::String(text) if is_id(text) => json!("<id>"),
        Value::String(text) if matches!(key, "timestamp" | "created_at" | "updated_at") && !text.is_empty() => {
            json!("<time>")
        }
        Value::String(text) if key == "continuation_token" && !text.is_empty() => json!("<token>"),
        // The text of the error of one check of a batch.
        Value::String(_) if key == "message" => json!("<text>"),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(|item| masked("", item)).collect();
            // Lists of what was found have no order.
            if matches!(key, "objects" | "users") {
                items.sort_by_key(Value::to_string);
                // Of more than a list may have, any are as good as others.
                if items.len() >= LISTED_MAX {
                    return json!({ "listed": items.len() });
                }
            }
            Value::Array(items)
        }
        Value::Object(fields) => {
            let masked = fields.iter().map(|(key, value)| (key.clone(), masked(key, value)));
            Value::Object(masked.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 26 && text.starts_with('0') && text.chars().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase())
}

/// `a*600` is 600 times `a`, after a prefix: `user:a*600`.
fn repeated(text: String) -> String {
    let Some((head, times)) = text.rsplit_once('*') else { return text };
    match (times.parse::<usize>(), head.chars().last()) {
        (Ok(times), Some(last)) => format!("{head}{}", last.to_string().repeat(times - 1)),
        _ => text,
    }
}

/// `{$repeat: [n, {…}]}`: so many of an object, with `#n` replaced by its number.
fn many(repeat: &[Value]) -> Value {
    let [count, template] = repeat else { panic!("`$repeat` takes a number and a template") };
    let template = template.to_string();
    let one = |n| serde_json::from_str(&template.replace("#n", &format!("{n}"))).expect("JSON");
    Value::Array((0..count.as_u64().expect("a number")).map(one).collect())
}

fn model_request(text: &str) -> Value {
    let model = dsl::load(text).unwrap_or_else(|errors| panic!("{}", errors.picture(text)));
    serde_json::from_str(&model_json::print(model.source()).expect("JSON")).expect("JSON")
}

fn parsed<T: DeserializeOwned>(request: &Value) -> Request<T> {
    Request::new(serde_json::from_value(request.clone()).unwrap_or_else(|e| panic!("{request}: {e}")))
}

fn answer<T: Serialize>(answer: Result<tonic::Response<T>, Status>) -> Answer {
    match answer {
        Ok(answer) => Answer::Message(serde_json::to_value(answer.into_inner()).expect("JSON")),
        Err(status) => refused(&status),
    }
}

fn refused(status: &Status) -> Answer {
    let number = status.metadata().get(NUMBER_COPY).and_then(|number| number.to_str().ok()?.parse().ok());
    Answer::Refused(number.unwrap_or(u32::MAX), status.message().to_owned())
}

fn copy_number(mut response: http::Response<Body>) -> http::Response<Body> {
    copy(response.headers_mut());
    response.map(|body| {
        Body::new(body.map_frame(|mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                copy(trailers);
            }
            frame
        }))
    })
}

fn copy(headers: &mut http::HeaderMap) {
    if let Some(number) = headers.get("grpc-status").cloned() {
        headers.insert(NUMBER_COPY, number);
    }
}
