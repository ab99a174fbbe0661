//! The calls of a conversation over `OpenFGA`'s HTTP API.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::Answer;
use crate::support::http::{Call, Reply};

/// The route of one method.
struct Route {
    method: &'static str,
    verb: &'static str,
    /// The path, with fields of the request in braces.
    template: &'static str,
}

const fn route(method: &'static str, verb: &'static str, template: &'static str) -> Route {
    Route { method, verb, template }
}

const ROUTES: [Route; 19] = [
    route("ListStores", "GET", "/stores"),
    route("CreateStore", "POST", "/stores"),
    route("GetStore", "GET", "/stores/{store_id}"),
    route("UpdateStore", "PATCH", "/stores/{store_id}"),
    route("DeleteStore", "DELETE", "/stores/{store_id}"),
    route("WriteAuthorizationModel", "POST", "/stores/{store_id}/authorization-models"),
    route("ReadAuthorizationModels", "GET", "/stores/{store_id}/authorization-models"),
    route("ReadAuthorizationModel", "GET", "/stores/{store_id}/authorization-models/{id}"),
    route("Read", "POST", "/stores/{store_id}/read"),
    route("Write", "POST", "/stores/{store_id}/write"),
    route("ReadChanges", "GET", "/stores/{store_id}/changes"),
    route("Check", "POST", "/stores/{store_id}/check"),
    route("BatchCheck", "POST", "/stores/{store_id}/batch-check"),
    route("Expand", "POST", "/stores/{store_id}/expand"),
    route("ListObjects", "POST", "/stores/{store_id}/list-objects"),
    route("StreamedListObjects", "POST", "/stores/{store_id}/streamed-list-objects"),
    route("ListUsers", "POST", "/stores/{store_id}/list-users"),
    route("ReadAssertions", "GET", "/stores/{store_id}/assertions/{authorization_model_id}"),
    route("WriteAssertions", "PUT", "/stores/{store_id}/assertions/{authorization_model_id}"),
];

pub(super) struct HttpApi {
    address: String,
    pub(super) last_reply: Option<Reply>,
}

impl HttpApi {
    pub(super) fn at(address: &str) -> Self {
        Self { address: address.to_owned(), last_reply: None }
    }

    pub(super) async fn send(&mut self, method: &str, request: Value) -> Answer {
        let reply = call(method, request).send(&self.address).await;
        let answer = match reply.status {
            200..300 if method == "StreamedListObjects" => Answer::Message(json!({ "objects": streamed(&reply) })),
            200..300 if reply.body.is_empty() => Answer::Message(json!({})),
            200..300 => Answer::Message(reply.json()),
            status => Answer::Refused(u32::from(status), reply.text()),
        };
        self.last_reply = Some(reply);
        answer
    }
}

/// Returns the objects of a stream of lines.
fn streamed(reply: &Reply) -> Vec<Value> {
    let text = reply.text();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    lines.map(|line| line["result"]["object"].clone()).collect()
}

fn call(method: &str, request: Value) -> Call {
    let found = ROUTES.iter().find(|route| route.method == method);
    let Route { verb, template, .. } = found.unwrap_or_else(|| panic!("`{method}` is not a method"));
    let Value::Object(mut fields) = request else { panic!("{method}: not an object") };
    // The number of a field stands for an unknown value of its enum, and all of these enums are `consistency`.
    if let Some(number) = fields.remove("$number") {
        fields.insert("consistency".to_owned(), number[1].clone());
    }
    let segments =
        template.split('/').map(|segment| match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => {
                let value = fields.remove(name).unwrap_or_default();
                utf8_percent_encode(value.as_str().unwrap_or_default(), NON_ALPHANUMERIC).to_string()
            }
            None => segment.to_owned(),
        });
    let path = segments.collect::<Vec<_>>().join("/");
    match *verb {
        "GET" | "DELETE" => Call::new(verb, &with_query(&path, &fields)),
        verb => Call::json(&path, &Value::Object(fields)).verb(verb),
    }
}

fn with_query(path: &str, fields: &Map<String, Value>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields {
        match value {
            Value::String(text) => query.append_pair(name, text),
            Value::Null => continue,
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                query.append_pair(name, &value.to_string())
            }
        };
    }
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}
