//! The audit log as a server writes it: it holds no secret, it misses no call, and no answer leaves without its record.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use ragward::audit::{AuditEntry, AuditKey, Event, Record, read_log};
use ragward::client::Client;
use ragward::proto::ingest::{Document, GetIngestStatusRequest, UpsertDocumentsRequest};
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{RecheckRequest, RetrieveRequest, RetrieveResponse, Vector};
use serde_json::Value;
use tonic::{Code, Request, Status};

use crate::support::documents::document;
use crate::support::running::{Running, config};
use crate::support::served::Served;

const MODEL: &str = "model: |\n  model\n    schema 1.1\n  type user\n  type note\n    relations\n      define can_read: [user]\n\
                     tuples:\n";

/// Gives each request a trace of its own, by which its record is found.
fn traced<T>(number: usize, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let header = format!("00-{:032x}-00f067aa0ba902b7-01", number + 1);
    request.metadata_mut().insert("traceparent", header.parse().unwrap());
    request
}

fn trace_id(number: usize) -> String {
    format!("{:032x}", number + 1)
}

fn retrieve(user: &str, query: &str) -> RetrieveRequest {
    RetrieveRequest {
        user: user.to_owned(),
        collection: "notes".to_owned(),
        query: Some(Query::Text(query.to_owned())),
        top_k: 10,
        ..RetrieveRequest::default()
    }
}

/// Returns the intact entries of the log of a data directory.
#[track_caller]
fn entries(data: &Path) -> Vec<AuditEntry> {
    let key = AuditKey::read(&data.join("audit.key")).unwrap();
    let mut entries = Vec::new();
    let report = read_log(&data.join("audit"), &key, |_, _, entry| entries.push(entry.clone())).unwrap();
    assert!(report.is_intact(), "{report:?}");
    entries
}

/// Returns the name of the RPC, without its service.
fn method(record: &Record) -> &str {
    record.call.rsplit('/').next().unwrap()
}

fn records(data: &Path) -> Vec<Record> {
    let record = |entry: AuditEntry| if let Event::Record(record) = entry.event { Some(*record) } else { None };
    entries(data).into_iter().filter_map(record).collect()
}

/// Prepares a data directory with a model and two notes, one of which Anne may see.
fn prepare(directory: &Path) -> String {
    let store = directory.join("store.fga.yaml");
    std::fs::write(&store, format!("{MODEL}- {{user: 'user:anne', relation: can_read, object: 'note:open'}}\n"))
        .unwrap();
    let data = directory.join("data").to_str().unwrap().to_owned();
    assert!(ragward(&["model", "load", store.to_str().unwrap(), "--data", &data]).status().unwrap().success());
    data
}

fn notes() -> Vec<Document> {
    vec![
        document("note:open", &["a note on leave", "another note on leave"]),
        document("note:shut", &["a hidden note on leave"]),
    ]
}

async fn upsert(client: &Client, documents: Vec<Document>) -> Result<(), Status> {
    let message = |document| UpsertDocumentsRequest { collection: "notes".to_owned(), document: Some(document) };
    let messages: Vec<UpsertDocumentsRequest> = documents.into_iter().map(message).collect();
    client.ingest().upsert_documents(tokio_stream::iter(messages)).await.map(drop)
}

fn ragward(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
    command.args(arguments).stdin(Stdio::null());
    command
}

#[track_caller]
fn audit(arguments: &[&str], data: &str) -> Output {
    ragward(&[&["audit"], arguments, &["--data", data]].concat()).output().unwrap()
}

fn serve(data: &str) -> Served {
    serve_with_fsync(data, "each_batch")
}

fn serve_with_fsync(data: &str, policy: &str) -> Served {
    let mut command = ragward(&["serve", "--data", data, "--listen", "127.0.0.1:0", "--insecure-identity"]);
    command.env("RAGWARD__AUDIT__FSYNC", policy);
    Served::start(command)
}

#[test]
fn the_schema_of_an_entry_is_the_one_that_is_published() {
    let published = include_str!("../../schema/audit-entry.schema.json");
    let made = ragward(&["audit", "schema"]).output().unwrap();
    assert_eq!(
        published,
        String::from_utf8(made.stdout).unwrap(),
        "run `ragward audit schema > schema/audit-entry.schema.json`"
    );
}

#[tokio::test]
async fn every_answer_and_refusal_leaves_one_record() {
    let directory = tempfile::tempdir().unwrap();
    let data = prepare(directory.path());
    let server = Running::start(&config(Path::new(&data))).await;
    upsert(&server.client, notes()).await.unwrap();
    let mut client = server.client.retrieval();
    let answer = client.retrieve(traced(0, retrieve("user:anne", "leave"))).await.unwrap().into_inner();
    let ids: Vec<String> = answer.chunks.iter().map(|chunk| chunk.id.clone()).collect();
    let recheck = RecheckRequest {
        user: "user:anne".to_owned(),
        collection: "notes".to_owned(),
        chunk_ids: vec!["note:shut#0".to_owned(), ids[0].clone()],
        ..RecheckRequest::default()
    };
    client.recheck(traced(1, recheck)).await.unwrap();
    client.retrieve(traced(2, retrieve("user:anne", "leave"))).await.unwrap();
    client.retrieve(traced(3, retrieve("user:*", "leave"))).await.unwrap_err();
    let gone = RetrieveRequest { collection: "gone".to_owned(), ..retrieve("user:anne", "other") };
    client.retrieve(traced(4, gone)).await.unwrap_err();
    let huge = Query::Vector(Vector { values: vec![1.0; 300_000] });
    client.retrieve(traced(5, RetrieveRequest { query: Some(huge), ..retrieve("user:anne", "") })).await.unwrap_err();
    let status = GetIngestStatusRequest { collection: "notes".to_owned(), document_ids: Vec::new() };
    server.client.ingest().get_ingest_status(traced(6, status)).await.unwrap();
    server.stop().await.unwrap();

    let records = records(Path::new(&data));
    let told: Vec<(&str, &str)> = records.iter().map(|record| (method(record), record.code.as_str())).collect();
    let expected = [
        ("UpsertDocuments", "OK"),
        ("Retrieve", "OK"),
        ("Recheck", "OK"),
        ("Retrieve", "OK"),
        ("Retrieve", "INVALID_ARGUMENT"),
        ("Retrieve", "NOT_FOUND"),
        ("Retrieve", "RESOURCE_EXHAUSTED"),
        ("GetIngestStatus", "OK"),
    ];
    assert_eq!(told, expected);
    let traces: Vec<String> = records[1..].iter().map(|record| record.trace_id.clone()).collect();
    assert_eq!(traces, (0..7).map(trace_id).collect::<Vec<String>>());

    let [upserted, first, rechecked, second, refused, missing, ..] = records.as_slice() else { panic!("{told:?}") };
    assert_eq!(upserted.released.as_ref().unwrap().documents, Some(2));
    assert_eq!(first.principal.as_ref().unwrap().subject.as_deref(), Some("user:anne"));
    assert_eq!(first.released.as_ref().unwrap().chunk_ids, ids);
    let decision = first.decision.as_ref().unwrap();
    assert_eq!((decision.plan.as_deref(), decision.rounds), (Some("visible_set_search"), Some(1)));
    assert_eq!((decision.completion.as_deref(), decision.staleness_ms), (Some("exhausted"), Some(0)));
    assert_eq!(decision.model_id.as_ref().map(String::len), Some(26));
    let request = first.request.as_ref().unwrap();
    assert_eq!((request.collection.as_str(), request.count, request.filtered), ("notes", Some(10), Some(false)));
    let digest = |record: &Record| record.request.clone().unwrap().query_digest.unwrap();
    assert_eq!(digest(first), digest(second));
    assert_ne!(digest(first), digest(missing));
    assert_eq!(rechecked.released.as_ref().unwrap().chunk_ids, ids[..1]);
    assert_eq!(rechecked.decision.as_ref().unwrap().withheld, Some(1));
    assert_eq!((&refused.principal, &refused.released), (&None, &None));
}

#[tokio::test]
async fn no_answer_lacks_its_record_after_a_kill() {
    const CALLERS: usize = 8;
    let directory = tempfile::tempdir().unwrap();
    let data = prepare(directory.path());
    let served = serve(&data);
    upsert(&served.client, notes()).await.unwrap();
    served.stop().await;
    let mut answered: BTreeSet<String> = BTreeSet::new();
    for (round, policy) in ["each_batch", "interval", "never", "each_batch"].into_iter().enumerate() {
        let mut served = serve_with_fsync(&data, policy);
        let callers = (0..CALLERS).map(|caller| {
            let mut client = served.client.retrieval();
            tokio::spawn(async move {
                let mut answered = Vec::new();
                for call in 0.. {
                    let number = (round * CALLERS + caller) * 1_000_000 + call;
                    match client.retrieve(traced(number, retrieve("user:anne", "leave"))).await {
                        Ok(_) => answered.push(trace_id(number)),
                        Err(_) => break,
                    }
                }
                answered
            })
        });
        let callers: Vec<_> = callers.collect();
        // The server is killed under load: after some answers, and after more of them in each round.
        let mut probe = served.client.retrieval();
        for _ in 0..=round * 20 {
            probe.retrieve(retrieve("user:anne", "leave")).await.unwrap();
        }
        served.process.kill().unwrap();
        served.process.wait().unwrap();
        for caller in callers {
            answered.extend(caller.await.unwrap());
        }
        let verified = audit(&["verify"], &data);
        let row = format!("round {round}, {policy}");
        assert!(verified.status.success(), "{row}: {}", String::from_utf8_lossy(&verified.stdout));
        let recorded: BTreeSet<String> = records(Path::new(&data)).into_iter().map(|record| record.trace_id).collect();
        let lacking: Vec<&String> = answered.difference(&recorded).collect();
        assert!(lacking.is_empty(), "{row}: of {} answers, these have no record: {lacking:?}", answered.len());
    }
    assert!(answered.len() > CALLERS, "{}", answered.len());
    let resumed = entries(Path::new(&data)).iter().filter(|e| matches!(e.event, Event::Resume { .. })).count();
    assert_eq!(resumed, 3, "each start after a kill says so");
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_answered() {
    let directory = tempfile::tempdir().unwrap();
    let data = prepare(directory.path());
    let mut config = config(Path::new(&data));
    for required in [true, false] {
        config.audit.required = required;
        let server = Running::start(&config).await;
        upsert(&server.client, notes()).await.unwrap();
        let moved = directory.path().join("moved");
        std::fs::rename(Path::new(&data).join("audit"), &moved).unwrap();
        let answer = server.client.retrieval().retrieve(retrieve("user:anne", "leave")).await;
        match answer {
            Ok(_) => assert!(!required, "required: {required}"),
            Err(status) => assert!(required && status.code() == Code::Unavailable, "required: {required}: {status:?}"),
        }
        std::fs::rename(&moved, Path::new(&data).join("audit")).unwrap();
        server.client.retrieval().retrieve(retrieve("user:anne", "leave")).await.unwrap();
        server.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_gives_no_answer_and_no_broken_log() {
    const IDS: usize = 100;
    let directory = tempfile::tempdir().unwrap();
    let data = prepare(directory.path());
    let served = serve(&data);
    let text = "leave";
    let id = |chunk: usize| format!("{chunk:0500}");
    let mut document = document("note:open", &[text; IDS]);
    for (number, chunk) in document.chunks.iter_mut().enumerate() {
        chunk.id = id(number);
    }
    upsert(&served.client, vec![document]).await.unwrap();
    served.stop().await;
    // No file may grow past 12 MiB, which the databases do not reach.
    let limited = format!(
        "trap '' XFSZ; ulimit -f 12288; exec '{}' serve --data '{data}' --listen 127.0.0.1:0 --insecure-identity",
        env!("CARGO_BIN_EXE_ragward")
    );
    let mut command = Command::new("bash");
    command.args(["-c", &limited]).stdin(Stdio::null());
    let mut served = Served::start(command);
    let recheck = RecheckRequest {
        user: "user:anne".to_owned(),
        collection: "notes".to_owned(),
        chunk_ids: (0..1_000).map(|number| id(number % IDS)).collect(),
        ..RecheckRequest::default()
    };
    let mut answers = 0;
    let refused = loop {
        match served.client.retrieval().recheck(recheck.clone()).await {
            Ok(_) => answers += 1,
            Err(status) => break status,
        }
        assert!(answers < 100, "the limit has no effect");
    };
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(answers > 10, "{answers}");
    // A small record still fits behind the last whole one.
    served.client.retrieval().retrieve(retrieve("user:anne", "nothing")).await.unwrap();
    served.process.kill().unwrap();
    served.process.wait().unwrap();
    let rechecks = records(Path::new(&data)).iter().filter(|record| method(record) == "Recheck").count();
    assert_eq!(rechecks, answers);
}

#[tokio::test]
async fn the_commands_show_what_was_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let data = prepare(directory.path());
    let served = serve(&data);
    upsert(&served.client, notes()).await.unwrap();
    for (number, user) in ["user:anne", "user:bob"].into_iter().enumerate() {
        let answer: RetrieveResponse =
            served.client.retrieval().retrieve(traced(number, retrieve(user, "leave"))).await.unwrap().into_inner();
        assert_eq!(answer.chunks.len(), 2 - 2 * number, "{user}");
    }
    // The log of a running server can be read.
    assert!(audit(&["verify"], &data).status.success());
    served.stop().await;
    let json = |arguments: &[&str]| -> Value {
        let output = audit(&[arguments, &["--output", "json"]].concat(), &data);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let verified = json(&["verify"]);
    assert_eq!((verified["intact"].as_bool(), verified["records"].as_u64()), (Some(true), Some(3)));
    let anchor = verified["anchor"].as_str().unwrap();
    assert!(json(&["verify", "--anchor", anchor])["intact"].as_bool().unwrap());
    let foreign = format!("2:{}", "0".repeat(64));
    assert_eq!(audit(&["verify", "--anchor", &foreign], &data).status.code(), Some(1));
    let today = chrono::DateTime::<chrono::Utc>::from(SystemTime::now() - Duration::from_hours(1)).to_rfc3339();
    let trace = trace_id(1);
    let rows: [(&[&str], usize); 7] = [
        (&[], 3),
        (&["--user", "user:bob"], 1),
        (&["--trace", &trace], 1),
        (&["--collection", "notes", "--limit", "2"], 2),
        (&["--collection", "other"], 0),
        (&["--since", &today], 3),
        (&["--since", "2999-01-01"], 0),
    ];
    for (arguments, expected) in rows {
        assert_eq!(json(&[&["show"], arguments].concat()).as_array().unwrap().len(), expected, "{arguments:?}");
    }
    let table = audit(&["show"], &data);
    assert!(String::from_utf8_lossy(&table.stdout).contains("user:bob"), "{table:?}");
    let csv = directory.path().join("log.csv");
    let exported = audit(&["export", "--format", "csv", "--to", csv.to_str().unwrap()], &data);
    assert!(exported.status.success(), "{exported:?}");
    assert_eq!(std::fs::read_to_string(&csv).unwrap().lines().count(), 4);
    let lines = audit(&["export"], &data);
    let exported: Vec<AuditEntry> =
        String::from_utf8(lines.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(exported, entries(Path::new(&data)));

    let segment = Path::new(&data).join("audit/audit-00000001.jsonl");
    let text = std::fs::read_to_string(&segment).unwrap();
    std::fs::write(&segment, text.replace("user:bob", "user:eve")).unwrap();
    let verified = audit(&["verify"], &data);
    assert_eq!(verified.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&verified.stdout).contains("audit-00000001.jsonl:4: edited"), "{verified:?}");
    for command in ["show", "export"] {
        assert_eq!(audit(&[command], &data).status.code(), Some(1), "{command}");
    }
    let start =
        ragward(&["serve", "--data", &data, "--listen", "127.0.0.1:0", "--insecure-identity"]).output().unwrap();
    assert_eq!(start.status.code(), Some(1), "{start:?}");
    assert!(String::from_utf8_lossy(&start.stderr).contains("ragward audit verify"), "{start:?}");
    assert_eq!(audit(&["verify"], directory.path().to_str().unwrap()).status.code(), Some(2));
}
