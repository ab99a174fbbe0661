//! `ragward recheck`: asks which of some chunks a user may still see.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::consistency::ConsistencyArgs;
use super::output::table;
use super::request_context::RequestContextArgs;
use super::{Connection, Failure, Output};
use crate::proto::retrieval::{Purpose, RecheckRequest};

#[derive(Debug, Args)]
pub(super) struct RecheckArgs {
    /// The user who asks, such as `user:anne`. It may be left out if an access token names the user.
    #[arg(long)]
    user: Option<String>,
    /// The collection of the chunks.
    #[arg(long)]
    collection: String,
    #[command(flatten)]
    context: RequestContextArgs,
    #[command(flatten)]
    consistency: ConsistencyArgs,
    #[command(flatten)]
    connection: Connection,
    /// Ask on behalf of a pipeline that does not filter yet: the server records what it would withhold (`audit.observed`).
    #[arg(long)]
    observe: bool,
    /// The ids of the chunks.
    #[arg(required = true)]
    chunk_ids: Vec<String>,
}

#[derive(Serialize)]
struct RecheckReport<'a> {
    permitted: &'a [String],
    withheld: Vec<&'a String>,
}

/// Asks, and fails if a chunk is withheld, so that a script can act on it.
pub(super) async fn run(args: RecheckArgs, config: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    let purpose = if args.observe { Purpose::Observe } else { Purpose::Answer };
    let (consistency, consistency_token) = args.consistency.read();
    let request = RecheckRequest {
        user: args.connection.asker(args.user)?,
        collection: args.collection,
        chunk_ids: args.chunk_ids.clone(),
        consistency: consistency.into(),
        consistency_token,
        context: args.context.read()?,
        purpose: purpose.into(),
    };
    let services = args.connection.open_existing(config).await?;
    let permitted = services.client().retrieval().recheck(request).await?.into_inner().chunk_ids;
    services.close().await;
    let known: HashSet<&String> = permitted.iter().collect();
    let withheld: Vec<&String> = args.chunk_ids.iter().filter(|id| !known.contains(id)).collect();
    let rows = args.chunk_ids.iter().map(|id| {
        let verdict = if known.contains(id) { "permitted" } else { "withheld" };
        vec![id.clone(), verdict.to_owned()]
    });
    let count = withheld.len();
    output.result(&RecheckReport { permitted: &permitted, withheld }, || table(&["chunk", "access"], rows))?;
    if count > 0 {
        Err(Failure::failed(format!("{count} of {} chunks are withheld", args.chunk_ids.len())))
    } else {
        Ok(())
    }
}
