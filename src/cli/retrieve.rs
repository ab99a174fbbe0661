//! `ragward retrieve`: asks for chunks as a user.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::approval::ApprovalArgs;
use super::chunks::{ChunkJson, shown};
use super::consistency::ConsistencyArgs;
use super::filter::FilterArgs;
use super::output::table;
use super::ranking::By;
use super::request_context::RequestContextArgs;
use super::{Connection, Failure, Output};
use crate::client;
use crate::proto::retrieval::retrieve_request::Query;
use crate::proto::retrieval::{self as message, RetrieveRequest, RetrieveResponse};

#[derive(Debug, Args)]
pub(super) struct RetrieveArgs {
    /// The user who asks, such as `user:anne`. It may be left out if an access token names the user.
    #[arg(long)]
    user: Option<String>,
    /// The collection to search.
    #[arg(long)]
    collection: String,
    /// The number of chunks to find.
    #[arg(long, default_value_t = 10)]
    top_k: u32,
    /// A file with an embedding to search by, alone or together with the search text. It holds a JSON array of numbers.
    #[arg(long, value_name = "FILE")]
    vector: Option<PathBuf>,
    /// Search by the words of the text, by its meaning, or by both. Meaning needs a model (`embedding`) for the collection.
    #[arg(long, value_enum, default_value_t = By::Words, conflicts_with = "vector")]
    by: By,
    #[command(flatten)]
    filter: FilterArgs,
    /// Leave out chunks with a lower score.
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    min_score: Option<f64>,
    /// Return at most this many chunks of one document; 0 means no limit.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    per_document_max: u32,
    /// Return only chunks of this classification or a lower one.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    classification_max: String,
    #[command(flatten)]
    context: RequestContextArgs,
    #[command(flatten)]
    approval: ApprovalArgs,
    #[command(flatten)]
    consistency: ConsistencyArgs,
    /// Return one page: `first` for the first page, or the token that the page before ended with.
    #[arg(long, value_name = "TOKEN")]
    page: Option<String>,
    /// Show how the search went, if `retrieval.explain_plan` allows it.
    #[arg(long)]
    explain_plan: bool,
    #[command(flatten)]
    connection: Connection,
    /// The search text.
    #[arg(required_unless_present = "vector")]
    query: Option<String>,
}

#[derive(Serialize)]
struct RetrievalJson<'a> {
    completion: &'a str,
    recall: &'a str,
    chunks: Vec<ChunkJson<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    next_page_token: &'a str,
    consistency_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<PlanJson>,
}

#[derive(Serialize)]
struct PlanJson {
    estimated_share: Option<f64>,
    rounds: Vec<RoundJson>,
}

#[derive(Serialize)]
struct RoundJson {
    plan: &'static str,
    limit: u64,
    candidates: u64,
    permitted: u64,
    milliseconds: f64,
}

pub(super) async fn run(args: RetrieveArgs, config: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    let query = match (args.query, args.vector) {
        (Some(text), None) => args.by.query(text),
        (None, Some(file)) => Query::Vector(read_vector(&file)?),
        (Some(text), Some(file)) => Query::Hybrid(message::Hybrid { text, vector: Some(read_vector(&file)?) }),
        (None, None) => return Err(Failure::usage("give a query or `--vector FILE`")),
    };
    let (consistency, consistency_token) = args.consistency.read();
    let request = RetrieveRequest {
        user: args.connection.asker(args.user)?,
        approval: String::new(),
        collection: args.collection,
        query: Some(query),
        top_k: args.top_k,
        filter: args.filter.read()?,
        min_score: args.min_score,
        per_document_max: args.per_document_max,
        consistency: consistency.into(),
        page_token: args.page.map(|token| if token == "first" { String::new() } else { token }),
        explain_plan: args.explain_plan,
        consistency_token,
        classification_max: args.classification_max,
        context: args.context.read()?,
    };
    let services = args.connection.open_existing(config).await?;
    let answer = args.approval.send(request, services.client()).await?;
    services.close().await;
    let token = client::consistency_token(&answer).to_owned();
    let response = answer.into_inner();
    output.result(&retrieval_json(&response, &token), || people(&response, args.explain_plan))
}

fn read_vector(file: &std::path::Path) -> Result<message::Vector, Failure> {
    let wrong = |e: String| Failure::usage(format!("`--vector {}`: {e}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| wrong(format!("cannot read it: {e}")))?;
    let malformed = |e| wrong(format!("it must hold one JSON array of numbers, as in `[0.25, -1.5]` ({e})"));
    let values = serde_json::from_str(&text).map_err(malformed)?;
    Ok(message::Vector { values })
}

fn retrieval_json<'a>(response: &'a RetrieveResponse, consistency_token: &'a str) -> RetrievalJson<'a> {
    RetrievalJson {
        completion: response.completion().as_str_name().trim_start_matches("COMPLETION_"),
        recall: response.recall().as_str_name().trim_start_matches("RECALL_"),
        chunks: response.chunks.iter().map(ChunkJson::ranked).collect(),
        next_page_token: &response.next_page_token,
        consistency_token,
        plan: response.plan.as_ref().map(|report| PlanJson {
            estimated_share: report.estimated_share,
            rounds: report.rounds.iter().map(round_json).collect(),
        }),
    }
}

fn round_json(round: &message::PlanRound) -> RoundJson {
    RoundJson {
        plan: plan_name(round),
        limit: round.limit,
        candidates: round.candidates,
        permitted: round.permitted,
        milliseconds: round.milliseconds,
    }
}

fn plan_name(round: &message::PlanRound) -> &'static str {
    round.search_plan().as_str_name().trim_start_matches("PLAN_")
}

fn plan(response: &RetrieveResponse) -> String {
    let Some(report) = &response.plan else {
        return "The server does not show plans; turn `retrieval.explain_plan` on in its configuration.".to_owned();
    };
    let estimate = match report.estimated_share {
        Some(share) => format!("expected to be permitted: {:.1} %", share * 100.0),
        None => "no estimate".to_owned(),
    };
    let rounds = report.rounds.iter().map(|round| {
        format!(
            "\n{}: {} of at most {} candidates, {} permitted, {:.1} ms",
            plan_name(round),
            round.candidates,
            round.limit,
            round.permitted,
            round.milliseconds
        )
    });
    format!("{estimate}{}", rounds.collect::<String>())
}

fn people(response: &RetrieveResponse, explain_plan: bool) -> String {
    let rows = response
        .chunks
        .iter()
        .zip(1..)
        .map(|(chunk, rank)| vec![rank.to_string(), format!("{:.3}", chunk.score), chunk.id.clone(), shown(chunk)]);
    let ended = match response.completion() {
        message::Completion::Complete => "COMPLETE",
        message::Completion::Exhausted => "EXHAUSTED: this user may see no more chunks that match",
        message::Completion::Limited => "LIMITED: a work limit stopped the search; there may be more",
        message::Completion::Unspecified => "the server did not say how the search ended",
    };
    let mut text = match response.chunks.as_slice() {
        [] => ended.to_owned(),
        _ => format!("{}\n{ended}", table(&["#", "score", "chunk", "text"], rows)),
    };
    if !response.next_page_token.is_empty() {
        text.push_str("\nnext page: --page ");
        text.push_str(&response.next_page_token);
    }
    if explain_plan {
        text.push('\n');
        text.push_str(&plan(response));
    }
    text
}
