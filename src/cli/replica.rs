//! `ragward replica`: the copy of an `OpenFGA` server's relationships, and the trust in it.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{Failure, Output};
use crate::app::replica_directory;
use crate::authz::verification::StandingDirectory;
use crate::config::{Config, Overrides};

#[derive(Debug, Subcommand)]
pub(super) enum ReplicaCommand {
    /// Show whether the replica was found wrong, and about what. Whether it is up to date, the server's log says.
    Status(ReplicaArgs),
    /// Let the replica be used again after it was found wrong: another copy is made, and used once it agrees with the server.
    Trust(ReplicaArgs),
}

#[derive(Debug, Args)]
pub(super) struct ReplicaArgs {
    /// The data directory; a server may be using it.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) fn run(command: &ReplicaCommand, config: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let (ReplicaCommand::Status(args) | ReplicaCommand::Trust(args)) = command;
    let overrides = Overrides { data: args.data.clone(), ..Overrides::default() };
    let config = Config::load(config, &overrides)?;
    let directory = replica_directory(&config);
    if !directory.is_dir() {
        return Err(Failure::usage(format!("there is no replica at `{}`", directory.display())));
    }
    let kept = StandingDirectory::new(&directory);
    if let ReplicaCommand::Trust(_) = command {
        kept.trust_again().map_err(|e| Failure::failed(e.to_string()))?;
    }
    let standing = kept.read();
    output.result(&standing, || {
        let cause = standing.cause.as_ref().map(|cause| format!("; wrong about {cause}")).unwrap_or_default();
        let asked = match command {
            ReplicaCommand::Trust(_) => {
                "\nIt is made anew, within a second by a server that runs, and used once it agrees with OpenFGA."
            }
            ReplicaCommand::Status(_) => "",
        };
        format!("{}, found wrong {} times{cause}{asked}", standing.trust, standing.falls)
    })
}
