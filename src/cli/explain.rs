//! `ragward explain`: shows why a user holds a relation, or why not.

mod json;
mod picture;

use std::path::PathBuf;

use chrono::{DateTime, SecondsFormat};
use clap::Args;

use super::contextual::{ContextualArgs, context_message};
use super::{Connection, Failure, Output};
use crate::engine::Contextual;
use crate::language::RelationshipTuple;
use crate::proto::retrieval as message;
use crate::proto::retrieval::explain_request::Target;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("target").required(true))]
pub(super) struct ExplainArgs {
    /// The user to ask about: `user:anne`, `user:*` or `group:eng#member`. It may be left out if an access token names the user.
    #[arg(long)]
    user: Option<String>,
    /// The object, such as `document:handbook`.
    #[arg(long, group = "target")]
    object: Option<String>,
    /// A chunk to ask about instead of an object. Its guard is looked up.
    #[arg(long, value_name = "ID", group = "target", requires = "collection")]
    chunk: Option<String>,
    /// The collection of the chunk.
    #[arg(long, requires = "chunk")]
    collection: Option<String>,
    /// The relation. The default is the one that guards chunks (`retrieval.relation`).
    #[arg(long)]
    relation: Option<String>,
    #[command(flatten)]
    contextual: ContextualArgs,
    #[command(flatten)]
    connection: Connection,
}

/// Draws the explanation. Fails if the answer is no, as `ragward check` does.
pub(super) async fn run(args: ExplainArgs, config: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    let Contextual { tuples, context } = args.contextual.read()?;
    let target = match (args.object, args.chunk) {
        (Some(object), _) => Target::Object(object),
        (None, Some(chunk_id)) => {
            Target::Chunk(message::ChunkReference { collection: args.collection.unwrap_or_default(), chunk_id })
        }
        (None, None) => return Err(Failure::usage("give `--object`, or `--chunk` and `--collection`")),
    };
    let request = message::ExplainRequest {
        user: args.connection.asker(args.user)?,
        target: Some(target),
        relation: args.relation.unwrap_or_default(),
        contextual_tuples: tuples.iter().map(tuple_message).collect::<Result<_, _>>()?,
        context: Some(context_message(context)?),
    };
    let services = args.connection.open_existing(config).await?;
    let explained = services.client().retrieval().explain(request).await?.into_inner();
    services.close().await;
    output.result(&json::response(&explained), || picture::draw(&explained))?;
    if explained.allowed { Ok(()) } else { Err(Failure::failed("")) }
}

/// Returns the date as of which an explanation holds (RFC 3339). An older server does not tell it.
fn as_of(explained: &message::ExplainResponse) -> Option<String> {
    let as_of = explained.as_of.as_ref()?;
    let date = DateTime::from_timestamp(as_of.seconds, u32::try_from(as_of.nanos).ok()?)?;
    Some(date.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn tuple_message(tuple: &RelationshipTuple) -> Result<message::RelationshipTuple, Failure> {
    let condition = tuple.condition.as_ref().map(|condition| {
        let context = Some(context_message(condition.context())?);
        Ok::<_, Failure>(message::TupleCondition { name: condition.name().to_owned(), context })
    });
    Ok(message::RelationshipTuple {
        user: tuple.user.to_string(),
        relation: tuple.relation.to_string(),
        object: tuple.object.to_string(),
        condition: condition.transpose()?,
    })
}
