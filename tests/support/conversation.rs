//! A sequence of calls to one server. Each call can use values from earlier answers. Requests and answers are JSON, and
//! error numbers are those on the wire.

mod http_api;

use std::fmt;

use futures::TryStreamExt;
use http_body_util::BodyExt;
use openfga_client::client::OpenFgaServiceClient;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tower::ServiceExt;
use tower::util::{BoxCloneService, MapResponse};

use ragward::language::{dsl, json as model_json};

use self::http_api::HttpApi;
use crate::support::http::Reply;

/// tonic drops a `grpc-status` that it does not know, so a copy is kept in the metadata.
const NUMBER_COPY: &str = "number-on-the-wire";

/// An answer, or the number and the text of an error.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Message(Value),
    Refused(u32, String),
}

/// The number of results that a list may have.
const LISTED_MAX: usize = 1_000;

/// The way to the server.
enum Transport {
    Grpc(OpenFgaServiceClient<Wire>),
    Http(HttpApi),
}

type Wire = BoxCloneService<http::Request<Body>, http::Response<Body>, tonic::transport::Error>;

/// A client with the values of earlier answers.
pub(crate) struct Conversation {
    transport: Transport,
    store: String,
    models: Vec<String>,
    token: String,
    earlier_token: String,
}

impl Conversation {
    pub(crate) fn with(address: &str) -> Self {
        let channel = Endpoint::from_shared(address.to_owned()).expect("an address").connect_lazy();
        let wire: MapResponse<Channel, _> = channel.map_response(copy_number);
        Self::through(Transport::Grpc(OpenFgaServiceClient::new(BoxCloneService::new(wire))))
    }

    /// Like [`Self::with`], over the HTTP API at an address such as `127.0.0.1:8080`.
    pub(crate) fn over_http(address: &str) -> Self {
        Self::through(Transport::Http(HttpApi::at(address)))
    }

    fn through(transport: Transport) -> Self {
        let (store, models) = (String::new(), Vec::new());
        Self { transport, store, models, token: String::new(), earlier_token: String::new() }
    }

    /// Returns the last answer over HTTP as it was sent.
    pub(crate) fn last_reply(&self) -> Option<&Reply> {
        match &self.transport {
            Transport::Grpc(_) => None,
            Transport::Http(api) => api.last_reply.as_ref(),
        }
    }

    /// Calls a method. `$model` is the latest model, `$first_model` the first, `$store` the latest store, `$token` the
    /// token of the last answer, `$earlier_token` the one before. The latest store is used, unless the request names
    /// another. `Model` writes a model from its text. `Expression` writes a model with a condition, and asks whether
    /// the condition is met. `{$repeat: [n, {…}]}` makes a list, `{$entries: [n, "name#k", {…}]}` an object, and
    /// `{$nest: [n, {… $inner …}, {…}]}` nests a form n levels deep.
    pub(crate) async fn call(&mut self, method: &str, request: Value) -> Answer {
        if method == "Expression" {
            return self.expression(&request).await;
        }
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
            self.earlier_token = std::mem::replace(&mut self.token, text("continuation_token"));
        }
        answer
    }

    /// Writes a model with an expression over [`parameters`], and evaluates it with [`context`] or with another
    /// context.
    async fn expression(&mut self, request: &Value) -> Answer {
        let text = request.get("is").unwrap_or(request);
        let condition = json!({ "cc": {
            "name": "cc", "expression": text,
            "parameters": request.get("parameters").cloned().unwrap_or_else(parameters),
        }});
        let model = json!({
            "schema_version": "1.1",
            "type_definitions": [{ "type": "user" }, {
                "type": "doc",
                "relations": { "viewer": { "this": {} } },
                "metadata": { "relations": { "viewer": {
                    "directly_related_user_types": [{ "type": "user", "condition": "cc" }]
                }}},
            }],
            "conditions": condition,
        });
        let model = self.complete("WriteAuthorizationModel", model);
        let written = self.send("WriteAuthorizationModel", model).await;
        let Answer::Message(written) = written else { return written };
        let mut context = context();
        if let (Value::Object(context), Some(Value::Object(changed))) = (&mut context, request.get("with")) {
            context.extend(changed.clone());
        }
        let key = json!({ "user": "user:anne", "relation": "viewer", "object": "doc:1" });
        let mut tuple = key.clone();
        tuple["condition"] = json!({ "name": "cc", "context": request.get("stored") });
        let check = json!({
            "authorization_model_id": written["authorization_model_id"],
            "tuple_key": key,
            "contextual_tuples": { "tuple_keys": [tuple] },
            "context": context,
        });
        let check = self.complete("Check", check);
        match self.send("Check", check).await {
            Answer::Message(answer) => Answer::Message(json!({ "met": answer["allowed"] })),
            Answer::Refused(number, text) => Answer::Refused(number, format!("the model is taken; {text}")),
        }
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
                "$earlier_token" => self.earlier_token.clone(),
                "$store" => self.store.clone(),
                _ => repeated(text),
            }),
            Value::Array(items) => Value::Array(items.into_iter().map(|item| self.filled(item)).collect()),
            Value::Object(fields) => {
                if let Some(Value::Array(repeat)) = fields.get("$repeat") {
                    return self.filled(many(repeat));
                }
                if let Some(Value::Array(entries)) = fields.get("$entries") {
                    return self.filled(named(entries));
                }
                if let Some(Value::Array(nest)) = fields.get("$nest") {
                    return nested(nest);
                }
                let filled = fields.into_iter().map(|(key, value)| (key, self.filled(value)));
                Value::Object(filled.collect::<Map<_, _>>())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }

    async fn send(&mut self, method: &str, request: Value) -> Answer {
        let client = match &mut self.transport {
            Transport::Grpc(client) => client,
            Transport::Http(api) => return api.send(method, request).await,
        };
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
    /// Returns the answer without the values that always differ, such as ids and times.
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
        // This is the text of the error of one check in a batch.
        Value::String(_) if key == "message" => json!("<text>"),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(|item| masked("", item)).collect();
            // Lists of results have no order.
            if matches!(key, "objects" | "users") {
                items.sort_by_key(Value::to_string);
                // If there are more results than a list may have, any of them will do.
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

/// Repeats the letter before `*`: `user:a*600` stands for `user:` and then 600 times `a`.
fn repeated(text: String) -> String {
    let Some((head, times)) = text.rsplit_once('*') else { return text };
    match (times.parse::<usize>(), head.chars().last()) {
        (Ok(times), Some(last)) => format!("{head}{}", last.to_string().repeat(times - 1)),
        _ => text,
    }
}

/// Expands `{$repeat: [n, {…}]}` to a list of n copies of the object. In each copy, its number replaces `#n`.
fn many(repeat: &[Value]) -> Value {
    let [count, template] = repeat else { panic!("`$repeat` takes a number and a template") };
    let template = template.to_string();
    let one = |n| serde_json::from_str(&template.replace("#n", &format!("{n}"))).expect("JSON");
    Value::Array((0..count.as_u64().expect("a number")).map(one).collect())
}

/// Expands `{$entries: [n, "name#k", {…}]}` to an object with n entries. In each entry, its number replaces `#k`.
fn named(entries: &[Value]) -> Value {
    let [count, name, template] = entries else { panic!("`$entries` takes a number, a name and a template") };
    let (name, template) = (name.as_str().expect("a name"), template.to_string());
    let one = |n: u64| {
        let entry = serde_json::from_str(&template.replace("#k", &format!("{n}"))).expect("JSON");
        (name.replace("#k", &format!("{n}")), entry)
    };
    Value::Object((0..count.as_u64().expect("a number")).map(one).collect())
}

/// Expands `{$nest: [n, {… $inner …}, {…}]}`: wraps the first form around the second n times. Each time, the form so
/// far replaces `$inner`.
fn nested(nest: &[Value]) -> Value {
    let [count, around, innermost] = nest else { panic!("`$nest` takes a number and two templates") };
    (0..count.as_u64().expect("a number")).fold(innermost.clone(), |inner, _| with_inner(around, inner))
}

fn with_inner(around: &Value, inner: Value) -> Value {
    put(around, &mut Some(inner))
}

fn put(value: &Value, inner: &mut Option<Value>) -> Value {
    match value {
        Value::String(text) if text == "$inner" => inner.take().expect("one `$inner`"),
        Value::Array(items) => Value::Array(items.iter().map(|item| put(item, inner)).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), put(value, inner))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Returns the parameters that expressions may use.
fn parameters() -> Value {
    let plain = |name: &str| json!({ "type_name": format!("TYPE_NAME_{name}") });
    let of =
        |name: &str, element: Value| json!({ "type_name": format!("TYPE_NAME_{name}"), "generic_types": [element] });
    json!({
        "b": plain("BOOL"), "s": plain("STRING"), "x": plain("INT"), "u": plain("UINT"), "f": plain("DOUBLE"),
        "d": plain("DURATION"), "t": plain("TIMESTAMP"), "ip": plain("IPADDRESS"), "a": plain("ANY"),
        "l": of("LIST", plain("INT")), "m": of("MAP", plain("STRING")),
        "ls": of("LIST", plain("STRING")), "la": of("LIST", plain("ANY")), "ma": of("MAP", plain("ANY")),
        "ll": of("LIST", of("LIST", plain("INT"))), "ml": of("MAP", of("LIST", plain("INT"))),
    })
}

/// Returns the parameters' values, for rows that have no others.
fn context() -> Value {
    json!({
        "b": true, "s": "abc", "x": 1, "u": 2, "f": 0.5,
        "d": "30m", "t": "2024-02-03T04:05:06.789Z", "ip": "10.1.2.3", "a": { "b": 1, "c": "d" },
        "l": [1, 2, 3], "m": { "k": "v" },
        "ls": ["a", "b"], "la": [1, "a", null], "ma": { "k": 1, "n": null },
        "ll": [[1], [2, 3]], "ml": { "k": [1, 2] },
    })
}

fn model_request(text: &str) -> Value {
    let document = dsl::parse(text).unwrap_or_else(|errors| panic!("{}", errors.picture(text)));
    serde_json::from_str(&model_json::print(&document.model).expect("JSON")).expect("JSON")
}

/// Parses a request. `$number: [field, value]` sets a field to a number that JSON cannot express, such as an unknown
/// value of an enum.
fn parsed<T: DeserializeOwned + Message + Default>(request: &Value) -> Request<T> {
    let mut request = request.clone();
    let number = request.as_object_mut().and_then(|fields| fields.remove("$number"));
    let message: T = serde_json::from_value(request.clone()).unwrap_or_else(|e| panic!("{request}: {e}"));
    let Some(number) = number else { return Request::new(message) };
    let (field, value) = (number[0].as_u64().expect("a field"), number[1].as_i64().expect("a value"));
    let mut bytes = message.encode_to_vec();
    prost::encoding::encode_varint(field << 3, &mut bytes);
    prost::encoding::encode_varint(value.cast_unsigned(), &mut bytes);
    Request::new(T::decode(bytes.as_slice()).expect("a message"))
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
