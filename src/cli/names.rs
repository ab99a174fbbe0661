//! `ragward names`: finds and rewrites stored names in the percent-encoding of an older version.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{Failure, Output, Uses, data_is_there};
use crate::app::{NamesReport, OldNamesAction, OldTuple, rewrite_names};
use crate::config::{Config, Overrides};

/// The number of tuples that are shown to a person.
const SHOWN_MAX: usize = 20;

#[derive(Debug, Subcommand)]
pub(super) enum NamesCommand {
    /// List stored tuples with names in the percent-encoding of an older version. Fails if there are any.
    Check(NamesArgs),
    /// Rewrite tuples with names in the percent-encoding of an older version, to the names that tokens give today.
    Rewrite(NamesArgs),
}

#[derive(Debug, Args)]
pub(super) struct NamesArgs {
    /// The data directory. No server may be using it.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) async fn run(command: NamesCommand, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let (args, action) = match command {
        NamesCommand::Check(args) => (args, OldNamesAction::Report),
        NamesCommand::Rewrite(args) => (args, OldNamesAction::Rewrite),
    };
    let config = Config::load(config, &Overrides { data: args.data, ..Overrides::default() })?;
    data_is_there(&config, Uses::Relationships)?;
    let report = rewrite_names(&config, action).await?;
    output.result(&report, || people(&report))?;
    if report.found == report.rewritten { Ok(()) } else { Err(Failure::failed("")) }
}

fn people(report: &NamesReport) -> String {
    let NamesReport { found, rewritten, left } = report;
    let mut lines = vec![format!("{found} tuples with old names, {rewritten} rewritten")];
    let line = |OldTuple { stored, rewritten, problem }: &OldTuple| {
        let now = rewritten.as_ref().map(|now| format!(" → {now}")).unwrap_or_default();
        let problem = problem.as_ref().map(|problem| format!(" ({problem})")).unwrap_or_default();
        format!("  {stored}{now}{problem}")
    };
    lines.extend(left.iter().take(SHOWN_MAX).map(line));
    let more = found.saturating_sub(*rewritten).saturating_sub(left.len().min(SHOWN_MAX));
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }
    lines.join("\n")
}
