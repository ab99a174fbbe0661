//! `ragward retrieve`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::filter::FilterArgs;
use super::output::{excerpt, table};
use super::{Connection, Failure, Output};
use crate::proto::metadata;
use crate::proto::retrieval::retrieve_request::Query;
use crate::proto::retrieval::{self as message, RetrieveRequest, RetrieveResponse};

/// Characters of a chunk's text that a table shows.
const EXCERPT_CHARACTERS: usize = 160;

#[derive(Debug, Args)]
pub(super) struct RetrieveArgs {
    /// Who asks, `user:anne`.
    #[arg(long)]
    user: String,
    /// Where.
    #[arg(long)]
    collection: String,
    /// How many chunks.
    #[arg(long, default_value_t = 10)]
    top_k: u32,
    /// A file with an embedding, a JSON array of numbers, in place of words or beside them.
    #[arg(long, value_name = "FILE")]
    vector: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Leaves out chunks with a lower score.
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    min_score: Option<f64>,
    /// At most so many chunks of one document; 0: no limit.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    per_document_max: u32,
    /// Do not let the authorizer use its caches.
    #[arg(long)]
    higher_consistency: bool,
    #[command(flatten)]
    connection: Connection,
    /// What for.
    #[arg(required_unless_present = "vector")]
    query: Option<String>,
}

#[derive(Serialize)]
struct Shown<'a> {
    completion: &'a str,
    recall: &'a str,
    chunks: Vec<ShownChunk<'a>>,
}

#[derive(Serialize)]
struct ShownChunk<'a> {
    id: &'a str,
    document_id: &'a str,
    guard: &'a str,
    title: &'a str,
    score: f64,
    metadata: BTreeMap<&'a str, serde_json::Value>,
    text: &'a str,
}

pub(super) async fn run(args: RetrieveArgs, config: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    let query = match (args.query, args.vector) {
        (Some(text), None) => Query::Text(text),
        (None, Some(file)) => Query::Vector(read_vector(&file)?),
        (Some(text), Some(file)) => Query::Hybrid(message::Hybrid { text, vector: Some(read_vector(&file)?) }),
        (None, None) => return Err(Failure::usage("give a query or `--vector FILE`")),
    };
    let consistency = if args.higher_consistency {
        message::Consistency::HigherConsistency
    } else {
        message::Consistency::Unspecified
    };
    let request = RetrieveRequest {
        user: args.user,
        collection: args.collection,
        query: Some(query),
        top_k: args.top_k,
        filter: args.filter.read()?,
        min_score: args.min_score,
        per_document_max: args.per_document_max,
        consistency: consistency.into(),
    };
    let client = args.connection.open_existing(config).await?;
    let response = client.retrieval().retrieve(request).await?.into_inner();
    output.result(&shown(&response), || people(&response))
}

fn read_vector(file: &std::path::Path) -> Result<message::Vector, Failure> {
    let wrong = |e: String| Failure::usage(format!("`--vector {}`: {e}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| wrong(format!("cannot read it: {e}")))?;
    let malformed = |e| wrong(format!("it must hold one JSON array of numbers, as in `[0.25, -1.5]` ({e})"));
    let values = serde_json::from_str(&text).map_err(malformed)?;
    Ok(message::Vector { values })
}

fn shown(response: &RetrieveResponse) -> Shown<'_> {
    let chunks = response.chunks.iter().map(|chunk| ShownChunk {
        id: &chunk.id,
        document_id: &chunk.document_id,
        guard: &chunk.guard,
        title: &chunk.title,
        score: chunk.score,
        metadata: chunk.metadata.iter().map(|(key, value)| (key.as_str(), json_value(value))).collect(),
        text: &chunk.text,
    });
    Shown {
        completion: response.completion().as_str_name().trim_start_matches("COMPLETION_"),
        recall: response.recall().as_str_name().trim_start_matches("RECALL_"),
        chunks: chunks.collect(),
    }
}

fn json_value(value: &metadata::Value) -> serde_json::Value {
    match &value.kind {
        Some(metadata::value::Kind::BoolValue(value)) => (*value).into(),
        Some(metadata::value::Kind::IntValue(value)) => (*value).into(),
        Some(metadata::value::Kind::DoubleValue(value)) => (*value).into(),
        Some(metadata::value::Kind::StringValue(value)) => value.as_str().into(),
        None => serde_json::Value::Null,
    }
}

fn people(response: &RetrieveResponse) -> String {
    let rows = response.chunks.iter().zip(1..).map(|(chunk, rank)| {
        let what = format!("{}\n{}", chunk.title, excerpt(&chunk.text, EXCERPT_CHARACTERS));
        vec![rank.to_string(), format!("{:.3}", chunk.score), chunk.id.clone(), what]
    });
    let ended = match response.completion() {
        message::Completion::Complete => "COMPLETE",
        message::Completion::Exhausted => "EXHAUSTED: this user may see no more chunks that match",
        message::Completion::Limited => "LIMITED: a work limit stopped the search; there may be more",
        message::Completion::Unspecified => "the server did not say how it ended",
    };
    if response.chunks.is_empty() {
        ended.to_owned()
    } else {
        format!("{}\n{ended}", table(&["#", "score", "chunk", "text"], rows))
    }
}
