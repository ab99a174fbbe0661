//! Documents that are put, listed, deleted and pruned, over HTTP and from the command line.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::running::{Running, config};

/// Calls a route, and returns the status and the answer.
async fn call(running: &Running, method: &str, path: &str, body: &str) -> (String, Value) {
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", running.address);
    let with_body = format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let rest = if body.is_empty() { "\r\n".to_owned() } else { with_body };
    let mut connection = TcpStream::connect(running.address).await.unwrap();
    connection.write_all(format!("{head}{rest}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().to_owned();
    let json = body.find('{').zip(body.rfind('}')).and_then(|(begin, end)| body.get(begin..=end)).unwrap_or_default();
    (status, serde_json::from_str(json).unwrap_or_else(|_| panic!("{method} {path}: {answer}")))
}

#[tokio::test]
async fn a_document_is_put_listed_and_deleted_over_http() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(&config(data.path())).await;
    let text = json!({
        "guard": "document:leave",
        "text": "# Leave\n\nAsk early.",
        "metadata": { "area": { "stringValue": "people" } },
    });
    let chunks =
        json!({ "guard": "document:pay", "title": "Pay", "chunks": [{ "text": "Monthly." }, { "text": "Net." }] });
    let both = json!({ "guard": "document:pay", "text": "a", "chunks": [{ "text": "b" }] });
    let rows = [
        ("a text", "leave", &text, "200", Some(1)),
        ("chunks, under an id with a slash", "hr%2Fpay", &chunks, "200", Some(2)),
        ("both", "x", &both, "400", None),
        ("no content", "x", &json!({ "guard": "document:x" }), "400", None),
        ("no guard", "x", &json!({ "text": "a" }), "400", None),
    ];
    for (row, id, body, status, chunks) in rows {
        let path = format!("/v1/collections/notes/documents/{id}");
        let (found, answer) = call(&running, "PUT", &path, &body.to_string()).await;
        assert_eq!((found.as_str(), answer["chunks"].as_u64()), (status, chunks), "{row}: {answer}");
        let has_token = answer["consistencyToken"].as_str().is_some_and(|token| !token.is_empty());
        assert_eq!(has_token, status == "200", "{row}: {answer}");
    }
    let listed = |document_id: &str, title: &str, chunks: u32| json!({ "documentId": document_id, "title": title, "chunks": chunks, "source": "" });
    let (status, first) = call(&running, "GET", "/v1/collections/notes/documents?pageSize=1", "").await;
    assert_eq!((status.as_str(), &first["documents"]), ("200", &json!([listed("hr/pay", "Pay", 2)])));
    let next = format!("/v1/collections/notes/documents?pageToken={}", first["nextPageToken"].as_str().unwrap());
    let (status, second) = call(&running, "GET", &next, "").await;
    assert_eq!((status.as_str(), &second["documents"]), ("200", &json!([listed("leave", "Leave", 1)])));
    assert_eq!(second["nextPageToken"], "");
    let (status, collections) = call(&running, "GET", "/v1/collections", "").await;
    assert_eq!(status, "200");
    assert_eq!(collections["collections"][0]["name"], "notes", "{collections}");
    for deleted in ["1", "0"] {
        let (status, answer) = call(&running, "DELETE", "/v1/collections/notes/documents/hr%2Fpay", "").await;
        assert_eq!((status.as_str(), &answer["documents"]), ("200", &json!(deleted)), "{answer}");
    }
    let (status, unknown) = call(&running, "GET", "/v1/collections/none/documents", "").await;
    assert_eq!(status, "404", "{unknown}");
}

fn ragward(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ragward")).args(arguments).output().unwrap()
}

#[track_caller]
fn json_of(arguments: &[&str]) -> Value {
    let output = ragward(&[arguments, &["--output", "json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Two sources of one collection, in a data directory.
struct Sources {
    directory: tempfile::TempDir,
}

impl Sources {
    /// Ingests ten files of a source `wiki` and one of a source `blog`.
    fn new() -> Self {
        let sources = Self { directory: tempfile::tempdir().unwrap() };
        for folder in ["wiki", "blog"] {
            fs::create_dir(sources.path(folder)).unwrap();
        }
        for number in 0..10 {
            fs::write(sources.path(&format!("wiki/w{number}.md")), "A page.").unwrap();
        }
        fs::write(sources.path("blog/b.md"), "A post.").unwrap();
        for source in ["wiki", "blog"] {
            let ingested = sources.ingest(source, &[]);
            assert!(ingested.status.success(), "{ingested:?}");
        }
        sources
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Ingests the folder of a source.
    fn ingest(&self, source: &str, flags: &[&str]) -> Output {
        let (folder, data) = (self.path(source), self.path("data"));
        let guard = format!("folder:{source}");
        let fixed = ["ingest", &folder, "--collection", "c", "--guard", &guard, "--data", &data, "--source", source];
        ragward(&[&fixed[..], flags, &["--output", "json"]].concat())
    }

    /// Returns the ids of the documents that are stored.
    fn stored(&self) -> BTreeSet<String> {
        let listed = json_of(&["documents", "list", "--collection", "c", "--data", &self.path("data")]);
        let documents = listed["documents"].as_array().unwrap();
        documents.iter().map(|document| document["document_id"].as_str().unwrap().to_owned()).collect()
    }
}

/// Each row prepares a folder. Then a run prunes it, and the row says how many documents that removes.
#[test]
fn only_what_is_known_to_be_gone_is_pruned() {
    type Prepare = fn(&Sources);
    let remove_two: Prepare = |sources| (0..2).for_each(|number| sources.remove(&format!("wiki/w{number}.md")));
    let remove_three: Prepare = |sources| (0..3).for_each(|number| sources.remove(&format!("wiki/w{number}.md")));
    // `w9.md` alone came from the folder that is empty afterwards.
    let empty_folder: Prepare = |sources| {
        fs::create_dir(sources.path("wiki/wmount")).unwrap();
        fs::rename(sources.path("wiki/w9.md"), sources.path("wiki/wmount/w9.md")).unwrap();
        let moved = sources.ingest("wiki", &["--prune"]);
        assert!(moved.status.success(), "{moved:?}");
        sources.remove("wiki/wmount/w9.md");
    };
    let unused_folder: Prepare = |sources| {
        fs::create_dir_all(sources.path("wiki/unused/deeper")).unwrap();
        sources.remove("wiki/w0.md");
    };
    let folder_is_gone: Prepare = |sources| {
        fs::create_dir(sources.path("wiki/wmount")).unwrap();
        fs::rename(sources.path("wiki/w9.md"), sources.path("wiki/wmount/w9.md")).unwrap();
        let moved = sources.ingest("wiki", &["--prune"]);
        assert!(moved.status.success(), "{moved:?}");
        fs::remove_dir_all(sources.path("wiki/wmount")).unwrap();
    };
    let rows: [(&str, Prepare, &[&str], usize, i32); 14] = [
        ("a folder is empty now", empty_folder, &["--prune"], 0, 1),
        ("a folder is empty now, and that is right", empty_folder, &["--prune", "--prune-empty-folders"], 1, 0),
        ("another folder is empty", unused_folder, &["--prune"], 1, 0),
        ("a folder is gone", folder_is_gone, &["--prune"], 1, 0),
        ("nothing is gone", |_| {}, &["--prune"], 0, 0),
        ("two of ten are gone", remove_two, &["--prune"], 2, 0),
        ("two are gone, and nobody prunes", remove_two, &[], 0, 0),
        ("two are gone, a dry run", remove_two, &["--prune", "--dry-run"], 0, 0),
        ("three of ten are gone", remove_three, &["--prune"], 0, 1),
        ("three of ten, if that may be", remove_three, &["--prune", "--prune-max", "30"], 3, 0),
        (
            "a Latin-1 file",
            |sources| {
                sources.remove("wiki/w0.md");
                fs::write(sources.path("wiki/w1.md"), b"caf\xe9").unwrap();
            },
            &["--prune", "--prune-max", "100"],
            1,
            0,
        ),
        (
            "a file that is no text",
            |sources| {
                sources.remove("wiki/w0.md");
                fs::write(sources.path("wiki/w1.md"), b"\x00\x01\x02").unwrap();
            },
            &["--prune", "--prune-max", "100"],
            0,
            1,
        ),
        (
            "a dangling link",
            |sources| {
                sources.remove("wiki/w0.md");
                symlink("gone.md", sources.path("wiki/w0.md")).unwrap();
            },
            &["--prune", "--prune-max", "100"],
            0,
            1,
        ),
        (
            "an empty mount",
            |sources| {
                fs::remove_dir_all(sources.path("wiki")).unwrap();
                fs::create_dir(sources.path("wiki")).unwrap();
            },
            &["--prune", "--prune-max", "100"],
            0,
            1,
        ),
    ];
    for (row, prepare, flags, removed, code) in rows {
        let sources = Sources::new();
        let before = sources.stored();
        assert_eq!(before.len(), 11, "{row}");
        prepare(&sources);
        let run = sources.ingest("wiki", flags);
        assert_eq!(run.status.code(), Some(code), "{row}: {run:?}");
        let after = sources.stored();
        assert_eq!(before.len() - after.len(), removed, "{row}: {run:?}");
        assert!(after.contains("b.md"), "{row}: another source keeps its documents");
        // What is removed is named before that.
        let named = String::from_utf8_lossy(&run.stderr).matches("remove: w").count();
        let is_dry = flags.contains(&"--dry-run");
        assert_eq!(named, if is_dry { 2 } else { removed }, "{row}: {run:?}");
    }
}

#[test]
fn documents_are_listed_and_deleted_from_the_command_line() {
    let sources = Sources::new();
    let data = sources.path("data");
    let list = ["documents", "list", "--collection", "c", "--data", &data];
    let listed = json_of(&[&list[..], &["--limit", "2"]].concat());
    assert_eq!((listed["documents"].as_array().unwrap().len(), &listed["more"]), (2, &json!(true)));
    let blog = json!({ "document_id": "b.md", "title": "b", "chunks": 1, "source": "blog" });
    assert_eq!(listed["documents"][0], blog);
    let delete = ["documents", "delete", "--collection", "c", "--data", &data, "b.md", "never there"];
    assert_eq!(json_of(&delete)["deleted"], 1);
    assert!(!sources.stored().contains("b.md"));
    let collections = json_of(&["collections", "--data", &data]);
    let expected = json!([{ "name": "c", "documents": 10, "chunks": 10, "dimension": 0 }]);
    assert_eq!(collections, expected);
    let unlabelled = ragward(&["ingest", &sources.path("wiki"), "--collection", "c", "--prune", "--data", &data]);
    assert_eq!(unlabelled.status.code(), Some(2), "{unlabelled:?}");
    let nowhere = sources.path("nowhere");
    let listed = ragward(&["documents", "list", "--collection", "c", "--data", &nowhere]);
    assert_eq!((listed.status.code(), Path::new(&nowhere).exists()), (Some(2), false), "{listed:?}");
}
