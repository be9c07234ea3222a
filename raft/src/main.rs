//! `raft`: the servers of a key-value store on Raft, and a client to try them with.

use std::process::ExitCode;

use clap::Parser;
use star_raft::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("raft: {error:#}");
            ExitCode::FAILURE
        }
    }
}
