//! `ragward fetch`: reads chunks by id as a user.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::approval::ApprovalArgs;
use super::chunks::{ChunkJson, shown};
use super::consistency::ConsistencyArgs;
use super::output::table;
use super::request_context::RequestContextArgs;
use super::{Connection, Failure, Output};
use crate::client;
use crate::proto::retrieval::{Completion, FetchRequest, FetchResponse};

#[derive(Debug, Args)]
pub(super) struct FetchArgs {
    /// The user who asks, such as `user:anne`. It may be left out if an access token names the user.
    #[arg(long)]
    user: Option<String>,
    /// Fetch all chunks of this document. It may be given several times.
    #[arg(long = "document", value_name = "ID")]
    document_ids: Vec<String>,
    /// Return only chunks of this classification or a lower one.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    classification_max: String,
    #[command(flatten)]
    context: RequestContextArgs,
    #[command(flatten)]
    approval: ApprovalArgs,
    #[command(flatten)]
    consistency: ConsistencyArgs,
    #[command(flatten)]
    connection: Connection,
    /// The collection of the chunks.
    collection: String,
    /// The ids of the chunks.
    #[arg(value_name = "ID", required_unless_present = "document_ids")]
    chunk_ids: Vec<String>,
}

#[derive(Serialize)]
struct FetchJson<'a> {
    completion: &'a str,
    chunks: Vec<ChunkJson<'a>>,
    consistency_token: &'a str,
}

pub(super) async fn run(args: FetchArgs, config: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    let (consistency, consistency_token) = args.consistency.read();
    let request = FetchRequest {
        user: args.connection.asker(args.user)?,
        approval: String::new(),
        collection: args.collection,
        chunk_ids: args.chunk_ids,
        document_ids: args.document_ids,
        consistency: consistency.into(),
        consistency_token,
        classification_max: args.classification_max,
        context: args.context.read()?,
    };
    let services = args.connection.open_existing(config).await?;
    let answer = args.approval.send(request, services.client()).await?;
    services.close().await;
    let token = client::consistency_token(&answer).to_owned();
    let response = answer.into_inner();
    let json = FetchJson {
        completion: response.completion().as_str_name().trim_start_matches("COMPLETION_"),
        chunks: response.chunks.iter().map(ChunkJson::unranked).collect(),
        consistency_token: &token,
    };
    output.result(&json, || people(&response))
}

fn people(response: &FetchResponse) -> String {
    let ended = match response.completion() {
        Completion::Complete => "COMPLETE",
        Completion::Exhausted => "EXHAUSTED: this user may see no more of these chunks",
        Completion::Limited => "LIMITED: an answer has no room for more; ask for the ids that are left",
        Completion::Unspecified => "the server did not say whether there are more chunks",
    };
    let rows = response.chunks.iter().map(|chunk| vec![chunk.id.clone(), shown(chunk)]);
    match response.chunks.as_slice() {
        [] => ended.to_owned(),
        _ => format!("{}\n{ended}", table(&["chunk", "text"], rows)),
    }
}
