//! The program as a process: killed, stopped, started twice, given wrong input.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::support::documents::document;
use ragward::client::Client;
use ragward::proto::ingest::{Document, GetIngestStatusRequest, UpsertDocumentsRequest};

fn ragward(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A `ragward serve` that is killed with the test.
pub(crate) struct Served {
    process: Child,
    pub(crate) client: Client,
    /// The address, such as `http://127.0.0.1:50051`.
    pub(crate) address: String,
    /// The lines that it logged before it served.
    pub(crate) log: String,
}

impl Served {
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// Starts a server with a configuration file.
    pub(crate) fn start_configured(data: &Path, file: &Path) -> Self {
        Self::start_with(data, &["--config", file.to_str().unwrap()])
    }

    fn start_with(data: &Path, more: &[&str]) -> Self {
        let data = data.to_str().unwrap();
        let mut command = ragward(&["serve", "--data", data, "--listen", "127.0.0.1:0", "--insecure-identity"]);
        command.args(more);
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut read = String::new();
        let address = loop {
            assert_ne!(log.read_line(&mut read).unwrap(), 0, "the server ended:\n{read}");
            if let Some((_, address)) = read.split_once("serving address=") {
                break address.trim().to_owned();
            }
        };
        // Reading goes on, so that the server never waits for a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let address = format!("http://{address}");
        Self { process, client: Client::at(&address).unwrap(), address, log: read }
    }

    /// Returns the id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills the process, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Returns the number of chunks of each document that is there.
    async fn chunks(&self, document_ids: Vec<String>) -> BTreeMap<String, u32> {
        let asked = GetIngestStatusRequest { collection: "notes".to_owned(), document_ids };
        let status = self.client.ingest().get_ingest_status(asked).await.unwrap().into_inner();
        status.found.into_iter().map(|found| (found.document_id, found.chunks)).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // The process may have ended already, which is what some tests are about.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

async fn upsert(client: Client, documents: Vec<Document>) -> Result<(), tonic::Status> {
    let message = |document| UpsertDocumentsRequest { collection: "notes".to_owned(), document: Some(document) };
    let messages: Vec<UpsertDocumentsRequest> = documents.into_iter().map(message).collect();
    client.ingest().upsert_documents(tokio_stream::iter(messages)).await.map(drop)
}

/// Returns a version of a document. The number of its chunks tells which one it is.
fn version(id: usize, version: u32) -> Document {
    let texts: Vec<String> =
        (0..10 + version).map(|chunk| format!("note {id} in version {version}, part {chunk}")).collect();
    document(&format!("note:{id}"), &texts.iter().map(String::as_str).collect::<Vec<&str>>())
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    const DOCUMENTS: usize = 8;
    let data = tempfile::tempdir().unwrap();
    let ids: Vec<String> = (0..DOCUMENTS).map(|id| format!("note:{id}")).collect();
    let mut acknowledged: BTreeMap<String, u32> = BTreeMap::new();
    let mut next_version = 0u32;
    for round in 1..6u32 {
        let mut served = Served::start(data.path());
        // The process is killed while a call is under way; which call that is differs from round to round.
        let mut in_flight = None;
        for call in 0..=round * 3 {
            next_version += 1;
            let documents: Vec<Document> = (0..DOCUMENTS).map(|id| version(id, next_version)).collect();
            if call < round * 3 {
                upsert(served.client.clone(), documents).await.unwrap();
                acknowledged = ids.iter().map(|id| (id.clone(), 10 + next_version)).collect();
            } else {
                let upserting = upsert(served.client.clone(), documents);
                tokio::pin!(upserting);
                // One poll sends the request.
                let early = futures::poll!(&mut upserting);
                assert!(early.is_pending(), "round {round}");
                tokio::task::yield_now().await;
                served.process.kill().unwrap();
                in_flight = Some(10 + next_version);
                drop(upserting.await);
            }
        }
        served.process.wait().unwrap();

        let again = Served::start(data.path());
        let found = again.chunks(ids.clone()).await;
        for id in &ids {
            let chunks = found.get(id).copied();
            let known = acknowledged.get(id).copied();
            assert!(
                chunks.is_some() && (chunks == known || chunks == in_flight),
                "round {round}, {id}: {chunks:?}, {known:?}, {in_flight:?}"
            );
        }
        acknowledged = found;
    }
}

#[tokio::test]
async fn a_stopped_server_ends_well_and_gives_the_data_back() {
    let data = tempfile::tempdir().unwrap();
    let mut served = Served::start(data.path());
    upsert(served.client.clone(), vec![version(0, 1)]).await.unwrap();
    let second =
        ragward(&["serve", "--data", data.path().to_str().unwrap(), "--listen", "127.0.0.1:0", "--insecure-identity"])
            .output()
            .unwrap();
    refused("a second server", &second, 2, "is in use by another process");
    let terminate = Command::new("kill").args(["-TERM", &served.process.id().to_string()]).status().unwrap();
    assert!(terminate.success());
    assert!(served.process.wait().unwrap().success());
    let again = Served::start(data.path());
    assert_eq!(again.chunks(vec!["note:0".to_owned()]).await.len(), 1);
}

#[track_caller]
fn refused(name: &str, output: &Output, code: i32, expected: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{name}: {text}");
    assert!(text.contains(expected), "{name}: {text}");
}

#[test]
fn wrong_input_is_told_with_an_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(directory.path().join(name), bytes).unwrap();
        path(name)
    };
    let data = path("data");
    let broken_model =
        write("broken.fga", b"model\n  schema 1.1\ntype user\ntype doc\n  relations\n    define reader: [usr]\n");
    let truncated =
        write("catalog.jsonl", b"{\"id\": \"document:a\", \"path\": \"a.md\"}\n{\"id\": \"document:b\", \"pa");
    write("a.md", b"# A\n\nSome text.\n");
    let not_utf8 =
        write("chunks.jsonl", b"{\"id\":\"a\",\"document_id\":\"a\",\"guard\":\"document:a\",\"text\":\"\xff\"}\n");
    let config = write("ragward.toml", b"[server]\nlistn = '127.0.0.1:0'\n");
    let other_lengths = write(
        "vectors.jsonl",
        b"{\"id\":\"a\",\"document_id\":\"a\",\"guard\":\"document:a\",\"vector\":[1,0]}\n\
          {\"id\":\"b\",\"document_id\":\"b\",\"guard\":\"document:a\",\"vector\":[1,0,0]}\n",
    );
    let no_vector = write("vector.json", b"{\"values\": [1]}");
    let (none, gone) = (path("none"), path("gone.json"));
    std::fs::create_dir(&data).unwrap();
    let damaged = path("damaged");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(directory.path().join("damaged").join("chunks.redb"), b"").unwrap();
    let folder = directory.path().to_str().unwrap().to_owned();

    let handbook = path("handbook");
    let loaded = ragward(&["model", "load", "schema/handbook/store.fga.yaml", "--data", &handbook]).output().unwrap();
    assert!(loaded.status.success(), "{loaded:?}");

    let rows: Vec<(Vec<&str>, i32, &str)> = vec![
        (vec!["serve", "--data", &data], 2, "--insecure-identity"),
        (vec!["serve", "--data", &damaged, "--insecure-identity"], 1, "is damaged"),
        (vec!["model", "validate", &broken_model], 1, "line 6, column 21"),
        (vec!["model", "load", &broken_model, "--data", &data], 1, "usr"),
        (
            vec!["ingest", &folder, "--strict", "--catalog", &truncated, "--collection", "c", "--data", &data],
            2,
            "catalog.jsonl",
        ),
        (vec!["ingest", &not_utf8, "--collection", "c", "--data", &data], 2, "chunks.jsonl"),
        (vec!["config", "validate", "--config", &config], 2, "did you mean `server.listen`?"),
        (vec!["retrieve", "--user", "user:*", "--collection", "c", "--data", &data, "leave"], 2, "wildcard"),
        (vec!["retrieve", "--user", "user:anne", "--collection", "gone", "--data", &data, "leave"], 2, "`gone`"),
        (vec!["retrieve", "--user", "user:anne", "--collection", "c", "--server", "http://127.0.0.1:1", "x"], 3, ""),
        (vec!["healthcheck", "--server", "http://127.0.0.1:1"], 3, "127.0.0.1:1"),
        (vec!["check", "user:anne", "can_read", "document:a", "--data", &data], 2, "ragward model load"),
        (vec!["check", "user:anne", "can_raed", "document:a", "--data", &handbook], 2, "did you mean `can_read`?"),
        (vec!["check", "user:anne", "can_read", "documnt:a", "--data", &handbook], 2, "has no type `documnt`"),
        (vec!["check", "usr:anne", "can_read", "document:a", "--data", &handbook], 2, "has no type `usr`"),
        (vec!["check", "user:anne", "can_read", "folder:hr", "--data", &handbook], 2, "no relation `can_read`"),
        (vec!["check", "user:anne", "can_read", "document:none", "--data", &handbook], 1, ""),
        (vec!["frobnicate"], 2, "unrecognized"),
        (vec!["check", "user:anne", "can_read", "document:a", "--data", &none], 2, "there is no data directory at"),
        (
            vec!["explain", "--user", "user:anne", "--object", "document:a", "--data", &none],
            2,
            "there is no data directory",
        ),
        (
            vec!["recheck", "--user", "user:anne", "--collection", "c", "--data", &none, "x"],
            2,
            "there is no data directory",
        ),
        (
            vec!["retrieve", "--user", "user:anne", "--collection", "c", "--data", &none, "x"],
            2,
            "there is no data directory",
        ),
        (vec!["model", "show", "--data", &none], 2, "there is no data directory at"),
        (
            vec!["ingest", &other_lengths, "--strict", "--collection", "v", "--data", &data],
            2,
            "line 2: the vector has 3 numbers",
        ),
        (
            vec!["retrieve", "--user", "user:a", "--collection", "c", "--data", &data, "--vector", &no_vector],
            2,
            "one JSON array",
        ),
        (
            vec!["retrieve", "--user", "user:a", "--collection", "c", "--data", &data, "--vector", &gone],
            2,
            "cannot read it",
        ),
        (
            vec!["retrieve", "--user", "user:a", "--collection", "c", "--data", &data, "--where", "x", "q"],
            2,
            "`--where x`",
        ),
        (vec!["test", &broken_model], 2, "is a model; tests are in store files"),
    ];
    for (arguments, code, expected) in rows {
        let output = ragward(&arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
    assert!(!std::path::Path::new(&none).exists(), "a command that only reads made a data directory");
}

#[test]
fn a_variable_that_is_no_setting_is_told_of() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().join("none").to_str().unwrap().to_owned();
    let flags = ["--insecure-identity", "--data", &data];
    let run = |command: &[&str], name: &str| {
        let output = ragward(&[command, &flags].concat()).env(name, "127.0.0.1:1").output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let refused = run(&["config", "validate"], "RAGWARD_SERVER__LISTEN");
    assert_eq!(refused.0, Some(2), "{refused:?}");
    assert!(refused.1.contains("`RAGWARD_SERVER__LISTEN` sets nothing; its name must be `RAGWARD__SERVER__LISTEN`"));
    assert_eq!(run(&["serve"], "RAGWARD_SERVER__LISTEN"), refused);
    let (code, told) = run(&["config", "validate"], "RAGWARD_SERVER__LISTENER");
    assert!(
        code == Some(0) && told.contains("RAGWARD_SERVER__LISTENER") && told.contains("RAGWARD__SERVER__LISTEN\""),
        "{told}"
    );
}

#[test]
fn a_store_file_that_does_not_fit_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let data = path("data");
    let model = "model: |\n  model\n    schema 1.1\n  type user\n  type doc\n    relations\n      define blocked: [user]\n      \
                 define viewer: [user]\n      define can_read: viewer but not blocked\n";
    let tuple = |user: &str, relation: &str| format!("- {{user: '{user}', relation: {relation}, object: 'doc:1'}}\n");
    let store = |name: &str, tuples: &[String]| {
        std::fs::write(directory.path().join(name), format!("{model}tuples:\n{}", tuples.concat())).unwrap();
        path(name)
    };
    let viewer = tuple("user:anne", "viewer");
    let misfit = store("misfit.fga.yaml", &[viewer.clone(), tuple("user:anne", "blocked"), tuple("doc:2", "viewer")]);
    let repeated = store("repeated.fga.yaml", &[viewer.clone(), tuple("user:anne", "blocked"), viewer.clone()]);
    let good = store("good.fga.yaml", &[viewer, tuple("user:bob", "viewer"), tuple("user:anne", "blocked")]);
    for bad in [&misfit, &repeated] {
        for arguments in [vec!["model", "validate", bad], vec!["model", "load", bad, "--data", &data]] {
            let output = ragward(&arguments).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        }
    }
    let check = |user: &str| ragward(&["check", user, "can_read", "doc:1", "--data", &data]).output().unwrap();
    refused("a check without a model", &check("user:anne"), 2, "ragward model load");
    assert!(ragward(&["model", "load", &good, "--data", &data]).status().unwrap().success());
    assert_eq!((check("user:bob").status.code(), check("user:anne").status.code()), (Some(0), Some(1)));
    let shown = ragward(&["model", "show", "--data", &data]).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("define can_read: viewer but not blocked"), "{shown:?}");
}

#[tokio::test]
async fn a_consistency_token_goes_round() {
    let data = tempfile::tempdir().unwrap();
    let load = ["model", "load", "schema/handbook/store.fga.yaml", "--data", data.path().to_str().unwrap()];
    assert!(ragward(&load).current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    let served = Served::start(data.path());
    let address = ["--server", &served.address];
    let run = |arguments: &[&str]| {
        ragward(&[arguments, &address].concat()).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap()
    };
    let token = |arguments: &[&str]| {
        let output = run(&[arguments, &["--output", "json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        told["consistency_token"].as_str().unwrap().to_owned()
    };
    let ingest = ["ingest", "schema/handbook", "--collection", "handbook"];
    let retrieve = ["retrieve", "--user", "user:anne", "--collection", "handbook", "parental leave"];
    let recheck = ["recheck", "--user", "user:anne", "--collection", "handbook", "document:on-call#0"];
    let fetch = ["fetch", "--user", "user:anne", "handbook", "document:on-call#0"];
    for given_by in [&ingest[..], &["healthcheck"], &retrieve] {
        let token = token(given_by);
        let shown = String::from_utf8(run(given_by).stdout).unwrap();
        assert_eq!(shown.contains("consistency token: "), given_by != &retrieve[..], "{given_by:?}: {shown}");
        for asked in [&retrieve[..], &recheck, &fetch] {
            // The server refuses a token with any other consistency, so a success shows that the command sent the right
            // one.
            let row = format!("{given_by:?}, {asked:?}");
            let output = run(&[asked, &["--consistency-token", &token]].concat());
            assert!(output.status.success(), "{row}: {output:?}");
            refused(&row, &run(&[asked, &["--consistency-token", "x"]].concat()), 2, "consistency_token");
            let both = ["--consistency-token", &token, "--higher-consistency"];
            refused(&row, &run(&[asked, &both].concat()), 2, "cannot be used with");
            assert!(run(&[asked, &["--higher-consistency"]].concat()).status.success(), "{row}");
        }
    }
}
