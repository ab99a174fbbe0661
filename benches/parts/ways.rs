//! The ways to ask a server on kept connections: gRPC, or JSON over HTTP/1.1, plain or over TLS.

use ragward::proto::retrieval::retrieval_service_client::RetrievalServiceClient;
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{RecheckRequest, RetrieveRequest};
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};

use super::ports::{COLLECTION, Corpus, Ports};
use crate::support::certificates::NAME;
use crate::support::questions::QUERIES;

/// A kind of door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Grpc,
    Json,
}

/// Whether a way goes over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    Plain,
    Tls,
}

/// One way to ask. Clones share their connections: gRPC has one for all callers, HTTP/1.1 one for each that asks at a time.
#[derive(Clone)]
pub(crate) enum Way {
    Grpc(RetrievalServiceClient<Channel>),
    Json {
        client: reqwest::Client,
        /// The address of the server: `http://127.0.0.1:8980`.
        base: String,
    },
}

impl Way {
    pub(crate) async fn open(ports: &Ports, door: Door, security: Security) -> Self {
        match (door, security) {
            (Door::Grpc, Security::Plain) => {
                let endpoint = Endpoint::from_shared(format!("http://{}", ports.plain)).unwrap();
                Self::Grpc(RetrievalServiceClient::new(endpoint.connect().await.unwrap()))
            }
            (Door::Grpc, Security::Tls) => {
                let channel = ports.authority.channel(ports.secured, None).await.unwrap();
                Self::Grpc(RetrievalServiceClient::new(channel))
            }
            (Door::Json, Security::Plain) => {
                let client = reqwest::Client::builder().http1_only().no_proxy().build().unwrap();
                Self::Json { client, base: format!("http://{}", ports.plain) }
            }
            (Door::Json, Security::Tls) => {
                let client = reqwest::Client::builder().http1_only().no_proxy().resolve(NAME, ports.secured);
                let client = client.tls_backend_preconfigured(ports.authority.client(None)).build().unwrap();
                Self::Json { client, base: format!("https://{NAME}:{}", ports.secured.port()) }
            }
        }
    }

    /// Asks for ten chunks with their texts. Returns how many came. The answer is read to its end, and parsed as gRPC's client
    /// does.
    pub(crate) async fn retrieve(&self, corpus: &Corpus, number: usize) -> Result<usize, String> {
        let user = &corpus.people[number % corpus.people.len()];
        let text = QUERIES[(number / corpus.people.len()) % QUERIES.len()];
        match self {
            Self::Grpc(client) => {
                let request = RetrieveRequest {
                    user: user.clone(),
                    collection: COLLECTION.to_owned(),
                    query: Some(Query::Text(text.to_owned())),
                    top_k: 10,
                    ..RetrieveRequest::default()
                };
                let answer = client.clone().retrieve(request).await.map_err(|status| status.to_string())?;
                Ok(answer.into_inner().chunks.len())
            }
            Self::Json { client, base } => {
                let url = format!("{base}/v1/collections/{COLLECTION}/retrieve");
                let answer = post(client, &url, &json!({ "user": user, "text": text, "topK": 10 })).await?;
                answer["chunks"].as_array().map(Vec::len).ok_or_else(|| format!("no chunks: {answer}"))
            }
        }
    }

    /// Asks whether one chunk may be seen, which costs the server little beside the request itself.
    pub(crate) async fn recheck(&self, corpus: &Corpus, number: usize) -> Result<(), String> {
        match self {
            Self::Grpc(client) => {
                let (user, chunk_id) = asked(corpus, number);
                let request = RecheckRequest {
                    user: user.to_owned(),
                    collection: COLLECTION.to_owned(),
                    chunk_ids: vec![chunk_id.to_owned()],
                    ..RecheckRequest::default()
                };
                client.clone().recheck(request).await.map(drop).map_err(|status| status.to_string())
            }
            Self::Json { client, base } => {
                post(client, &format!("{base}{}", recheck_path()), &recheck_body(corpus, number)).await.map(drop)
            }
        }
    }
}

/// Returns the user and the chunk of a re-check.
fn asked(corpus: &Corpus, number: usize) -> (&str, &str) {
    (&corpus.people[number % corpus.people.len()], &corpus.chunk_ids[number % corpus.chunk_ids.len()])
}

/// Returns the path of a re-check over HTTP.
pub(crate) fn recheck_path() -> String {
    format!("/v1/collections/{COLLECTION}/recheck")
}

/// Returns the body of a re-check over HTTP.
pub(crate) fn recheck_body(corpus: &Corpus, number: usize) -> Value {
    let (user, chunk_id) = asked(corpus, number);
    json!({ "user": user, "chunkIds": [chunk_id] })
}

async fn post(client: &reqwest::Client, url: &str, body: &Value) -> Result<Value, String> {
    let request = client.post(url).header("content-type", "application/json").body(body.to_string());
    let answer = request.send().await.and_then(reqwest::Response::error_for_status);
    // The text of the error alone does not say why.
    let bytes = answer.map_err(|e| format!("{e:?}"))?.bytes().await.map_err(|e| format!("{e:?}"))?;
    serde_json::from_slice(&bytes).map_err(|e| e.to_string())
}
