//! Queries by meaning, and answers that a model orders: what the models are sent, what they may not spoil, and what is recorded.

use std::path::Path;

use ragward::audit::{AuditKey, AuditedModel, Event, Record, read_log};
use ragward::config::Config;
use ragward::language::{RelationshipTuple, dsl};
use ragward::proto::ingest::{Document, PutDocumentRequest};
use ragward::proto::metadata::{Value as Metadata, value::Kind};
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{Hybrid, RetrieveRequest, RetrieveResponse, Semantic, Vector};
use serde_json::json;
use tonic::{Code, Status};

use super::commands::{json as json_of, ragward, succeeds};
use crate::support::documents::document;
use crate::support::json_door::{Door, JsonDoor};
use crate::support::model_server::{Asked, ModelServer, Mood};
use crate::support::running::{Running, config};
use crate::support::untimed::Untimed;

const MODEL: &str = "
model
  schema 1.1
type user
type note
  relations
    define can_read: [user]
";
/// Words that stand above the ceiling, in another collection, or in documents that Anne may not see.
const CANARY: &str = "quetzalcoatl";

/// Returns the settings of a server with a model for the collection `notes`, which may get what is not secret.
fn with_embedding(data: &Path, models: &ModelServer) -> Config {
    let mut config = config(data);
    config.identity.details.classification_key = Some("class".to_owned());
    config.identity.details.classifications = ["open", "secret"].map(str::to_owned).to_vec();
    let embedding = json!([{
        "collections": ["notes"], "url": models.url, "model": "small", "classification_max": "open", "timeout": "60s",
    }]);
    config.embedding = serde_json::from_value(embedding).unwrap();
    config
}

fn with_rerank(mut config: Config, models: &ModelServer, on_failure: &str) -> Config {
    let rerank = json!([{
        "collections": ["notes"], "url": models.url, "model": "judge", "classification_max": "open", "on_failure": on_failure,
    }]);
    config.rerank = serde_json::from_value(rerank).unwrap();
    config
}

/// Returns a note whose chunks have a classification.
fn note(name: &str, class: &str, texts: &[&str]) -> Document {
    let mut made = document(&format!("note:{name}"), texts);
    for chunk in &mut made.chunks {
        let class = Metadata { kind: Some(Kind::StringValue(class.to_owned())) };
        chunk.metadata.insert("class".to_owned(), class);
    }
    made
}

/// Starts a server on which Anne may see notes of these names.
async fn start(config: &Config, notes: &[&str]) -> Running {
    let running = Running::start(config).await;
    let may_read =
        |name: &&str| RelationshipTuple::parse("user:anne", "can_read", &format!("note:{name}")).expect("a tuple");
    running.load(dsl::load(MODEL).unwrap(), notes.iter().map(may_read).collect());
    running
}

fn semantic(text: &str) -> Query {
    Query::Semantic(Semantic { text: text.to_owned() })
}

fn hybrid(text: &str) -> Query {
    Query::Hybrid(Hybrid { text: text.to_owned(), vector: None })
}

fn asking(user: &str, collection: &str, query: Query) -> RetrieveRequest {
    RetrieveRequest {
        user: user.to_owned(),
        collection: collection.to_owned(),
        query: Some(query),
        top_k: 10,
        ..RetrieveRequest::default()
    }
}

async fn ask(running: &Running, request: RetrieveRequest) -> Result<RetrieveResponse, Status> {
    Ok(running.client.retrieval().retrieve(request).await?.into_inner().untimed())
}

async fn found(running: &Running, query: Query) -> Result<Vec<String>, Status> {
    let answer = ask(running, asking("user:anne", "notes", query)).await?;
    Ok(answer.chunks.into_iter().map(|chunk| chunk.id).collect())
}

/// Returns the texts that were sent to be embedded.
fn embedded(asked: &[Asked]) -> Vec<String> {
    let of = |asked: &Asked| {
        assert_eq!(asked.path, "/v1/embeddings");
        let texts = asked.body["input"].as_array().unwrap().iter();
        texts.map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<String>>()
    };
    asked.iter().flat_map(of).collect()
}

fn records(data: &Path) -> Vec<Record> {
    let key = AuditKey::read(&data.join("audit.key")).unwrap();
    let mut records = Vec::new();
    let report = read_log(&data.join("audit"), &key, |_, _, entry| {
        if let Event::Record(record) = &entry.event {
            records.push((**record).clone());
        }
    });
    assert!(report.unwrap().is_intact());
    records
}

#[tokio::test]
async fn a_paraphrase_finds_what_it_means() {
    let data = tempfile::tempdir().unwrap();
    let models = ModelServer::start().await;
    let running = start(&with_embedding(data.path(), &models), &["leave", "pay", "secret"]).await;
    let notes = vec![
        note("leave", "open", &["Parental leave lasts a year."]),
        note("pay", "open", &["Salaries are a matter of money."]),
        note("hidden", "open", &["A newborn baby, a baby, a baby."]),
        note("secret", "secret", &[&format!("A {CANARY} baby.")]),
    ];
    let answer = running.upsert("notes", notes).await.unwrap();
    let told = answer.embedded.expect("a model");
    assert_eq!((told.model.as_str(), told.host.as_str(), told.chunks), ("small", models.host(), 3));
    running.upsert("others", vec![note("leave", "open", &[&format!("{CANARY} leave")])]).await.unwrap();
    let sent = models.take();
    assert_eq!(sent.len(), 1, "the texts of one batch go together");
    assert_eq!(sent[0].body["model"], "small");
    assert_eq!(sent[0].body["encoding_format"], "float");
    assert_eq!(sent[0].headers["content-type"], "application/json");
    assert!(!sent[0].headers.contains_key("authorization"), "no key is configured");
    assert_eq!(embedded(&sent).len(), 3);

    // The hidden note would be the first one. The secret one has no vector, and is found by its words alone.
    assert_eq!(found(&running, semantic("time off for a newborn")).await.unwrap(), ["note:leave#0", "note:pay#0"]);
    assert_eq!(found(&running, hybrid("baby")).await.unwrap(), ["note:leave#0", "note:secret#0", "note:pay#0"]);
    assert_eq!(found(&running, Query::Text("newborn".to_owned())).await.unwrap(), Vec::<String>::new());
    let json = JsonDoor::at(&running.address.to_string());
    for door in [Door::Connect, Door::Rest] {
        let request = asking("user:anne", "notes", semantic("newborn"));
        let answer: RetrieveResponse = json.ask(door, "Retrieve", &request).await.unwrap();
        assert_eq!(answer.chunks[0].id, "note:leave#0", "{door:?}");
    }
    let sent = embedded(&models.take());
    assert_eq!(sent, ["time off for a newborn", "baby", "newborn", "newborn"], "text queries stay here");

    running.stop().await.unwrap();
    let records = records(data.path());
    let of_query = |record: &&Record| record.request.as_ref().is_some_and(|request| request.query_kind.is_some());
    let kinds: Vec<(&str, usize)> = records
        .iter()
        .filter(of_query)
        .map(|record| (record.request.as_ref().unwrap().query_kind.as_deref().unwrap(), record.models.len()))
        .collect();
    assert_eq!(kinds, [("semantic", 1), ("hybrid", 1), ("text", 0), ("semantic", 1), ("semantic", 1)]);
    let upload = records.iter().find(|record| record.call.ends_with("/UpsertDocuments")).unwrap();
    let expected = AuditedModel {
        task: "embed_chunks".to_owned(),
        model: "small".to_owned(),
        host: models.host().to_owned(),
        texts: 3,
        chunk_ids: Vec::new(),
    };
    assert_eq!(upload.models, [expected]);
}

/// A store may make its collection for texts alone if no chunk comes with a vector, so the server tells it the dimension of the model.
#[tokio::test]
async fn a_collection_may_begin_with_what_is_not_sent() {
    let data = tempfile::tempdir().unwrap();
    let models = ModelServer::start().await;
    let running = start(&with_embedding(data.path(), &models), &["secret", "leave"]).await;
    let secret = || note("secret", "secret", &[CANARY]);
    for (row, expected) in [("a new collection", vec!["dimension".to_owned()]), ("one that is there", Vec::new())] {
        running.upsert("notes", vec![secret()]).await.unwrap();
        assert_eq!(embedded(&models.take()), expected, "{row}");
    }
    running.upsert("notes", vec![note("leave", "open", &["Parental leave"])]).await.unwrap();
    assert_eq!(found(&running, semantic("a newborn")).await.unwrap(), ["note:leave#0"]);
}

/// A user must not learn by the time of an answer that another one has asked the same.
#[tokio::test]
async fn no_vector_of_a_query_is_kept() {
    let data = tempfile::tempdir().unwrap();
    let models = ModelServer::start().await;
    let running = start(&with_embedding(data.path(), &models), &["leave"]).await;
    running.upsert("notes", vec![note("leave", "open", &["Parental leave"])]).await.unwrap();
    models.take();
    for user in ["user:anne", "user:bob", "user:anne"] {
        ask(&running, asking(user, "notes", semantic("a newborn"))).await.unwrap();
        assert_eq!(embedded(&models.take()), ["a newborn"], "{user}");
    }
}

#[tokio::test]
async fn nothing_is_sent_that_needs_no_model_or_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let models = ModelServer::start().await;
    let running = start(&with_embedding(data.path(), &models), &["leave"]).await;
    running.upsert("notes", vec![note("leave", "open", &["Parental leave"])]).await.unwrap();
    let own = |collection: &str| PutDocumentRequest {
        collection: collection.to_owned(),
        document_id: "note:other".to_owned(),
        guard: "note:other".to_owned(),
        text: format!("{CANARY} leave"),
        ..PutDocumentRequest::default()
    };
    running.client.ingest().put_document(own("others")).await.unwrap();
    models.take();
    let vector = |values: &[f32]| Some(Vector { values: values.to_vec() });
    let both = |values: &[f32]| Query::Hybrid(Hybrid { text: CANARY.to_owned(), vector: vector(values) });
    let long = CANARY.repeat(1_000);
    let page = |token: &str| RetrieveRequest {
        page_token: Some(token.to_owned()),
        ..asking("user:anne", "notes", semantic(CANARY))
    };
    let rows = [
        ("another collection", asking("user:anne", "others", semantic(CANARY)), Code::FailedPrecondition),
        ("both in another one", asking("user:anne", "others", hybrid(CANARY)), Code::InvalidArgument),
        ("no collection", asking("user:anne", "absent", semantic(CANARY)), Code::NotFound),
        ("no user", asking("anne", "notes", semantic(CANARY)), Code::InvalidArgument),
        ("no words", asking("user:anne", "notes", semantic(" ")), Code::InvalidArgument),
        ("too many words", asking("user:anne", "notes", semantic(&long)), Code::InvalidArgument),
        ("an empty vector", asking("user:anne", "notes", both(&[])), Code::InvalidArgument),
        ("a vector of another dimension", asking("user:anne", "notes", both(&[1.0])), Code::InvalidArgument),
        ("a forged page", page("7f"), Code::InvalidArgument),
    ];
    for (row, request, expected) in rows {
        let refused = ask(&running, request).await.unwrap_err();
        assert_eq!(refused.code(), expected, "{row}: {refused:?}");
        assert!(models.take().is_empty(), "{row}");
    }
    assert!(ask(&running, asking("user:anne", "notes", both(&[1.0, 0.0, 0.0, 0.0]))).await.is_ok(), "an own vector");
    assert!(models.take().is_empty());
    // A writer's own vector would stand among those of the model.
    let mut with_vector = note("leave", "open", &["leave"]);
    with_vector.chunks[0].vector = vec![1.0, 0.0, 0.0, 0.0];
    let refused = running.upsert("notes", vec![with_vector]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(models.take().is_empty());
}

#[tokio::test]
async fn a_model_that_fails_gives_no_answer() {
    let data = tempfile::tempdir().unwrap();
    let models = ModelServer::start().await;
    let running = start(&with_embedding(data.path(), &models), &["leave", "new"]).await;
    running.upsert("notes", vec![note("leave", "open", &["Parental leave"])]).await.unwrap();
    for mood in [Mood::Refusing(500), Mood::Refusing(302), Mood::Short, Mood::Longer] {
        models.is(mood);
        for query in [semantic(CANARY), hybrid(CANARY)] {
            let refused = found(&running, query).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unavailable, "{mood:?}: {refused:?}");
            let told = format!("{refused:?}");
            assert!(
                !told.contains(CANARY) && !told.contains("small") && !told.contains("127.0.0.1"),
                "{mood:?}: {told}"
            );
        }
        assert!(found(&running, Query::Text("leave".to_owned())).await.is_ok(), "{mood:?}: words need no model");
    }
    for mood in [Mood::Refusing(500), Mood::Short, Mood::Doubled] {
        models.is(mood);
        let refused = running.upsert("notes", vec![note("new", "open", &["one", "two"])]).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{mood:?}: {refused:?}");
    }
    models.is(Mood::Right);
    assert_eq!(found(&running, hybrid("one")).await.unwrap(), ["note:leave#0"], "nothing of the refused note is there");
    running.stop().await.unwrap();
    let sent: Vec<Vec<AuditedModel>> = records(data.path()).into_iter().map(|record| record.models).collect();
    let noted = sent.iter().filter(|models| !models.is_empty()).count();
    assert_eq!(noted, 1 + 8 + 3 + 1, "what was sent is recorded even if there was no answer");
}

#[tokio::test]
async fn vectors_of_another_model_are_refused() {
    let data = tempfile::tempdir().unwrap();
    let models = ModelServer::start().await;
    let settings = with_embedding(data.path(), &models);
    let running = start(&settings, &["leave"]).await;
    running.upsert("notes", vec![note("leave", "open", &["Parental leave"])]).await.unwrap();
    running.stop().await.unwrap();
    models.take();
    let mut other = settings.clone();
    other.embedding[0].model = "large".to_owned();
    let running = Running::start(&other).await;
    let refused = found(&running, semantic("a newborn")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    let refused = running.upsert("notes", vec![note("leave", "open", &["leave"])]).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(models.take().is_empty(), "nothing is sent for vectors that do not fit");
    running.stop().await.unwrap();
    // Without the setting, writers would put their own vectors beside those of the model.
    let mut none = settings;
    none.embedding = Vec::new();
    let running = Running::start(&none).await;
    let mut with_vector = note("other", "open", &["leave"]);
    with_vector.chunks[0].vector = vec![1.0, 0.0, 0.0, 0.0];
    let refused = running.upsert("notes", vec![with_vector]).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
}

/// The answers are the same bytes, whatever is there that Anne may not see.
#[tokio::test]
async fn what_is_hidden_moves_no_answer_by_meaning() {
    let models = ModelServer::start().await;
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let names = ["a", "b", "c", "d"];
    let texts = ["Parental leave", "money and leave", "the rota and the pager", "gold gold money"];
    let mut answers = Vec::new();
    for (directory, has_hidden) in directories.iter().zip([false, true]) {
        let settings = with_rerank(with_embedding(directory.path(), &models), &models, "error");
        let running = start(&settings, &names).await;
        let mut notes: Vec<Document> =
            names.iter().zip(texts).map(|(name, text)| note(name, "open", &[text])).collect();
        if has_hidden {
            let full = "newborn baby parental leave salary money pay pager gold";
            for number in 0..20 {
                notes.insert(
                    number % 5,
                    note(&format!("hidden-{number}"), "open", &[full, &format!("{CANARY} {full}")]),
                );
            }
        }
        running.upsert("notes", notes).await.unwrap();
        models.take();
        let mut of_world = Vec::new();
        for text in ["a newborn", "salary", "incident and money", "nothing of the kind"] {
            for query in [semantic(text), hybrid(text)] {
                for page_token in [None, Some(String::new())] {
                    let top_k = if page_token.is_some() { 2 } else { 10 };
                    let request = RetrieveRequest { top_k, page_token, ..asking("user:anne", "notes", query.clone()) };
                    let mut answer = ask(&running, request).await.unwrap();
                    assert!(!answer.chunks.is_empty(), "{text}");
                    let token = std::mem::take(&mut answer.next_page_token);
                    of_world.push((answer, token.len()));
                }
            }
        }
        let sent = models.take();
        assert!(!sent.iter().any(|asked| asked.body.to_string().contains(CANARY)), "no hidden text is ordered");
        of_world.push((RetrieveResponse::default(), sent.len()));
        answers.push(of_world);
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn permitted_chunks_are_ordered_and_no_others() {
    let data = tempfile::tempdir().unwrap();
    let models = ModelServer::start().await;
    let settings = with_rerank(with_embedding(data.path(), &models), &models, "error");
    let running = start(&settings, &["a", "b", "c", "d"]).await;
    let notes = vec![
        note("a", "open", &["leave leave leave"]),
        note("b", "secret", &[&format!("leave leave gold gold gold {CANARY}")]),
        note("c", "open", &["leave gold"]),
        note("d", "open", &["leave gold gold, and more words"]),
        note("hidden", "open", &[&format!("leave leave leave leave gold {CANARY}")]),
    ];
    running.upsert("notes", notes).await.unwrap();
    models.take();
    let text = Query::Text("leave".to_owned());
    let answer = ask(&running, asking("user:anne", "notes", text.clone())).await.unwrap();
    let scores: Vec<(&str, Option<f64>)> =
        answer.chunks.iter().map(|chunk| (chunk.id.as_str(), chunk.rerank_score)).collect();
    let sent = models.take();
    let [asked] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!((asked.path.as_str(), &asked.body["query"]), ("/v1/rerank", &json!("leave")));
    assert_eq!((&asked.body["model"], &asked.body["top_n"]), (&json!("judge"), &json!(3)));
    assert!(!asked.body.to_string().contains(CANARY), "{asked:?}");
    // The secret note is not sent, and keeps its place.
    let of_d = ("note:d#0", Some(2.0));
    let place = scores.iter().position(|(id, _)| *id == "note:b#0").unwrap();
    assert_eq!(scores[place], ("note:b#0", None));
    let ordered: Vec<(&str, Option<f64>)> = scores.iter().filter(|(_, score)| score.is_some()).copied().collect();
    assert_eq!(ordered, [of_d, ("note:c#0", Some(1.0)), ("note:a#0", Some(0.0))]);

    // A vector alone has no words to compare with.
    let vector = Query::Vector(Vector { values: vec![1.0, 0.0, 0.0, 0.0] });
    assert!(found(&running, vector).await.is_ok());
    assert!(models.take().is_empty());
    for mood in [Mood::Refusing(500), Mood::Short, Mood::Doubled] {
        models.is(mood);
        let refused = found(&running, text.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{mood:?}: {refused:?}");
        assert!(!format!("{refused:?}").contains("judge"), "{mood:?}");
    }
    let sent = models.take();
    running.stop().await.unwrap();
    let sent_texts = |asked: &Asked| asked.body["documents"].as_array().unwrap().len() as u64;
    let ids = [
        ("leave leave leave", "note:a#0"),
        ("leave gold", "note:c#0"),
        ("leave gold gold, and more words", "note:d#0"),
    ];
    let sent_ids = |asked: &Asked| -> Vec<&'static str> {
        let texts = asked.body["documents"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
        texts.map(|text| ids.iter().find(|(known, _)| *known == text).unwrap().1).collect()
    };
    let recorded: Vec<AuditedModel> = records(data.path())
        .into_iter()
        .filter(|record| record.call.ends_with("/Retrieve"))
        .flat_map(|record| record.models)
        .collect();
    assert_eq!(recorded.len(), 1 + sent.len());
    for audited in &recorded {
        assert_eq!(
            (audited.task.as_str(), audited.model.as_str(), audited.host.as_str()),
            ("rerank", "judge", models.host())
        );
        assert_eq!(audited.chunk_ids, sent_ids(&sent[0]), "the ids of what the model was sent, in its order");
        assert_eq!(audited.texts, sent_texts(&sent[0]));
    }
}

#[tokio::test]
async fn the_order_is_kept_where_the_settings_say_so() {
    let data = tempfile::tempdir().unwrap();
    let models = ModelServer::start().await;
    let settings = with_rerank(with_embedding(data.path(), &models), &models, "keep_order");
    let running = start(&settings, &["a", "b"]).await;
    let notes = vec![note("a", "open", &["leave leave leave"]), note("b", "open", &["leave gold gold gold"])];
    running.upsert("notes", notes).await.unwrap();
    let text = || Query::Text("leave".to_owned());
    assert_eq!(found(&running, text()).await.unwrap(), ["note:b#0", "note:a#0"]);
    for mood in [Mood::Refusing(500), Mood::Short, Mood::Doubled] {
        models.is(mood);
        let answer = ask(&running, asking("user:anne", "notes", text())).await.unwrap();
        let ids: Vec<&str> = answer.chunks.iter().map(|chunk| chunk.id.as_str()).collect();
        assert_eq!(ids, ["note:a#0", "note:b#0"], "{mood:?}");
        assert!(answer.chunks.iter().all(|chunk| chunk.rerank_score.is_none()), "{mood:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_ingests_learns_where_texts_go() {
    let data = tempfile::tempdir().unwrap();
    let models = ModelServer::start().await;
    let path = |name: &str| data.path().join(name).to_str().unwrap().to_owned();
    let settings = format!("[[embedding]]\ncollections = [\"notes\"]\nurl = \"{}\"\nmodel = \"small\"\n", models.url);
    std::fs::write(path("ragward.toml"), settings).unwrap();
    std::fs::create_dir(path("texts")).unwrap();
    std::fs::write(path("texts/leave.md"), "# Leave\n\nParental leave lasts a year.\n").unwrap();
    std::fs::write(path("store.fga.yaml"), store_file()).unwrap();
    let (config, store, directory) = (path("ragward.toml"), path("store.fga.yaml"), path("data"));
    let (texts, common) = (path("texts"), ["--config", &config, "--data", &directory]);
    succeeds(&[&["model", "load", &store][..], &common].concat());
    let guard = ["--collection", "notes", "--guard", "note:leave"];
    let told = succeeds(&[&["ingest", &texts][..], &guard, &common].concat());
    assert!(told.contains(&format!("sent the texts of 1 chunks to `{}`", models.host())), "{told}");
    let embedded = &json_of(&[&["ingest", &texts][..], &guard, &common].concat())["embedded"];
    assert_eq!(*embedded, json!({ "model": "small", "host": models.host(), "chunks": 1 }));
    let asked = ["retrieve", "--user", "user:anne", "--collection", "notes", "newborn"];
    let mut document_id = json!(null);
    for (by, found) in [("words", false), ("meaning", true), ("both", true)] {
        let answer = json_of(&[&asked[..], &["--by", by], &common].concat());
        assert_eq!(answer["chunks"][0]["text"].as_str().is_some(), found, "{by}: {answer}");
        if found {
            document_id = answer["chunks"][0]["document_id"].clone();
        }
    }
    // One question is measured in each way.
    let question = json!({ "query": "newborn", "user": "user:anne", "expect": [document_id] });
    std::fs::write(path("questions.jsonl"), question.to_string()).unwrap();
    let questions = path("questions.jsonl");
    for (by, recall) in [("words", 0.0), ("meaning", 1.0), ("both", 1.0)] {
        let measured = ["eval", &questions, "--collection", "notes", "--by", by];
        let report = json_of(&[&measured[..], &common].concat());
        assert_eq!(report["all"]["recall"], json!(recall), "{by}: {report}");
    }
    let refused = ragward(&[&asked[..], &["--by", "meaning", "--vector", "none.json"], &common].concat());
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

fn store_file() -> String {
    let model: String = format!("  {}\n", MODEL.trim().replace('\n', "\n  "));
    format!("model: |\n{model}tuples:\n  - {{ user: user:anne, relation: can_read, object: note:leave }}\n")
}
