//! The four ways to run: each engine is embedded or a server, and the answers are the same. `OpenFGA` is a real server.
//! Qdrant's API is served from memory, and by a real Qdrant if there is one.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use ragward::client::document_message;
use ragward::config::{AuthorizerKind, Config, VectorStoreKind};
use ragward::ingest::Source;
use ragward::proto::ingest::{Chunk, Document};
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{Completion, Recall, RecheckRequest, RetrieveRequest, Vector};
use tonic::Code;

use crate::end_to_end::process::Served;
use crate::support::dice::Dice;
use crate::support::openfga::OpenFga;
use crate::support::qdrant_servers::{AnyQdrant, servers};
use crate::support::running::{Running, config};

const USERS: [&str; 8] =
    ["user:anne", "user:bob", "user:carol", "user:dana", "user:erik", "user:fay", "user:nobody", "agent:desk-helper"];
const DIMENSION: usize = 8;
const VECTORS_PER_PAGE: usize = 6;

fn handbook() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/handbook")
}

/// Returns the same numbers in every run.
fn vector(seed: usize) -> Vec<f32> {
    let number = |place: usize| ((seed * 31 + place * 17 + seed * place * 7) % 97) as f32 / 97.0 - 0.5;
    (0..DIMENSION).map(number).collect()
}

/// Returns the handbook's pages with their texts, and the same pages as points.
fn documents() -> (Vec<Document>, Vec<Document>) {
    let source = Source::Catalog { path: handbook().join("catalog.jsonl"), root: handbook() };
    let pages: Vec<Document> =
        source.documents().unwrap().map(|entry| document_message(entry.unwrap().document.unwrap())).collect();
    let points = pages.iter().enumerate().map(|(page, document)| {
        let chunk = |place: usize| Chunk {
            id: format!("{}@{place}", document.id),
            guard: document.id.clone(),
            vector: vector(page * VECTORS_PER_PAGE + place),
            ..Chunk::default()
        };
        Document { chunks: (0..VECTORS_PER_PAGE).map(chunk).collect(), ..document.clone() }
    });
    let points = points.collect();
    (pages, points)
}

fn request(user: &str, collection: &str, query: Query, top_k: u32) -> RetrieveRequest {
    RetrieveRequest {
        user: user.to_owned(),
        collection: collection.to_owned(),
        query: Some(query),
        top_k,
        ..RetrieveRequest::default()
    }
}

/// Returns everything that an answer tells, for every user.
async fn answers(running: &Running, collection: &str, queries: &[Query]) -> Vec<String> {
    let mut told = Vec::new();
    for user in USERS {
        for query in queries {
            for top_k in [1, 5, 40] {
                let request = request(user, collection, query.clone(), top_k);
                let answer = running.client.retrieval().retrieve(request).await.unwrap().into_inner();
                let ids: Vec<&str> = answer.chunks.iter().map(|chunk| chunk.id.as_str()).collect();
                told.push(format!("{user} {top_k} {ids:?} {}", answer.completion));
            }
        }
        let chunk_ids = vec!["document:pay-bands@0".to_owned(), "document:welcome@1".to_owned()];
        let recheck = RecheckRequest {
            user: user.to_owned(),
            collection: "points".to_owned(),
            chunk_ids,
            ..RecheckRequest::default()
        };
        told.push(format!("{:?}", running.client.retrieval().recheck(recheck).await.unwrap().into_inner().chunk_ids));
    }
    told
}

/// Returns the pages that each user finds by each text, in no order: Qdrant compares the length of a text with a constant, so
/// its scores are a little different. Returns `None` if the store takes no text queries.
async fn pages_found(running: &Running, texts: &[Query]) -> Option<Vec<String>> {
    let mut told = Vec::new();
    for user in USERS {
        for text in texts {
            let answer = running.client.retrieval().retrieve(request(user, "pages", text.clone(), 100)).await;
            let answer = match answer {
                Ok(answer) => answer.into_inner(),
                Err(status) if status.code() == Code::FailedPrecondition => return None,
                Err(status) => panic!("{user}: {status}"),
            };
            let ids: BTreeSet<&str> = answer.chunks.iter().map(|chunk| chunk.id.as_str()).collect();
            told.push(format!("{user} {ids:?} {}", answer.completion));
        }
    }
    Some(told)
}

/// Loads a model and tuples with the command, as a user does.
fn load_model(store_file: &Path, directory: &Path, config: &Config) {
    let file = directory.join("ragward.toml");
    std::fs::write(&file, toml::to_string(config).unwrap()).unwrap();
    // One server has the stores of several tests, so each new one must be asked for.
    let arguments =
        ["model", "load", store_file.to_str().unwrap(), "--create-store", "--config", file.to_str().unwrap()];
    let loaded = std::process::Command::new(env!("CARGO_BIN_EXE_ragward")).args(arguments).output().unwrap();
    assert!(loaded.status.success(), "{loaded:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_and_servers_give_the_same_answers() {
    let Some(openfga) = OpenFga::start().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let qdrants = servers().await;
    let (pages, points) = documents();
    let texts = ["parental leave next year", "how do I get my expenses back", "incident", "pay"];
    let texts = texts.map(|text| Query::Text(text.to_owned()));
    let vectors = [0, 1, 2, 3].map(|seed| Query::Vector(Vector { values: vector(1_000 + seed) }));

    let mut expected: Option<(Vec<String>, Vec<String>)> = None;
    let mut pages_expected = None;
    for qdrant in [None].into_iter().chain(qdrants.iter().map(Some)) {
        for authorizer in [AuthorizerKind::Embedded, AuthorizerKind::Openfga] {
            let setup = format!("{authorizer:?}-{}", qdrant.map_or("embedded", |qdrant| qdrant.name));
            let data = directory.path().join(&setup);
            let mut config = configured(&data, authorizer, qdrant);
            config.authorizer.openfga.address = openfga.config("handbook").address;
            config.authorizer.openfga.store_name = "handbook".to_owned();
            load_model(&handbook().join("store.fga.yaml"), directory.path(), &config);
            let running = Running::start(&config).await;
            running.upsert("points", points.clone()).await.unwrap();
            let by_vector = answers(&running, "points", &vectors).await;
            // The pages have no vectors.
            running.upsert("pages", pages.clone()).await.unwrap();
            let found = pages_found(&running, &texts).await;
            // A real Qdrant may be too old for text queries.
            assert!(found.is_some() || qdrant.is_some_and(|qdrant| qdrant.small.is_none()), "{setup}");
            if let Some(found) = found {
                assert_eq!(*pages_expected.get_or_insert_with(|| found.clone()), found, "{setup}");
            }
            let by_text = if qdrant.is_none() { answers(&running, "pages", &texts).await } else { Vec::new() };
            let (texts_expected, vectors_expected) = expected.get_or_insert((by_text.clone(), by_vector.clone()));
            assert_eq!(&by_vector, vectors_expected, "{setup}");
            assert!(by_text.is_empty() || &by_text == texts_expected, "{setup}");
        }
    }
}

/// A relation that no type of the model has is reported in the log, whichever engine decides.
#[tokio::test(flavor = "multi_thread")]
async fn a_relation_that_the_model_lacks_is_warned_of() {
    let Some(openfga) = OpenFga::start().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let warning = "no type of the authorization model has the relation `can_raed`; did you mean `can_read`?";
    for authorizer in [AuthorizerKind::Embedded, AuthorizerKind::Openfga] {
        for (relation, is_lacking) in [("can_read", false), ("can_raed", true)] {
            let row = format!("{authorizer:?} {relation}");
            let data = directory.path().join(&row);
            let mut config = configured(&data, authorizer, None);
            config.authorizer.openfga.address = openfga.config("relations").address;
            config.authorizer.openfga.store_name = "relations".to_owned();
            config.retrieval.relation = ragward::language::Relation::parse(relation).unwrap();
            config.server.insecure_identity = true;
            load_model(&handbook().join("store.fga.yaml"), directory.path(), &config);
            let served = Served::start_configured(&data, &directory.path().join("ragward.toml"));
            assert_eq!(served.log.contains(warning), is_lacking, "{row}: {}", served.log);
        }
    }
}

/// The shares of the documents, in thousandths. Each has a folder, which holds the documents beyond the share before it.
/// `user:900` sees the folders up to 900, and so 90 % of the documents.
const SHARES: [usize; 7] = [1, 10, 100, 400, 900, 990, 1_000];

/// Returns a thousand documents of one chunk each, in folders.
fn shares() -> (String, Vec<Document>) {
    let mut store = String::from(
        "name: shares\nmodel: |\n  model\n    schema 1.1\n  type user\n  type folder\n    relations\n      define viewer: [user]\n  \
         type document\n    relations\n      define parent: [folder]\n      define can_read: viewer from parent\ntuples:\n",
    );
    let mut tuple = |user: &str, relation: &str, object: &str| {
        writeln!(store, "  - {{user: \"{user}\", relation: {relation}, object: \"{object}\"}}").expect("a String");
    };
    for folder in SHARES {
        for seen in SHARES.iter().filter(|seen| **seen >= folder) {
            tuple(&format!("user:{seen}"), "viewer", &format!("folder:{folder}"));
        }
    }
    let mut dice = Dice::new(1);
    let mut numbers: Vec<usize> = (0..SHARES[SHARES.len() - 1]).collect();
    dice.shuffle(&mut numbers);
    let mut documents = Vec::with_capacity(numbers.len());
    for (place, number) in numbers.into_iter().enumerate() {
        let id = format!("document:{number}");
        let folder = SHARES.into_iter().find(|share| place < *share).unwrap();
        tuple(&format!("folder:{folder}"), "parent", &id);
        let values: Vec<f32> = (0..DIMENSION).map(|_| dice.below(2_001) as f32 / 1_000.0 - 1.0).collect();
        let chunk = Chunk { id: id.clone(), guard: id.clone(), vector: values, ..Chunk::default() };
        documents.push(Document { id, chunks: vec![chunk], ..Document::default() });
    }
    (store, documents)
}

/// Returns the `top_k` nearest of the first `visible` documents, which are those in the folders that a user sees.
fn nearest(documents: &[Document], visible: usize, query: &[f32], top_k: usize) -> Vec<String> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let cosine = |vector: &[f32]| dot(query, vector) / dot(vector, vector).sqrt();
    let mut scored: Vec<(f64, &str)> = documents[..visible]
        .iter()
        .map(|document| (cosine(&document.chunks[0].vector), document.id.as_str()))
        .collect();
    scored.sort_by(|(x, _), (y, _)| y.total_cmp(x));
    scored.into_iter().take(top_k).map(|(_, id)| id.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn at_every_share_the_answer_is_that_of_the_private_corpus() {
    let openfga = OpenFga::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (store, documents) = shares();
    let store_file = directory.path().join("shares.fga.yaml");
    std::fs::write(&store_file, store).unwrap();
    for qdrant in servers().await {
        for authorizer in [AuthorizerKind::Embedded, AuthorizerKind::Openfga] {
            let setup = format!("{authorizer:?}-{}", qdrant.name);
            let mut config = configured(&directory.path().join(&setup), authorizer, Some(&qdrant));
            match (&openfga, authorizer) {
                (None, AuthorizerKind::Openfga) => continue,
                (Some(openfga), _) => config.authorizer.openfga.address = openfga.config("").address,
                (None, AuthorizerKind::Embedded) => {}
            }
            config.authorizer.openfga.store_name = setup.clone();
            load_model(&store_file, directory.path(), &config);
            let running = Running::start(&config).await;
            running.upsert("shares", documents.clone()).await.unwrap();
            for (seed, share) in (1..).zip(SHARES) {
                let query = vector(seed);
                for top_k in [1, 10, 100] {
                    let asked = request(
                        &format!("user:{share}"),
                        "shares",
                        Query::Vector(Vector { values: query.clone() }),
                        top_k,
                    );
                    let answer = running.client.retrieval().retrieve(asked).await.unwrap().into_inner();
                    let ids: Vec<String> = answer.chunks.iter().map(|chunk| chunk.id.clone()).collect();
                    assert_eq!(ids, nearest(&documents, share, &query, top_k as usize), "{setup}, {share}, {top_k}");
                    assert_eq!(answer.recall(), Recall::Exact, "{setup}, {share}, {top_k}");
                    let completion =
                        if ids.len() == top_k as usize { Completion::Complete } else { Completion::Exhausted };
                    assert_eq!(answer.completion(), completion, "{setup}, {share}, {top_k}");
                }
            }
            running.stop().await.unwrap();
        }
    }
}

/// Returns the default configuration with these engines. Qdrant scans.
fn configured(data: &Path, authorizer: AuthorizerKind, qdrant: Option<&AnyQdrant>) -> Config {
    let mut config = config(data);
    config.authorizer.kind = authorizer;
    if let Some(qdrant) = qdrant {
        config.vector_store.kind = VectorStoreKind::Qdrant;
        config.vector_store.qdrant.url.clone_from(&qdrant.url);
        config.vector_store.qdrant.exact = true;
    }
    config
}

#[tokio::test]
async fn a_backend_that_is_down_is_an_error_without_details() {
    let data = tempfile::tempdir().unwrap();
    let (_, points) = documents();
    let query = || Query::Vector(Vector { values: vector(7) });
    let embedded = Running::start(&config(data.path())).await;
    embedded.upsert("points", points).await.unwrap();
    embedded.stop().await.unwrap();

    let mut without_openfga = config(data.path());
    without_openfga.authorizer.kind = AuthorizerKind::Openfga;
    without_openfga.authorizer.openfga.address = "http://127.0.0.1:1".to_owned();
    let mut without_qdrant = config(data.path());
    without_qdrant.vector_store.kind = VectorStoreKind::Qdrant;
    without_qdrant.vector_store.qdrant.url = "http://127.0.0.1:1".to_owned();
    for (name, config) in [("without OpenFGA", without_openfga), ("without Qdrant", without_qdrant)] {
        let running = Running::start(&config).await;
        let asked = request("user:anne", "points", query(), 3);
        let status = running.client.retrieval().retrieve(asked).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{name}: {status:?}");
        assert!(!status.message().contains("127.0.0.1"), "{name}: {status:?}");
        running.stop().await.unwrap();
    }
}

/// With an OpenFGA server, commands that ask only that server need no data directory, and they name a store that is
/// missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_there_is_named_and_not_made() {
    let Some(openfga) = OpenFga::start().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("none");
    let file = directory.path().join("ragward.toml");
    let run = |store: &str, arguments: &[&str]| {
        let mut config = config(&data);
        config.authorizer.kind = AuthorizerKind::Openfga;
        config.authorizer.openfga.address = openfga.config("").address;
        config.authorizer.openfga.store_name = store.to_owned();
        std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ragward"));
        let output = command.args(arguments).args(["--config", file.to_str().unwrap()]).output().unwrap();
        let told = [output.stdout, output.stderr].map(|told| String::from_utf8(told).unwrap()).concat();
        (output.status.code(), told)
    };
    let store_file = handbook().join("store.fga.yaml");
    let load = ["model", "load", store_file.to_str().unwrap()];
    let check = ["check", "user:bob", "can_read", "document:pay-bands"];
    let named = "the OpenFGA server has no store named `frist`; it has `first`";
    let rows: [(&str, &str, &[&str], i32, &str); 10] = [
        ("a server without stores", "first", &check, 2, "no authorization model is loaded"),
        ("the first store", "first", &load, 0, "decides now"),
        ("it is there", "first", &load, 0, "decides now"),
        (
            "a slip",
            "frist",
            &load,
            2,
            &format!("{named}; correct `authorizer.openfga.store_name`, or create the store with `--create-store`"),
        ),
        ("a slip in a check", "frist", &check, 2, named),
        ("a slip in show", "frist", &["model", "show"], 2, named),
        ("on purpose", "second", &[&load[..], &["--create-store"]].concat(), 0, "decides now"),
        ("a check", "first", &check, 0, "allowed"),
        (
            "a relation that is not there",
            "first",
            &["check", "user:bob", "can_raed", "document:pay-bands"],
            2,
            "did you mean `can_read`?",
        ),
        ("the server's model", "first", &["model", "show"], 0, "define can_read:"),
    ];
    for (name, store, arguments, code, expected) in rows {
        let (exited, told) = run(store, arguments);
        assert_eq!(exited, Some(code), "{name}: {told}");
        assert!(told.contains(expected), "{name}: {told}");
    }
    assert!(!data.exists(), "nothing is kept here");
}
