//! `OpenFGA`'s HTTP API as Ragward serves it, against a real `OpenFGA`. The scripts of `live_api/*.yaml` run on both over HTTP.
//! Status, content type, the name of every error, the header that names the model, and the JSON are compared. Values that
//! always differ (ids, times, tokens, the text of errors) are masked.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::openfga::live_api::{STACK_BYTES, Script, ragward, scripts};
use crate::support::conversation::{Answer, Conversation};
use crate::support::held_port::HeldPort;
use crate::support::http::{Call, Reply};
use crate::support::openfga::{OpenFga, WITH_HTTP};

/// The answers of both servers to one call.
struct Compared<'a> {
    method: &'a str,
    request: &'a Value,
    /// Whether only one of the servers took an earlier model of the script.
    models_differ: bool,
    theirs: Value,
    ours: Value,
}

/// A difference that stays, with its reason.
struct Named {
    reason: &'static str,
    is_this: fn(&Compared) -> bool,
}

/// The deepest JSON that Ragward reads. Deeper contexts and models are refused over gRPC, too.
const DEPTH_MAX: usize = 127;

const NAMED: [Named; 4] = [
    Named {
        reason: "JSON that is nested deeper than its reader goes is refused, where OpenFGA reads it to 10,000 levels",
        is_this: |compared| compared.ours["status"] == 400 && depth(compared.request) > DEPTH_MAX,
    },
    Named {
        reason: "a question about a model that was nested too deep, or about the one before it",
        is_this: |compared| compared.models_differ && compared.method == "Check",
    },
    Named {
        reason: "a message that is too large is 413, so that no client sends it again, where OpenFGA says 500",
        is_this: |compared| {
            (&compared.ours["status"], &compared.theirs["status"]) == (&json!(413), &json!(500))
                && compared.theirs["body"]["code"] == "resource_exhausted"
        },
    },
    Named {
        reason: "a stream does not name its model, because it begins before the model is known",
        is_this: |compared| {
            let mut ours = compared.ours.clone();
            ours["names a model"] = json!(true);
            compared.method == "StreamedListObjects" && ours == compared.theirs
        },
    },
];

/// Returns how deep a value is nested.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(fields) => {
            // A form that is put around another n times.
            if let Some(Value::Array(nest)) = fields.get("$nest") {
                let times = usize::try_from(nest[0].as_u64().expect("a number")).expect("a small number");
                return times * depth_of_inner(&nest[1]).expect("one `$inner`") + depth(&nest[2]);
            }
            1 + fields.values().map(depth).max().unwrap_or_default()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Returns how deep `$inner` lies in a form.
fn depth_of_inner(form: &Value) -> Option<usize> {
    match form {
        Value::String(text) => (text == "$inner").then_some(0),
        Value::Array(items) => items.iter().find_map(depth_of_inner).map(|depth| depth + 1),
        Value::Object(fields) => fields.values().find_map(depth_of_inner).map(|depth| depth + 1),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// Returns what a client reads of an answer.
fn seen(method: &str, reply: &Reply) -> Value {
    let is_answer = (200..300).contains(&reply.status);
    let body = match method {
        _ if reply.body.is_empty() => Value::Null,
        "StreamedListObjects" if is_answer => lines(reply),
        _ => Answer::Message(plain_numbers(reply.json())).masked(),
    };
    let content_type = reply.header("content-type").filter(|_| !reply.body.is_empty());
    let names_model = is_answer && reply.header("openfga-authorization-model-id").is_some_and(|id| !id.is_empty());
    json!({ "status": reply.status, "content-type": content_type, "names a model": names_model, "body": body })
}

/// Returns the lines of a stream, which have no order.
fn lines(reply: &Reply) -> Value {
    let text = reply.text();
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"));
    let mut lines: Vec<Value> = lines.map(|line| Answer::Message(line).masked()).collect();
    lines.sort_by_key(Value::to_string);
    Value::Array(lines)
}

/// Writes 1.0 as 1: the two are the same number of JSON.
fn plain_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < 1e15 => {
                #[expect(clippy::cast_possible_truncation, reason = "it is whole and small")]
                let whole = float as i64;
                json!(whole)
            }
            Some(_) | None => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(plain_numbers).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, plain_numbers(value))).collect(),
        Value::Null | Value::Bool(_) | Value::String(_) => value,
    }
}

/// Starts an `OpenFGA` with its HTTP server, and returns the port of that.
async fn with_http() -> Option<(OpenFga, HeldPort)> {
    let port = HeldPort::new();
    let server = OpenFga::start_with(&[WITH_HTTP, &format!("--http-addr={}", port.address)]).await?;
    Some((server, port))
}

#[test]
fn both_answer_alike_over_http() {
    let comparing = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(compare_all());
    });
    if let Err(failed) = comparing.expect("a thread").join() {
        std::panic::resume_unwind(failed);
    }
}

async fn compare_all() {
    let Some((_server, port)) = with_http().await else { return };
    let theirs = port.address.to_string();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ours = ragward(directory.path()).await.replace("http://", "");
    let (mut differences, mut compared) = (Vec::new(), 0);
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    for Script { script, calls } in scripts() {
        let (mut at_theirs, mut at_ours) = (Conversation::over_http(&theirs), Conversation::over_http(&ours));
        let mut models_differ = false;
        for (position, call) in calls.iter().enumerate() {
            for (method, request) in call {
                compared += 1;
                at_theirs.call(method, request.clone()).await;
                at_ours.call(method, request.clone()).await;
                let [expected, found] = [&at_theirs, &at_ours].map(|at| at.last_reply().expect("an answer"));
                let (theirs, ours) = (seen(method, expected), seen(method, found));
                models_differ |= method == "WriteAuthorizationModel" && theirs["status"] != ours["status"];
                let both = Compared { method, request, models_differ, theirs, ours };
                if both.theirs == both.ours {
                    continue;
                }
                if let Some(known) = NAMED.iter().find(|known| (known.is_this)(&both)) {
                    *named.entry(known.reason).or_default() += 1;
                    continue;
                }
                let call = format!("{script}, call {position}: {method} {}", shortened(&request.to_string()));
                let [expected, found] = [expected, found].map(|reply| shortened(&reply.text()));
                let Compared { theirs, ours, .. } = both;
                differences.push(format!("{call}\n  OpenFGA {theirs} {expected}\n  Ragward {ours} {found}"));
            }
        }
    }
    let count = differences.len();
    assert!(differences.is_empty(), "{count} of {compared} answers differ\n{}", differences.join("\n"));
    eprintln!("{compared} answers compared; differences that stay: {named:?}");
}

fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 600;
    text.chars().take(CHARS_MAX).collect()
}

/// What no script can say: the form of a request itself.
#[tokio::test]
async fn both_refuse_alike_what_is_no_call() {
    let Some((_server, port)) = with_http().await else { return };
    let theirs = port.address.to_string();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ours = ragward(directory.path()).await.replace("http://", "");
    let create = || Call::json("/stores", &json!({ "name": "forms" }));
    let absent = "/stores/01JZZZZZZZZZZZZZZZZZZZZZZZ";
    let list = |body: &'static str| Call::json(&format!("{absent}/streamed-list-objects"), &json!({})).body(body);
    let rows = [
        ("an unknown field", create().body(r#"{"name":"forms","nope":1}"#)),
        ("no JSON", create().body("name=forms")),
        ("half an object", create().body("{\"name\":")),
        ("a list", create().body("[]")),
        ("a number in place of a text", create().body("{\"name\":1}")),
        ("an empty body", create().body("")),
        ("an unknown path of a store", Call::new("POST", &format!("{absent}/nothing"))),
        ("a trailing slash", create().path("/stores/")),
        ("a store without its id", Call::new("GET", "/stores/")),
        ("a trailing slash after a call", Call::json(&format!("{absent}/check/"), &json!({}))),
        ("another verb", create().verb("PUT")),
        ("another verb of a call", Call::new("GET", &format!("{absent}/check"))),
        ("an id in percents", Call::new("GET", "/stores/%30%31JZZZZZZZZZZZZZZZZZZZZZZZ")),
        ("a page size that is no number", Call::new("GET", "/stores?page_size=many")),
        ("a page size out of range", Call::new("GET", "/stores?page_size=0")),
        ("an unknown parameter", Call::new("GET", "/stores?nope=1&name=nobody")),
        ("a time that is none", Call::new("GET", &format!("{absent}/changes?start_time=soon"))),
        ("a stream of no JSON", list("type=doc")),
        ("a stream that breaks a rule", list("{}")),
        ("a stream of no store", list(r#"{"type":"doc","relation":"viewer","user":"user:anne"}"#)),
    ];
    let mut differences = Vec::new();
    for (row, call) in rows {
        let (expected, found) = (call.send(&theirs).await, call.send(&ours).await);
        if seen(row, &expected) != seen(row, &found) {
            let [expected, found] = [expected, found].map(|reply| format!("{} {}", seen(row, &reply), reply.text()));
            differences.push(format!("{row}\n  OpenFGA {expected}\n  Ragward {found}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
