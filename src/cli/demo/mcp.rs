//! `ragward demo --mcp`: one agent calls one tool for two people. It shows the messages as the protocol has them.

use std::path::Path;

use http_body_util::{BodyExt, Full};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Method, Request, header};
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt;

use super::issuer::Issuer;
use super::served::{ACTS_FOR, BearerToken, identity, while_serving};
use super::{ANNE, BOB, COLLECTION, EXCERPT_CHARACTERS, QUESTION, TOP_K, load, relationships, telling_sentence};
use crate::app::App;
use crate::cli::output::excerpt;
use crate::cli::{Failure, Output};
use crate::config::{Config, DataConfig};
use crate::language::RelationshipTuple;
use crate::server_config::{McpConfig, McpSearchBy, ServerConfig};
use crate::settings::Secret;
use crate::tuple_store::OnConflict;

/// The agent. The handbook lets it act for Anne, and the demo lets it act for Bob.
const AGENT: &str = "desk-helper";
const PATH: &str = "/mcp";
/// The parameter of a challenge that names the metadata document, up to its value (RFC 9728, section 5.1).
const METADATA: &str = "resource_metadata=\"";
const EXPLANATION: &str = "\
Both calls send the same message, which names nobody. The token says who asks: `sub` is the person, and `act` is the agent.
A result also has a text with the same JSON, for models that read nothing else.

docs/src/mcp.md says how a server opens the door, and how clients are set up.";

#[derive(Serialize)]
struct McpDemo {
    url: String,
    /// The message of the client, which is the same in each request.
    message: Value,
    /// The answer to a request without a token.
    refused: Challenge,
    metadata_url: String,
    /// The document that says where a client gets a token.
    metadata: Value,
    answers: Vec<Answer>,
}

#[derive(Serialize)]
struct Challenge {
    status: u16,
    www_authenticate: String,
}

/// The answer for the bearer of one token.
#[derive(Serialize)]
struct Answer {
    who: &'static str,
    /// The token's claims, without its issuer, its id and its times.
    claims: Value,
    /// The structured result of the tool.
    result: Value,
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    json: Value,
}

pub(super) async fn run(handbook: &Path, data: DataConfig, output: &Output) -> Result<(), Failure> {
    let issuer = Issuer::new().await?;
    // The address comes first, because the URL of the door is the audience of its tokens.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = format!("http://{}", listener.local_addr()?);
    let url = format!("{server}{PATH}");
    let app = App::open(&config(data, &issuer, &url)).await?;
    load(&app, handbook).await?.close().await;
    let acts_for_bob = RelationshipTuple::parse(&format!("agent:{AGENT}"), ACTS_FOR, BOB);
    let acts_for_bob = acts_for_bob.map_err(|e| Failure::failed(e.to_string()))?;
    relationships(&app)?.write_all(vec![acts_for_bob], OnConflict::Refuse)?;
    // The agent has a token for each person.
    let tokens = [("Anne", ANNE), ("Bob", BOB)].map(|(who, user)| BearerToken::new(&issuer, who, claims(user, &url)));
    let tokens = tokens.into_iter().collect::<Result<Vec<BearerToken>, Failure>>()?;
    let demo = Box::pin(while_serving(&app, listener, issuer.serve(), ask(&server, url, tokens))).await?;
    output.result(&demo, || people(&demo))
}

fn config(data: DataConfig, issuer: &Issuer, url: &str) -> Config {
    let mcp = McpConfig {
        url: url.to_owned(),
        collection: Some(COLLECTION.to_owned()),
        url_key: None,
        url_hosts: Vec::new(),
        search_by: McpSearchBy::Words,
        explain: false,
    };
    let server = ServerConfig { mcp: Some(mcp), ..ServerConfig::default() };
    Config { server, data, identity: identity(issuer), ..Config::default() }
}

fn claims(user: &str, url: &str) -> Value {
    let subject = user.trim_start_matches("user:");
    json!({
        "sub": subject, "aud": url, "client_id": "desk", "scope": "ragward:retrieve", "act": { "sub": AGENT },
    })
}

async fn ask(server: &str, url: String, tokens: Vec<BearerToken>) -> Result<McpDemo, Failure> {
    let endpoint = Endpoint::from_shared(server.to_owned()).map_err(|e| Failure::failed(e.to_string()))?;
    let channel = endpoint.connect_lazy();
    let arguments = json!({ "query": QUESTION, "top_k": TOP_K });
    let params = json!({ "name": "search", "arguments": arguments });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });

    let reply = post(&channel, &message, None).await?;
    let challenge = reply.headers.get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
    let refused = Challenge { status: reply.status, www_authenticate: challenge.unwrap_or_default().to_owned() };
    let metadata_url = refused.www_authenticate.split_once(METADATA).and_then(|(_, rest)| rest.split('"').next());
    let metadata_url = metadata_url.ok_or_else(|| Failure::failed("the door names no metadata document"))?.to_owned();
    let path = metadata_url.strip_prefix(server);
    let path = path.ok_or_else(|| Failure::failed("the metadata document is on another server"))?;
    let metadata = send(&channel, Request::get(path), Body::empty()).await?.json;

    let mut answers = Vec::with_capacity(tokens.len());
    for BearerToken { who, claims, token } in tokens {
        let mut reply = post(&channel, &message, Some(&token)).await?;
        let result = reply.json.pointer_mut("/result/structuredContent").map(Value::take);
        let result = result.ok_or_else(|| Failure::failed(format!("the tool failed: {}", reply.json)))?;
        answers.push(Answer { who, claims, result });
    }
    Ok(McpDemo { url, message, refused, metadata_url, metadata, answers })
}

async fn post(channel: &Channel, message: &Value, token: Option<&Secret>) -> Result<Reply, Failure> {
    let mut request =
        Request::builder().method(Method::POST).uri(PATH).header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
    }
    send(channel, request, Body::new(Full::from(message.to_string()))).await
}

/// Sends a request over HTTP/2, and reads its answer.
async fn send(
    channel: &Channel,
    request: tonic::codegen::http::request::Builder,
    body: Body,
) -> Result<Reply, Failure> {
    let request = request.body(body).map_err(|e| Failure::failed(e.to_string()))?;
    let response = channel.clone().oneshot(request).await.map_err(|e| Failure::failed(e.to_string()))?;
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    let json = serde_json::from_slice(&body).map_err(|e| Failure::failed(format!("the answer is no JSON: {e}")))?;
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, json })
}

fn people(demo: &McpDemo) -> String {
    let McpDemo { url, message, refused, metadata_url, metadata, answers } = demo;
    let mut parts = vec![
        format!("An agent calls a tool of {url}:\n\n{}", indented(message)),
        format!(
            "\nWithout a token it is refused ({}):\n\n  www-authenticate: {}",
            refused.status, refused.www_authenticate
        ),
        format!("\nThe document at {metadata_url} says where it gets one:\n\n{}", indented(metadata)),
    ];
    for Answer { who, claims, result } in answers {
        parts.push(format!(
            "\nIts token for {who} says\n\n  {claims}\n\nand the result is\n\n{}",
            indented(&short(result))
        ));
    }
    parts.push(format!("\n{EXPLANATION}"));
    parts.join("\n")
}

/// Returns a structured result with the sentence of each text that tells the most.
fn short(result: &Value) -> Value {
    let mut result = result.clone();
    let results = result.get_mut("results").and_then(Value::as_array_mut);
    for found in results.into_iter().flatten() {
        let text = found.get("text").and_then(Value::as_str).map(telling_sentence);
        // All fields are in the JSON of the demo.
        *found = json!({
            "id": found.get("id"),
            "title": found.get("title"),
            "text": excerpt(&text.unwrap_or_default(), EXCERPT_CHARACTERS),
        });
    }
    result
}

fn indented(json: &Value) -> String {
    let text = format!("{json:#}");
    let lines = text.lines().map(|line| format!("  {line}"));
    lines.collect::<Vec<String>>().join("\n")
}
