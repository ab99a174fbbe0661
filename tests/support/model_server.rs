//! A stand-in for the endpoints of models, in the forms of the `openai` SDK and of Cohere. It keeps what it was sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Words of like meaning. Each list is a direction of its own.
const MEANINGS: [&[&str]; 3] = [
    &["leave", "baby", "newborn", "parental", "red", "fox", "hen"],
    &["pay", "salary", "money", "moon", "salt"],
    &["rota", "pager", "incident", "river", "stone", "oak"],
];

/// The answers of the endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    /// They are right.
    #[default]
    Right,
    /// They have this status, and repeat what was sent.
    Refusing(u16),
    /// They lack one result.
    Short,
    /// They have one result twice.
    Doubled,
    /// Their vectors have another dimension.
    Longer,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    /// The headers, under their names in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

/// The running stand-in. It serves until the test ends.
#[derive(Clone)]
pub(crate) struct ModelServer {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    mood: Arc<Mutex<Mood>>,
}

impl ModelServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let server = Self { url, asked: Arc::default(), mood: Arc::default() };
        let shown = server.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(shown.clone().serve(connection));
            }
        });
        server
    }

    pub(crate) fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Returns the requests that came since the last look.
    pub(crate) fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// Returns the host and port.
    pub(crate) fn host(&self) -> &str {
        self.url.trim_start_matches("http://").trim_end_matches("/v1")
    }

    async fn serve(self, mut connection: TcpStream) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?;
        let headers = head.lines().filter_map(|line| line.split_once(": "));
        let headers: BTreeMap<String, String> =
            headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let length = headers.get("content-length")?.parse().ok()?;
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await.ok()?;
        let path = head.split(' ').nth(1)?.to_owned();
        let body: Value = serde_json::from_slice(&body).ok()?;
        self.asked.lock().unwrap().push(Asked { path: path.clone(), headers, body: body.clone() });
        let mood = *self.mood.lock().unwrap();
        let (status, answer) = match mood {
            Mood::Refusing(status) => (status, body.to_string()),
            Mood::Right | Mood::Short | Mood::Doubled | Mood::Longer => (200, answer(mood, &path, &body)?.to_string()),
        };
        let length = answer.len();
        let headers = format!("connection: close\r\ncontent-type: application/json\r\ncontent-length: {length}");
        let answer = format!("HTTP/1.1 {status} x\r\n{headers}\r\n\r\n{answer}");
        connection.write_all(answer.as_bytes()).await.ok()?;
        connection.shutdown().await.ok()
    }
}

fn answer(mood: Mood, path: &str, body: &Value) -> Option<Value> {
    let texts = |name: &str| {
        let texts = body.get(name)?.as_array()?.iter();
        texts.map(|text| text.as_str().map(str::to_owned)).collect::<Option<Vec<String>>>()
    };
    let spoilt = |mut results: Vec<Value>| {
        match mood {
            Mood::Short => drop(results.pop()),
            Mood::Doubled => {
                if let (Some(first), Some(last)) = (results.first().cloned(), results.last_mut()) {
                    *last = first;
                }
            }
            Mood::Right | Mood::Refusing(_) | Mood::Longer => {}
        }
        results
    };
    if path.ends_with("/rerank") {
        let scored = texts("documents")?.into_iter().enumerate();
        let results = scored.map(|(index, text)| json!({ "index": index, "relevance_score": score(&text) })).collect();
        return Some(json!({ "id": "1", "results": spoilt(results) }));
    }
    let embedded = texts("input")?.into_iter().enumerate();
    let data = embedded.map(|(index, text)| {
        let mut embedding = vector(&text);
        if mood == Mood::Longer {
            embedding.push(1.0);
        }
        json!({ "object": "embedding", "index": index, "embedding": embedding })
    });
    let model = body.get("model")?;
    Some(json!({ "object": "list", "data": spoilt(data.collect()), "model": model, "usage": { "total_tokens": 1 } }))
}

/// Returns the vector of a text: how many of its words have each meaning.
fn vector(text: &str) -> Vec<f64> {
    let text = text.to_lowercase();
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
    let of_meaning = |meaning: &&[&str]| exact(words.iter().filter(|word| meaning.contains(word)).count());
    MEANINGS.iter().map(of_meaning).chain([0.1]).collect()
}

/// Returns the score of a text: how often it says `gold`.
fn score(text: &str) -> f64 {
    exact(text.matches("gold").count())
}

fn exact(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}
