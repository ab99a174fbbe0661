//! `OpenFGA`'s API as Ragward serves it, against a real `OpenFGA`. The scripts of `live_api/*.yaml` run on both, and
//! every answer, error number and page is compared. Values that always differ (ids, times, tokens, the text of errors)
//! are masked.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use prost::Message;
use ragward::app::App;
use ragward::authz::openfga::{OpenFgaAuthorizer, OpenFgaConfig, OpenFgaStore, StoreSelector};
use ragward::config::{Config, Overrides};
use ragward::language::limits::MODEL_BYTES_MAX;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::conversation::{Answer, Conversation};
use crate::support::openfga::OpenFga;

#[derive(Deserialize)]
pub(super) struct Script {
    pub(super) script: String,
    pub(super) calls: Vec<Map<String, Value>>,
}

/// Returns the scripts of all files, in the order of their names.
pub(super) fn scripts() -> Vec<Script> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openfga/live_api");
    let files = std::fs::read_dir(directory).expect("the scripts").map(|entry| entry.expect("a file").path());
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    let read = |file: &std::path::PathBuf| -> Vec<Script> {
        let text = std::fs::read_to_string(file).expect("a file of scripts");
        serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
    };
    files.iter().flat_map(read).collect()
}

/// Starts Ragward on a port of loopback, until the runtime of the test ends.
pub(super) async fn ragward(data: &Path) -> String {
    let overrides = Overrides { data: Some(data.to_owned()), insecure_identity: true, ..Overrides::default() };
    let app = Arc::new(App::open(&Config::load(None, &overrides).expect("a configuration")).await.expect("opened"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { app.serve(listener, std::future::pending()).await.expect("served") });
    address
}

/// The stack of the test. Models may be nested thousands deep, and the clients of this test recurse for every level.
pub(super) const STACK_BYTES: usize = 512 * 1024 * 1024;

#[test]
fn both_answer_alike() {
    let comparing = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(compare_all());
    });
    if let Err(failed) = comparing.expect("a thread").join() {
        std::panic::resume_unwind(failed);
    }
}

async fn compare_all() {
    let Some(server) = OpenFga::start().await else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (theirs, ours) = (server.config("any").address, ragward(directory.path()).await);
    let (mut differences, mut compared) = (Vec::new(), 0);
    for Script { script, calls } in scripts() {
        let (mut at_theirs, mut at_ours) = (Conversation::with(&theirs), Conversation::with(&ours));
        for (position, call) in calls.iter().enumerate() {
            for (method, request) in call {
                compared += 1;
                let expected = at_theirs.call(method, request.clone()).await;
                let found = at_ours.call(method, request.clone()).await;
                if expected.masked() != found.masked() {
                    let call = format!("{script}, call {position}: {method} {request}");
                    differences.push(format!("{call}\n  OpenFGA {expected}\n  Ragward {found}"));
                }
            }
        }
    }
    let count = differences.len();
    assert!(differences.is_empty(), "{count} of {compared} answers differ\n{}", differences.join("\n"));
    eprintln!("{compared} answers compared");
}

/// Returns a model whose message has this many bytes once it has an id.
fn model_of(bytes: usize) -> Value {
    // The bytes of a ULID in a message.
    const ID_BYTES: usize = 28;
    let user = json!({ "directly_related_user_types": [{ "type": "user" }] });
    let with = |relations: usize, name: &str| {
        let names: Vec<String> = (0..relations).map(|number| format!("relation_{number:020}")).collect();
        let rewrites: Map<String, Value> = names.iter().map(|name| (name.clone(), json!({ "this": {} }))).collect();
        let metadata: Map<String, Value> = names.iter().map(|name| (name.clone(), user.clone())).collect();
        json!({
            "schema_version": "1.1",
            "type_definitions": [
                { "type": "user" },
                { "type": name },
                { "type": "doc", "relations": rewrites, "metadata": { "relations": metadata } },
            ],
        })
    };
    let size = |model: &Value| {
        let message: openfga_client::client::AuthorizationModel =
            serde_json::from_value(model.clone()).expect("a model");
        message.encoded_len() + ID_BYTES
    };
    let of_a_relation = size(&with(1_000, "x")) - size(&with(999, "x"));
    let relations = (bytes - 150) / of_a_relation;
    let named = (1..=254).map(|length| with(relations, &"x".repeat(length)));
    named.into_iter().find(|model| size(model) == bytes).expect("a model of that size")
}

#[tokio::test]
async fn both_take_models_up_to_the_same_size() {
    let Some(server) = OpenFga::start().await else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (theirs, ours) = (server.config("any").address, ragward(directory.path()).await);
    let (mut at_theirs, mut at_ours) = (Conversation::with(&theirs), Conversation::with(&ours));
    for conversation in [&mut at_theirs, &mut at_ours] {
        conversation.call("CreateStore", json!({ "name": "sizes" })).await;
    }
    for (row, bytes, is_taken) in [
        ("one under", MODEL_BYTES_MAX - 1, true),
        ("at the limit", MODEL_BYTES_MAX, true),
        ("one over", MODEL_BYTES_MAX + 1, false),
    ] {
        let model = model_of(bytes);
        let expected = at_theirs.call("WriteAuthorizationModel", model.clone()).await;
        let found = at_ours.call("WriteAuthorizationModel", model).await;
        assert_eq!(matches!(expected, Answer::Message(_)), is_taken, "{row}: {expected}");
        assert_eq!(found.masked(), expected.masked(), "{row}");
    }
}

/// The number of an error is its `grpc-status`, in headers and in trailers. This needs no real server.
#[tokio::test]
async fn numbers_are_on_the_wire() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut ours = Conversation::with(&ragward(directory.path()).await);
    ours.call("CreateStore", json!({ "name": "numbers" })).await;
    let rows = [
        ("GetStore", json!({ "store_id": "01JZZZZZZZZZZZZZZZZZZZZZZZ" }), 5002),
        ("ListObjects", json!({ "type": "doc", "relation": "viewer", "user": "user:anne" }), 2020),
        ("StreamedListObjects", json!({ "type": "doc", "relation": "viewer", "user": "user:anne" }), 2020),
        ("Read", json!({ "continuation_token": "Zm9v" }), 2007),
        ("Check", json!({}), 3),
        ("UpdateStore", json!({ "name": "other" }), 12),
    ];
    for (method, request, number) in rows {
        let answer = ours.call(method, request).await;
        assert!(matches!(&answer, Answer::Refused(found, _) if *found == number), "{method}: {answer}");
    }
}

#[tokio::test]
async fn reflection_and_health_know_the_service() {
    const SERVICE: &str = "openfga.v1.OpenFGAService";
    let directory = tempfile::tempdir().expect("a temporary directory");
    let address = ragward(directory.path()).await;
    let channel = Endpoint::from_shared(address).expect("an address").connect_lazy();
    // No model is loaded, so no retrieval would be answered, but the process is alive.
    for (service, expected) in [(SERVICE, ServingStatus::NotServing), ("liveness", ServingStatus::Serving)] {
        let health = HealthClient::new(channel.clone()).check(HealthCheckRequest { service: service.to_owned() }).await;
        assert_eq!(health.expect("known").into_inner().status(), expected, "{service}");
    }
    // A client that knows no file yet asks for the file of the service, and then for all files that it imports.
    let mut pending = vec![MessageRequest::FileContainingSymbol(SERVICE.to_owned())];
    let mut files = BTreeSet::new();
    while let Some(message) = pending.pop() {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(message) };
        let asked = tokio_stream::once(request);
        let answers = ServerReflectionClient::new(channel.clone()).server_reflection_info(asked).await;
        let answer = answers.expect("answered").into_inner().message().await.expect("answered").expect("an answer");
        let Some(MessageResponse::FileDescriptorResponse(found)) = answer.message_response else {
            panic!("{answer:?}");
        };
        for file in found.file_descriptor_proto {
            let file = openfga_client::prost_types::FileDescriptorProto::decode(file.as_slice()).expect("a descriptor");
            files.insert(file.name().to_owned());
            let unseen = file.dependency.into_iter().filter(|name| !files.contains(name));
            pending.extend(unseen.map(MessageRequest::FileByFilename));
        }
    }
    let expected = ["google/protobuf/struct.proto", "openfga/v1/authzmodel.proto", "openfga/v1/openfga_service.proto"];
    assert!(expected.iter().all(|name| files.contains(*name)), "{files:?}");
}

/// One Ragward is the authorizer of another, whose adapter for `OpenFGA` notices no difference.
#[tokio::test]
async fn ragward_is_an_openfga_server_to_its_own_adapter() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let address = ragward(directory.path()).await;
    let config = OpenFgaConfig::new(address, StoreSelector::Name("ragward".to_owned()));
    let store = OpenFgaStore::open(&config).await.expect("a store");
    store.write_model(crate::support::authorizer_suite::model()).await.expect("a model");
    store.write_tuples(&crate::support::authorizer_suite::tuples()).await.expect("tuples");
    crate::support::authorizer_suite::run(
        "Ragward as a server",
        &OpenFgaAuthorizer::new(&config).expect("an authorizer"),
    )
    .await;
}
