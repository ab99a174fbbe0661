//! The command line shows a server an access token.

use std::path::Path;
use std::process::{Output, Stdio};

use ragward::proto::ingest::{GetIngestStatusRequest, UpsertDocumentsRequest};
use serde_json::Value;
use tokio::process::Command;

use crate::identity::world::{RETRIEVE, World, identity, start, text_value};
use crate::support::documents::document;
use crate::support::issuer::{SigningKey, TestIssuer};

/// Runs a command as a user would, with or without a token in the environment.
async fn ragward(arguments: &[&str], token: Option<&str>) -> Output {
    ragward_with(arguments, token.map(|token| ("RAGWARD_TOKEN", token)).as_slice()).await
}

/// Runs a command with these variables.
async fn ragward_with(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
    for name in ["RAGWARD_TOKEN", "RAGWARD_SERVER", "RAGWARD_CA_FILE"] {
        command.env_remove(name);
    }
    command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null());
    command.output().await.unwrap()
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_command_asks_as_the_subject_of_its_token() {
    let key = SigningKey::es256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path(), identity(&issuer)).await;
    let files = tempfile::tempdir().unwrap();
    let token = |subject: &str, scope: &str| key.sign(&issuer.claims(subject, scope));
    let anne = token("anne", RETRIEVE);
    let file = write(files.path(), "token", &format!("{anne}\n"));
    let empty = write(files.path(), "empty", "\n");

    let server = format!("http://{}", running.address);
    let retrieve = ["retrieve", "--collection", "handbook", "leave", "--output", "json", "--server", &server];
    let recheck = ["recheck", "--collection", "handbook", "document:roadmap#0", "--server", &server];
    let seen = |output: &Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let chunks = answer["chunks"].as_array().unwrap().iter();
        let mut ids: Vec<String> = chunks.map(|chunk| chunk["id"].as_str().unwrap().to_owned()).collect();
        ids.sort_unstable();
        ids
    };
    let of_anne = ["document:roadmap#0", "document:roadmap#1", "document:welcome#0", "document:welcome#1"];
    let by_file = ragward(&[&retrieve[..], &["--token-file", &file]].concat(), None).await;
    assert_eq!(seen(&by_file)[..4], of_anne);
    let by_variable = ragward(&[&retrieve[..], &["--user", "user:anne"]].concat(), Some(&anne)).await;
    assert_eq!(seen(&by_variable), seen(&by_file));
    // The option given last names the file.
    let bob = token("bob", RETRIEVE);
    let both = ragward(&[&retrieve[..], &["--token-file", &file]].concat(), Some(&bob)).await;
    assert_eq!(seen(&both), seen(&by_file));
    assert!(ragward(&recheck, Some(&anne)).await.status.success());
    assert_eq!(ragward(&recheck, Some(&bob)).await.status.code(), Some(1));
    let explain = ["explain", "--object", "document:roadmap", "--server", &server];
    for (subject, code) in [("anne", 0), ("bob", 1)] {
        let output = ragward(&explain, Some(&token(subject, "ragward:explain"))).await;
        assert_eq!(output.status.code(), Some(code), "{subject}: {}", String::from_utf8_lossy(&output.stderr));
    }

    let chunk = r#"{"id":"n#0","document_id":"n","guard":"document:roadmap","text":"A note about leave"}"#;
    let chunks = write(files.path(), "chunks.jsonl", chunk);
    let ingest = ["ingest", &chunks, "--collection", "handbook", "--server", &server];
    let may_write = token("anne", "ragward:ingest");
    assert!(ragward(&ingest, Some(&may_write)).await.status.success());

    let refused: [(&[&str], Option<&str>, &str); 8] = [
        (&retrieve, None, "give one with `--token-file` or `RAGWARD_TOKEN`"),
        (&retrieve, Some("nonsense"), "needs a valid access token"),
        (&retrieve, Some(""), "`RAGWARD_TOKEN` holds no access token"),
        (&[&retrieve[..], &["--token-file", &empty]].concat(), Some(&anne), "holds no access token"),
        (&[&retrieve[..], &["--token-file", "/nowhere/token"]].concat(), Some(&anne), "/nowhere/token"),
        (&[&retrieve[..], &["--user", "user:bob"]].concat(), Some(&anne), "does not let its bearer ask for this user"),
        (&ingest, Some(&anne), "not meant for this call"),
        (
            &["retrieve", "--collection", "handbook", "leave", "--server", "http://rag.example:8980"],
            Some(&anne),
            "is not sent to `http://rag.example:8980` without TLS",
        ),
    ];
    for (arguments, token, expected) in refused {
        let output = ragward(arguments, token).await;
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(expected) && !text.contains(&anne), "{arguments:?}: {text}");
    }
}

type CommandRow<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, &'a str)], i32, &'a str);

#[tokio::test]
async fn a_command_calls_the_server_that_its_environment_names() {
    let key = SigningKey::es256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path(), identity(&issuer)).await;
    let server = format!("http://{}", running.address);
    let anne = key.sign(&issuer.claims("anne", RETRIEVE));
    let (here, nowhere) = (("RAGWARD_SERVER", server.as_str()), ("RAGWARD_SERVER", "http://127.0.0.1:1"));
    let (token, no_file) = (("RAGWARD_TOKEN", anne.as_str()), ("RAGWARD_CA_FILE", "/nowhere/ca.pem"));
    let retrieve = ["retrieve", "--collection", "handbook", "leave"];
    let rows: [CommandRow<'_>; 9] = [
        ("the variable", &retrieve, &[here, token], 0, "document:roadmap#0"),
        (
            "a flag before it",
            &[&retrieve[..], &["--server", &server]].concat(),
            &[nowhere, token],
            0,
            "document:roadmap#0",
        ),
        ("certificates without TLS", &retrieve, &[here, token, no_file], 0, "document:roadmap#0"),
        (
            "a directory before it",
            &[&retrieve[..], &["--user", "user:anne", "--data", "/nowhere/data"]].concat(),
            &[here],
            2,
            "there is no data directory at `/nowhere/data`",
        ),
        ("health", &["healthcheck", "--live"], &[here], 0, "serving"),
        ("health elsewhere", &["healthcheck", "--live"], &[nowhere], 3, "http://127.0.0.1:1"),
        (
            "certificates that are not there",
            &retrieve,
            &[("RAGWARD_SERVER", "https://localhost:1"), token, no_file],
            2,
            "cannot read the certificates in `/nowhere/ca.pem`",
        ),
        (
            "certificates without a server",
            &[&retrieve[..], &["--ca-file", "/nowhere/ca.pem"]].concat(),
            &[token],
            2,
            "`--ca-file` is of use only with a server",
        ),
        (
            "a token without a server",
            &[&retrieve[..], &["--token-file", "/nowhere/token"]].concat(),
            &[],
            2,
            "`--token-file` is of use only with a server",
        ),
    ];
    for (name, arguments, variables, exit, expected) in rows {
        let output = ragward_with(arguments, variables).await;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(output.status.code(), Some(exit), "{name}: {text}");
        assert!(text.contains(expected), "{name}: {text}");
    }
}

/// World B holds documents of the same source that Anne may not write. What her run removes and prints is the same.
#[tokio::test]
async fn pruning_neither_sees_nor_removes_what_one_may_not_write() {
    let hidden: Vec<String> = (0..20).map(|number| format!("h{number}.md")).collect();
    let mut outcomes = Vec::new();
    for holds_hidden in [false, true] {
        let world = World::start(|_| {}).await;
        let local = world.running.app.in_process().unwrap();
        if holds_hidden {
            let messages: Vec<UpsertDocumentsRequest> = hidden
                .iter()
                .map(|id| {
                    let mut document = document(id, &["hidden"]);
                    document.chunks[0].guard = "document:salaries".to_owned();
                    document.chunks[0].metadata.insert("ingest_source".to_owned(), text_value("wiki"));
                    UpsertDocumentsRequest { collection: "handbook".to_owned(), document: Some(document) }
                })
                .collect();
            local.client().ingest().upsert_documents(tokio_stream::iter(messages)).await.unwrap();
        }
        let files = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..6).map(|number| format!("w{number}.md")).collect();
        for name in &names {
            write(files.path(), name, "A page.");
        }
        let (server, folder) = (format!("http://{}", world.running.address), files.path().to_str().unwrap().to_owned());
        let ingest = ["ingest", &folder, "--collection", "handbook", "--guard", "document:roadmap", "--source", "wiki"];
        let prune = [&ingest[..], &["--prune", "--server", &server, "--output", "json"]].concat();
        let anne = world.token("anne", "ragward:ingest", &[]);
        let mut outcome = Vec::new();
        // Nothing is gone, then one of six, and then all that are left but one.
        for gone in [0..0, 0..1, 1..5] {
            for name in names.get(gone).unwrap() {
                std::fs::remove_file(files.path().join(name)).unwrap();
            }
            let run = ragward(&prune, Some(&anne)).await;
            let mut report: Value = serde_json::from_slice(&run.stdout).unwrap();
            report["consistency_token"] = Value::Null;
            outcome.push((run.status.code(), report, String::from_utf8(run.stderr).unwrap()));
        }
        let codes: Vec<Option<i32>> = outcome.iter().map(|(code, ..)| *code).collect();
        assert_eq!(codes, [Some(0), Some(0), Some(1)], "{outcome:?}");
        let asked = GetIngestStatusRequest { collection: "handbook".to_owned(), document_ids: hidden.clone() };
        let kept = local.client().ingest().get_ingest_status(asked).await.unwrap().into_inner().found;
        assert_eq!(kept.len(), if holds_hidden { 20 } else { 0 });
        outcomes.push(outcome);
    }
    assert_eq!(outcomes[0], outcomes[1]);
}
