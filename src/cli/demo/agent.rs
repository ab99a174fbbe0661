//! `ragward demo --agent`: one request with four access tokens. The token alone says who asks, and through whom.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::issuer::Issuer;
use super::served::{AUDIENCE, BearerToken, identity, while_serving};
use super::{FoundChunk, QUESTION, found_chunks, load, request};
use crate::app::App;
use crate::audit::{AuditKey, Event, Record, read_log};
use crate::cli::output::{excerpt, table};
use crate::cli::{Failure, Output};
use crate::client::Client;
use crate::config::{Config, DataConfig};

/// The number of characters of a digest that are shown.
pub(super) const DIGEST_CHARACTERS: usize = 12;
const EXPLANATION: &str = "\
The four requests are the same and name nobody. A chunk is released only if Anne may read it, the agent may act for
Anne, and the details of the token allow it. The handbook lets desk-helper act for engineers, of whom Anne is one; it lets
inbox-sorter act for nobody. Details grant nothing: Anne may not read the pay bands.

docs/src/identity.md says how a server takes the tokens of your issuer.";

#[derive(Serialize)]
struct AgentDemo<'a> {
    question: &'static str,
    answers: &'a [Answer],
    /// The records of the requests in the audit log.
    records: &'a [Record],
}

/// The answer for the bearer of one token.
#[derive(Serialize)]
struct Answer {
    who: &'static str,
    /// The token's claims, without its issuer, its id and its times.
    claims: Value,
    completion: String,
    chunks: Vec<FoundChunk>,
}

pub(super) async fn run(handbook: &Path, data: DataConfig, output: &Output) -> Result<(), Failure> {
    let issuer = Issuer::new().await?;
    let config = Config { data, identity: identity(&issuer), ..Config::default() };
    let app = App::open(&config).await?;
    load(&app, handbook).await?.close().await;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = format!("http://{}", listener.local_addr()?);
    let tokens = tokens(&issuer)?;
    let answers = Box::pin(while_serving(&app, listener, issuer.serve(), ask_with_each(&server, tokens))).await?;
    let records = records(&config)?;
    output
        .result(&AgentDemo { question: QUESTION, answers: &answers, records: &records }, || people(&answers, &records))
}

fn tokens(issuer: &Issuer) -> Result<Vec<BearerToken>, Failure> {
    let of_anne = json!({"sub": "anne", "aud": AUDIENCE, "client_id": "desk", "scope": "ragward:retrieve"});
    let with = |more: Value| {
        let mut claims = of_anne.clone();
        if let (Some(claims), Value::Object(more)) = (claims.as_object_mut(), more) {
            claims.extend(more);
        }
        claims
    };
    let details = json!([{
        "type": "ragward_retrieval",
        "identifiers": ["document:parental-leave", "document:pay-bands"],
        "purpose": "answer a question about parental leave",
    }]);
    let bearers = [
        ("Anne", of_anne.clone()),
        ("desk-helper for Anne", with(json!({"act": {"sub": "desk-helper"}}))),
        ("the same, for two pages", with(json!({"act": {"sub": "desk-helper"}, "authorization_details": details}))),
        ("inbox-sorter for Anne", with(json!({"act": {"sub": "inbox-sorter"}}))),
    ];
    bearers.into_iter().map(|(who, claims)| BearerToken::new(issuer, who, claims)).collect()
}

/// Returns the records of the requests. Each record is kept before its answer leaves.
pub(super) fn records(config: &Config) -> Result<Vec<Record>, Failure> {
    let audit = config.audit.resolved(&config.data.directory);
    let mut records = Vec::new();
    let report = read_log(&audit.directory, &AuditKey::read(&audit.key_file)?, |_file, _line, entry| {
        if let Event::Record(record) = &entry.event {
            records.push((**record).clone());
        }
    })?;
    if report.is_intact() { Ok(records) } else { Err(Failure::failed("the demo's audit log is not intact")) }
}

async fn ask_with_each(server: &str, tokens: Vec<BearerToken>) -> Result<Vec<Answer>, Failure> {
    let mut answers = Vec::with_capacity(tokens.len());
    for BearerToken { who, claims, token } in tokens {
        let client = Client::with_token(server, &token).map_err(|e| Failure::failed(e.to_string()))?;
        let response = client.retrieval().retrieve(request("")).await?.into_inner();
        let completion = response.completion().as_str_name().trim_start_matches("COMPLETION_").to_owned();
        answers.push(Answer { who, claims, completion, chunks: found_chunks(response) });
    }
    Ok(answers)
}

fn people(answers: &[Answer], records: &[Record]) -> String {
    let header: Vec<&str> = answers.iter().map(|answer| answer.who).collect();
    let ranks = answers.iter().map(|answer| answer.chunks.len()).max().unwrap_or_default();
    let title = |answer: &Answer, rank: usize| answer.chunks.get(rank).map(|c| c.title.clone()).unwrap_or_default();
    let pages = (0..ranks).map(|rank| answers.iter().map(|answer| title(answer, rank)).collect());
    let ended = answers.iter().map(|answer| format!("({} chunks, {})", answer.chunks.len(), answer.completion));
    let claim = |answer: &Answer, name: &str| answer.claims.get(name).map(Value::to_string).unwrap_or_default();
    let claims = answers.iter().map(|answer| {
        let said = ["sub", "act", "authorization_details"].map(|name| claim(answer, name));
        [answer.who.to_owned()].into_iter().chain(said).collect()
    });
    let recorded = ["for", "through", "purpose", "code", "released", "withheld", "query"];
    [
        format!("One question with four access tokens: {QUESTION}\n"),
        table(&header, pages.chain([ended.collect()])),
        "\nWhat the tokens say:\n".to_owned(),
        table(&["bearer", "sub", "act", "authorization_details"], claims),
        "\nWhat the audit log keeps of the four (the query and the token are digests, which only the log's key can make):\n"
            .to_owned(),
        table(&recorded, records.iter().map(row)),
        format!("\n{EXPLANATION}"),
    ]
    .join("\n")
}

fn row(record: &Record) -> Vec<String> {
    let principal = record.principal.clone().unwrap_or_default();
    let decision = record.decision.clone().unwrap_or_default();
    let released = record.released.clone().unwrap_or_default();
    let query = record.request.clone().unwrap_or_default().query_digest.unwrap_or_default();
    vec![
        principal.subject.unwrap_or_default(),
        principal.actors.join(", "),
        principal.purposes.join(", "),
        record.code.clone(),
        released.chunk_ids.join("\n"),
        decision.withheld.map(|withheld| withheld.to_string()).unwrap_or_default(),
        excerpt(&query, DIGEST_CHARACTERS),
    ]
}
