//! The `ragward` command.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// A gRPC request makes some hundred small allocations, many of them freed on another thread. `mimalloc` is fast at that. The
/// library leaves the allocator to the program that uses it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    ragward::cli::run(ragward::cli::Cli::parse())
}
