//! `ragward check`: asks the configured authorizer one question.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use super::contextual::ContextualArgs;
use super::{Failure, Output, Uses, data_is_there};
use crate::app::open_authorizer;
use crate::authz::{Check, CheckBatch, Consistency, Decision};
use crate::config::{Config, Overrides};
use crate::identity::Principal;
use crate::language::{Object, Relation};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The user, such as `user:anne`.
    user: String,
    /// The relation, such as `can_read`.
    relation: String,
    /// The object, such as `document:handbook`.
    object: String,
    #[command(flatten)]
    contextual: ContextualArgs,
    /// The data directory. No server may be using it.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Serialize)]
struct CheckReport {
    allowed: bool,
}

/// Asks the configured authorizer. Fails if the answer is no, so that a script can act on it.
pub(super) async fn run(args: CheckArgs, config: Option<PathBuf>, output: &Output) -> Result<(), Failure> {
    let malformed = |e: crate::language::ParseError| Failure::usage(e.to_string());
    let principal = Principal::stated(&args.user).map_err(malformed)?;
    let check = Check {
        user: principal.subject().clone(),
        relation: Relation::parse(&args.relation).map_err(malformed)?,
        object: Object::parse(&args.object).map_err(malformed)?,
    };
    let contextual = Arc::new(args.contextual.read()?);
    let config = Config::load(config.as_deref(), &Overrides { data: args.data, ..Overrides::default() })?;
    data_is_there(&config, Uses::Relationships)?;
    let authorizer = open_authorizer(&config).await?;
    let Check { user, relation, object } = &check;
    let of_user = authorizer.lack(Some(user.type_name()), None).await?;
    if let Some(lack) = of_user.or(authorizer.lack(Some(object.type_name()), Some(relation)).await?) {
        return Err(Failure::usage(lack));
    }
    let deadline = Instant::now() + config.server.request_timeout;
    let batch = CheckBatch { checks: vec![check], contextual, consistency: Consistency::HigherConsistency, deadline };
    let decisions = authorizer.check(&batch).await?;
    let [Decision { position: 0, allowed, .. }] = *decisions.list else {
        return Err(Failure::failed("the authorizer did not answer exactly once"));
    };
    output.result(&CheckReport { allowed }, || if allowed { "allowed" } else { "denied" }.to_owned())?;
    if allowed { Ok(()) } else { Err(Failure::failed("")) }
}
