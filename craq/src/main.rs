//! `craq`: a coordinator, the nodes of a chain, and a client to try them with.

use std::process::ExitCode;

use clap::Parser;
use craq::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("craq: {error:#}");
            ExitCode::FAILURE
        }
    }
}
