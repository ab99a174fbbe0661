//! The log of a server holds neither queries nor stored texts, whatever becomes of a request.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

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
    let mut server = Command::new(env!("CARGO_BIN_EXE_ragward"));
    let listen = ["--listen", "127.0.0.1:0", "--insecure-identity"];
    server.args(["--config", settings.to_str().unwrap()]);
    server.args(["serve", "--data", data.path().to_str().unwrap()]).args(listen);
    // This asks for everything. The libraries below would also log the bytes on the wire, so they are not heeded.
    server.env("RUST_LOG", "trace").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = server.spawn().unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap());
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
    let client = Client::at(&address).unwrap();
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

    server.kill().unwrap();
    server.wait().unwrap();
    logged.push_str(&rest.join().unwrap().unwrap());
    server.stdout.take().unwrap().read_to_string(&mut logged).unwrap();
    assert!(logged.lines().count() > 1, "{logged}");
    for canary in CANARIES {
        assert!(!logged.to_lowercase().contains(canary), "{canary} is in the log:\n{logged}");
    }
}
