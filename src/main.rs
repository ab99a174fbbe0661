//! The `ragward` command.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// A request is many small allocations, on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    ragward::cli::run(ragward::cli::Cli::parse())
}
