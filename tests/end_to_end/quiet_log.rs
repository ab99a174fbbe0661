//! The log of a server holds neither queries nor stored texts, whatever becomes of a request.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use super::commands::succeeds;
use crate::support::documents::document;
use crate::support::model_server::{ModelServer, Mood};
use ragward::client::Client;
use ragward::proto::ingest::{DeleteDocumentsRequest, Document, UpsertDocumentsRequest};
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{RecheckRequest, RetrieveRequest, Semantic};

/// Words that occur nowhere else.
const CANARIES: [&str; 3] = ["quetzalcoatl", "xylophonist", "zeitgeberin"];

#[tokio::test]
async fn neither_queries_nor_texts_are_logged() {
    let [in_query, in_text, in_title] = CANARIES;
    let data = tempfile::tempdir().unwrap();
    let models = ModelServer::start().await;
    let settings = data.path().join("ragward.toml");
    let model = format!("[[embedding]]\ncollections = [\"meant\"]\nurl = \"{}\"\nmodel = \"small\"\n", models.url);
    std::fs::write(&settings, model).unwrap();
    let server = LoggedServer::start(&settings, data.path());
    let client = Client::at(&server.address).unwrap();
    let upsert = |document: Document| {
        let message = UpsertDocumentsRequest { collection: "notes".to_owned(), document: Some(document) };
        let mut ingest = client.ingest();
        async move { ingest.upsert_documents(tokio_stream::iter([message])).await }
    };
    let retrieve = |user: &str, collection: &str| RetrieveRequest {
        user: user.to_owned(),
        collection: collection.to_owned(),
        query: Some(Query::Text(format!("where is the {in_query}?"))),
        top_k: 3,
        page_token: Some(String::new()),
        ..RetrieveRequest::default()
    };
    let mut good = document("note:1", &[&format!("It is with the {in_text} and the {in_query}.")]);
    good.title = in_title.to_owned();
    upsert(good.clone()).await.unwrap();
    let canaries = good.clone();
    let spoilt = Document { chunks: [good.chunks.clone(), good.chunks.clone()].concat(), ..good };
    upsert(spoilt).await.unwrap_err();
    // There is no model, so every retrieval fails: in the authorizer, in the store, and at the entrance.
    for request in [retrieve("user:anne", "notes"), retrieve("user:anne", "absent"), retrieve("anne", "notes")] {
        client.retrieval().retrieve(request).await.unwrap_err();
    }
    let recheck = RecheckRequest {
        user: "user:anne".to_owned(),
        collection: "notes".to_owned(),
        chunk_ids: vec!["note:1#0".to_owned()],
        ..RecheckRequest::default()
    };
    client.retrieval().recheck(recheck).await.unwrap_err();
    // The endpoint of a model gets the texts, and repeats them when it fails.
    let meant =
        |document: Document| UpsertDocumentsRequest { collection: "meant".to_owned(), document: Some(document) };
    for mood in [Mood::Right, Mood::Short, Mood::Refusing(500), Mood::Refusing(302)] {
        models.is(mood);
        let written = client.ingest().upsert_documents(tokio_stream::iter([meant(canaries.clone())])).await;
        assert_eq!(written.is_ok(), mood == Mood::Right, "{mood:?}: {written:?}");
        let query = Query::Semantic(Semantic { text: format!("where is the {in_query}?") });
        let request = RetrieveRequest { query: Some(query), ..retrieve("user:anne", "meant") };
        client.retrieval().retrieve(request).await.unwrap_err();
    }
    assert!(models.take().iter().any(|asked| asked.body.to_string().contains(in_text)), "the texts were sent");
    let gone = DeleteDocumentsRequest { collection: "notes".to_owned(), document_ids: vec!["note:1".to_owned()] };
    client.ingest().delete_documents(gone).await.unwrap();

    server.has_no_canary();
}

/// The endpoint of a model that orders answers gets the query and permitted texts, and repeats them when it fails.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_reranker_repeats_is_not_logged() {
    let [in_query, in_text, in_title] = CANARIES;
    let directory = tempfile::tempdir().unwrap();
    let models = ModelServer::start().await;
    let path = |name: &str| directory.path().join(name);
    let rerank = format!("[[rerank]]\ncollections = [\"notes\"]\nurl = \"{}\"\nmodel = \"judge\"\n", models.url);
    std::fs::write(path("ragward.toml"), rerank).unwrap();
    let store = "model: |\n  model\n    schema 1.1\n  type user\n  type note\n    relations\n      define can_read: [user]\n\
                 tuples:\n  - { user: user:anne, relation: can_read, object: note:1 }\n";
    std::fs::write(path("store.fga.yaml"), store).unwrap();
    let (data, store) = (path("data"), path("store.fga.yaml"));
    succeeds(&["model", "load", store.to_str().unwrap(), "--data", data.to_str().unwrap()]);
    let server = LoggedServer::start(&path("ragward.toml"), &data);
    let client = Client::at(&server.address).unwrap();
    let mut note = document("note:1", &[&format!("It is with the {in_text} and the {in_query}.")]);
    note.title = in_title.to_owned();
    let message = UpsertDocumentsRequest { collection: "notes".to_owned(), document: Some(note) };
    client.ingest().upsert_documents(tokio_stream::iter([message])).await.unwrap();
    for mood in [Mood::Right, Mood::Short, Mood::Refusing(500), Mood::Refusing(302)] {
        models.is(mood);
        let request = RetrieveRequest {
            user: "user:anne".to_owned(),
            collection: "notes".to_owned(),
            query: Some(Query::Text(format!("where is the {in_query}?"))),
            top_k: 3,
            ..RetrieveRequest::default()
        };
        let answer = client.retrieval().retrieve(request).await;
        assert_eq!(answer.is_ok(), mood == Mood::Right, "{mood:?}: {answer:?}");
        assert!(models.take().iter().any(|asked| asked.body.to_string().contains(in_text)), "{mood:?}: it was sent");
    }
    server.has_no_canary();
}

/// A server that logs as much as it can.
struct LoggedServer {
    process: Child,
    address: String,
    logged: String,
    rest: JoinHandle<std::io::Result<String>>,
}

impl LoggedServer {
    fn start(settings: &Path, data: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
        command.args(["--config", settings.to_str().unwrap(), "serve", "--data", data.to_str().unwrap()]);
        command.args(["--listen", "127.0.0.1:0", "--insecure-identity"]);
        // This asks for everything. The libraries below would also log the bytes on the wire, so they are not heeded.
        command.env("RUST_LOG", "trace").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut logged = String::new();
        let address = loop {
            assert_ne!(log.read_line(&mut logged).unwrap(), 0, "the server ended:\n{logged}");
            if let Some((_, address)) = logged.split_once("serving address=") {
                break format!("http://{}", address.trim());
            }
        };
        let rest = std::thread::spawn(move || {
            let mut text = String::new();
            log.read_to_string(&mut text).map(|_| text)
        });
        Self { process, address, logged, rest }
    }

    /// Ends the server, and looks through everything that it has written.
    fn has_no_canary(self) {
        let Self { mut process, mut logged, rest, .. } = self;
        process.kill().unwrap();
        process.wait().unwrap();
        logged.push_str(&rest.join().unwrap().unwrap());
        process.stdout.take().unwrap().read_to_string(&mut logged).unwrap();
        assert!(logged.lines().count() > 1, "{logged}");
        for canary in CANARIES {
            assert!(!logged.to_lowercase().contains(canary), "{canary} is in the log:\n{logged}");
        }
    }
}
