//! Endpoints that answer wrongly, late, or with too much. The stand-in checks that requests have the shape of the `openai` SDK.

use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::chunk::{Chunk, Value as MetadataValue};
use crate::language::Object;

/// An answer of the stand-in, as it goes over the wire.
#[derive(Clone)]
enum Reply {
    /// A status with more headers, each with a line end, and a body.
    Now(u16, &'static str, String),
    /// Nothing is ever answered.
    Never,
}

/// An endpoint that gives one reply after the other, the last one again and again.
struct StandIn {
    url: String,
    /// The head and the body of each request.
    requests: Arc<Mutex<Vec<(String, Value)>>>,
}

impl StandIn {
    async fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (seen, replies) = (Arc::clone(&seen), replies.clone());
                tokio::spawn(async move { answer(connection, &seen, &replies).await });
            }
        });
        Self { url, requests }
    }

    fn embedder(&self, more: &Value) -> HttpEmbedder {
        let mut settings = json!({ "collections": ["handbook"], "url": self.url, "model": "small", "timeout": "60s" });
        for (key, value) in more.as_object().unwrap() {
            settings[key] = value.clone();
        }
        HttpEmbedder::new(&serde_json::from_value(settings).unwrap()).unwrap()
    }

    fn requests(&self) -> Vec<(String, Value)> {
        self.requests.lock().unwrap().clone()
    }
}

async fn answer(mut connection: TcpStream, seen: &Mutex<Vec<(String, Value)>>, replies: &[Reply]) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await.ok()?;
    let reply = {
        let mut seen = seen.lock().unwrap();
        seen.push((head, serde_json::from_slice(&body).ok()?));
        replies.get(seen.len() - 1).or(replies.last()).cloned()?
    };
    let Reply::Now(status, headers, body) = reply else { return std::future::pending().await };
    let length = body.len();
    let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n");
    connection.write_all(head.as_bytes()).await.ok()?;
    connection.write_all(body.as_bytes()).await.ok()?;
    connection.shutdown().await.ok()
}

fn ok(body: &Value) -> Reply {
    Reply::Now(200, "content-type: application/json\r\n", body.to_string())
}

fn data(vectors: &[(usize, Value)]) -> Reply {
    let data: Vec<Value> = vectors
        .iter()
        .map(|(index, vector)| json!({ "object": "embedding", "index": index, "embedding": vector }))
        .collect();
    ok(&json!({ "object": "list", "data": data, "model": "small-1", "usage": { "total_tokens": 2 } }))
}

#[tokio::test]
async fn only_whole_answers_count() {
    type Row<'a> = (&'a str, Reply, Result<Vec<Vec<f32>>, ModelFault>);
    let right = || vec![vec![1.0, 0.0], vec![0.0, 1.0]];
    let (x, y) = (json!([1.0, 0.0]), json!([0.0, 1.0]));
    let raw = |body: &str| Reply::Now(200, "", body.to_owned());
    let status = |status: u16| Reply::Now(status, "", "canary-93".to_owned());
    let large = format!(r#"{{"data": [], "filler": "{}"}}"#, "x".repeat(10 * 1_024 * 1_024));
    let rows: Vec<Row<'_>> = vec![
        ("right", data(&[(0, x.clone()), (1, y.clone())]), Ok(right())),
        ("in another order", data(&[(1, y.clone()), (0, x.clone())]), Ok(right())),
        ("whole numbers", data(&[(0, json!([1, 0])), (1, json!([0, 1]))]), Ok(right())),
        ("short", data(&[(0, x.clone())]), Err(ModelFault::Count)),
        ("long", data(&[(0, x.clone()), (1, y.clone()), (2, x.clone())]), Err(ModelFault::Count)),
        ("empty", data(&[]), Err(ModelFault::Count)),
        ("doubled", data(&[(0, x.clone()), (0, y.clone())]), Err(ModelFault::Index)),
        ("of a text that was not sent", data(&[(0, x.clone()), (2, y.clone())]), Err(ModelFault::Index)),
        ("zero", data(&[(0, x.clone()), (1, json!([0.0, 0.0]))]), Err(ModelFault::Number)),
        (
            "NaN",
            raw(r#"{"data": [{"index": 0, "embedding": [NaN, 1]}, {"index": 1, "embedding": [1, 1]}]}"#),
            Err(ModelFault::Form),
        ),
        ("too large for the type", data(&[(0, x.clone()), (1, json!([1e300, 1.0]))]), Err(ModelFault::Form)),
        ("no number", data(&[(0, x.clone()), (1, json!(["1", 0]))]), Err(ModelFault::Form)),
        ("null", data(&[(0, x.clone()), (1, json!(null))]), Err(ModelFault::Form)),
        ("base64", data(&[(0, x.clone()), (1, json!("AACAPw=="))]), Err(ModelFault::Form)),
        ("another dimension", data(&[(0, x.clone()), (1, json!([1.0, 0.0, 0.0]))]), Err(ModelFault::Dimension)),
        ("no dimension", data(&[(0, json!([])), (1, json!([]))]), Err(ModelFault::Dimension)),
        (
            "a negative index",
            raw(r#"{"data": [{"index": -1, "embedding": [1]}, {"index": 1, "embedding": [1]}]}"#),
            Err(ModelFault::Form),
        ),
        ("a member twice", raw(r#"{"data": [], "data": []}"#), Err(ModelFault::Form)),
        (
            "HTML",
            Reply::Now(200, "content-type: text/html\r\n", "<html>canary-93</html>".to_owned()),
            Err(ModelFault::Form),
        ),
        ("nothing", raw(""), Err(ModelFault::Form)),
        ("10 MB", raw(&large), Err(ModelFault::TooLarge)),
        ("no content", status(204), Err(ModelFault::Status(204))),
        ("a redirect", Reply::Now(307, "location: /v2/embeddings\r\n", String::new()), Err(ModelFault::Status(307))),
        ("a wrong key", status(401), Err(ModelFault::Status(401))),
        ("a wrong request", status(400), Err(ModelFault::Status(400))),
        ("a broken endpoint", status(500), Err(ModelFault::Status(500))),
    ];
    for (row, reply, expected) in rows {
        let stand_in = StandIn::start(vec![reply]).await;
        let found = stand_in.embedder(&json!({})).embed(&["leave", "pay"]).await;
        assert_eq!(found, expected, "{row}");
        assert_eq!(stand_in.requests().len(), 1, "{row}: nothing is sent twice, nor to a redirect's place");
        assert!(!found.err().map(|fault| fault.to_string()).unwrap_or_default().contains("canary"), "{row}");
    }
}

#[tokio::test]
async fn a_request_that_was_not_taken_is_sent_again() {
    let taken = || data(&[(0, json!([1.0, 0.0]))]);
    let busy = |status: u16, headers: &'static str| Reply::Now(status, headers, String::new());
    let at_once = "retry-after: 0\r\n";
    let rows = [
        ("once busy", vec![busy(429, at_once), taken()], 2, None),
        ("twice busy", vec![busy(429, at_once), busy(503, at_once), taken()], 3, None),
        ("always busy", vec![busy(429, at_once)], 3, Some(ModelFault::Status(429))),
        ("busy without a time", vec![busy(429, ""), taken()], 2, None),
        ("busy until a date", vec![busy(503, "retry-after: Tue, 01 Dec 2026 00:00:00 GMT\r\n"), taken()], 2, None),
        ("busy for long", vec![busy(429, "retry-after: 3600\r\n"), taken()], 1, Some(ModelFault::Status(429))),
        ("broken", vec![busy(500, at_once), taken()], 1, Some(ModelFault::Status(500))),
    ];
    for (row, replies, requests, expected) in rows {
        let stand_in = StandIn::start(replies).await;
        let found = stand_in.embedder(&json!({})).embed(&["leave"]).await;
        assert_eq!(found.err(), expected, "{row}");
        assert_eq!(stand_in.requests().len(), requests, "{row}");
    }
}

#[tokio::test]
async fn a_slow_answer_does_not_count_and_is_not_asked_for_again() {
    let stand_in = StandIn::start(vec![Reply::Never]).await;
    let found = stand_in.embedder(&json!({ "timeout": "100ms" })).embed(&["leave"]).await;
    assert_eq!(found, Err(ModelFault::Unreachable));
    assert_eq!(stand_in.requests().len(), 1);
}

#[tokio::test]
async fn nobody_there_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let nobody = StandIn { url, requests: Arc::default() };
    assert_eq!(nobody.embedder(&json!({})).embed(&["leave"]).await, Err(ModelFault::Unreachable));
}

#[tokio::test]
async fn requests_have_the_shape_of_the_sdk() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "canary-93-key\n").unwrap();
    let rows = [
        ("the least", json!({}), json!({ "model": "small", "input": ["leave"], "encoding_format": "float" }), false),
        (
            "all",
            json!({ "dimensions": 2, "api_key_file": key }),
            json!({ "model": "small", "input": ["leave"], "encoding_format": "float", "dimensions": 2 }),
            true,
        ),
    ];
    for (row, settings, expected, has_key) in rows {
        let stand_in = StandIn::start(vec![data(&[(0, json!([1.0, 0.0]))])]).await;
        stand_in.embedder(&settings).embed(&["leave"]).await.expect(row);
        let requests = stand_in.requests();
        let [(head, body)] = requests.as_slice() else { panic!("{row}: {requests:?}") };
        assert_eq!(*body, expected, "{row}");
        assert!(head.starts_with("post /v1/embeddings http/1.1\r\n"), "{row}: {head}");
        assert!(head.contains("content-type: application/json\r\n"), "{row}: {head}");
        assert_eq!(head.contains("authorization: bearer canary-93-key\r\n"), has_key, "{row}: {head}");
    }
    let stand_in = StandIn::start(vec![data(&[(0, json!([1.0, 0.0]))])]).await;
    let found = stand_in.embedder(&json!({ "dimensions": 3 })).embed(&["leave"]).await;
    assert_eq!(found, Err(ModelFault::Dimension), "an answer of another dimension than the settings say");
}

#[test]
fn requests_are_bounded_by_number_and_bytes() {
    let (long, longest) = ("x".repeat(REQUEST_BYTES_MAX / 2), "x".repeat(2 * REQUEST_BYTES_MAX));
    let rows: [(&str, Vec<&str>, usize, usize); 5] = [
        ("few", vec!["a", "b"], 64, 2),
        ("many", vec!["a"; 100], 64, 64),
        ("long ones", vec![&long, &long, "a"], 64, 2),
        ("one that is too long by itself", vec![&longest, "a"], 64, 1),
        ("one at a time", vec!["a", "b"], 1, 1),
    ];
    for (row, texts, texts_max, expected) in rows {
        assert_eq!(batch_len(&texts, texts_max), expected, "{row}");
    }
}

/// Gives each text its length as a vector, and keeps the texts.
#[derive(Default)]
struct Kept(Mutex<Vec<String>>);

#[async_trait]
impl Embedder for Kept {
    async fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ModelFault> {
        self.0.lock().unwrap().extend(texts.iter().map(|text| (*text).to_owned()));
        Ok(texts.iter().map(|_| vec![1.0]).collect())
    }
}

/// Keeps the ids of chunks that were sent.
#[derive(Default)]
struct KeptIds(Mutex<Vec<String>>);

impl SentRecord for KeptIds {
    fn about_to_send(&self, sent: SentTexts<'_>) -> Result<(), ModelFault> {
        assert_eq!((sent.texts, sent.model, sent.host), (sent.chunk_ids.len(), "small", "models.example"));
        self.0.lock().unwrap().extend(sent.chunk_ids.iter().cloned());
        Ok(())
    }
}

#[tokio::test]
async fn chunks_above_the_ceiling_keep_their_texts_here() {
    let chunk = |id: &str, text: &str, class: Option<&str>| {
        let mut chunk = Document::of_text(id, Object::parse("document:leave").unwrap(), text).chunks.remove(0);
        let class = class.map(|class| ("class".to_owned(), MetadataValue::Text(class.to_owned())));
        chunk.metadata = class.into_iter().collect();
        chunk
    };
    let many = (0..TEXTS_MAX).map(|number| chunk(&format!("many#{number}"), "more", Some("open")));
    let few = [
        chunk("open", "parental leave", Some("open")),
        chunk("secret", "canary-93", Some("secret")),
        chunk("unknown", "canary-93", None),
        chunk("blank", " \n", Some("open")),
    ];
    let chunks: Vec<Chunk> = few.into_iter().chain(many).collect();
    let document = |title: &str| Document { id: "leave".to_owned(), title: title.to_owned(), chunks: chunks.clone() };
    let mut documents = [document("Leave")];
    let (kept, ids) = (Arc::new(Kept::default()), KeptIds::default());
    let admitted = ["open".to_owned()].into();
    let ceiling = Ceiling::Of { key: "class".to_owned(), admitted };
    let embedder = CollectionEmbedder::new(Arc::clone(&kept) as _, "small", Some("models.example"), ceiling);
    let count = embedder.embed_documents(&mut documents, &ids).await.unwrap();
    assert_eq!(count, TEXTS_MAX + 1);
    let with_vector: Vec<&str> =
        documents[0].chunks.iter().filter(|chunk| !chunk.vector.is_empty()).map(|chunk| chunk.id.as_str()).collect();
    assert_eq!(with_vector, ids.0.lock().unwrap().as_slice(), "the record names what was sent");
    let texts = kept.0.lock().unwrap().clone();
    assert_eq!(texts[0], "Leave\n\nparental leave", "the title stands before the text");
    assert!(!texts.iter().any(|text| text.contains("canary-93")));
}

/// Lets nothing be sent.
struct Closed;

impl SentRecord for Closed {
    fn about_to_send(&self, _sent: SentTexts<'_>) -> Result<(), ModelFault> {
        Err(ModelFault::Unrecorded)
    }
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_sent() {
    let rows = [("an endpoint", Some("models.example"), true), ("a model that computes here", None, false)];
    for (row, host, is_refused) in rows {
        let kept = Arc::new(Kept::default());
        let embedder = CollectionEmbedder::new(Arc::clone(&kept) as _, "small", host, Ceiling::None);
        let unrecorded = Some(embedder.failed(ModelFault::Unrecorded)).filter(|_| is_refused);
        assert_eq!(embedder.embed_query("leave", &Closed).await.err(), unrecorded, "{row}");
        let mut documents = [Document::of_text("leave", Object::parse("document:leave").unwrap(), "parental leave")];
        assert_eq!(embedder.embed_documents(&mut documents, &Closed).await.err(), unrecorded, "{row}");
        assert_eq!(kept.0.lock().unwrap().is_empty(), is_refused, "{row}");
    }
}

#[tokio::test]
async fn an_answer_may_be_as_large_as_its_vectors() {
    let vector = |numbers: usize| json!(vec![-1.0_f64 / 30_000.0; numbers]);
    let wide = |texts: usize| data(&(0..texts).map(|index| (index, vector(4_096))).collect::<Vec<_>>());
    let spaced = |body: &str, spaces: usize| Reply::Now(200, "", format!("{}{body}", " ".repeat(spaces)));
    let one = r#"{"data": [{"index": 0, "embedding": [1]}]}"#;
    let rows = [
        ("one vector", 1, wide(1), None),
        ("a whole request of them", 120, wide(120), None),
        ("white space", 1, spaced(one, 100_000), None),
        ("too much of it for one vector", 1, spaced(one, 200_000), Some(ModelFault::TooLarge)),
    ];
    for (row, texts, reply, expected) in rows {
        let stand_in = StandIn::start(vec![reply]).await;
        let found = stand_in.embedder(&json!({ "batch": 120 })).embed(&vec!["leave"; texts]).await;
        assert_eq!(found.err(), expected, "{row}");
    }
}
