//! The `ragward` command.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    ragward::cli::run(ragward::cli::Cli::parse())
}
