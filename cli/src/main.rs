//! `star`: one program to start servers, to use them, and to prove that what they do is linearizable.
//!
//! [`args`] says what the command line looks like, `commands/` has a module for each command; what they share stands
//! beside them: [`processes`] (servers as processes of their own), [`connection`] (clients), [`status`] (what servers
//! say of themselves), [`peers`] (other systems beside it), [`faults`] (breaking servers on demand), [`output`] and [`error`].

mod args;
mod commands;
mod connection;
mod error;
mod faults;
mod names;
mod output;
mod peers;
mod processes;
mod settings;
mod signals;
mod status;
mod value;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let json = cli.global.json;
    match commands::run(cli) {
        Ok(exit) => exit.into(),
        Err(error) => error.report(json).into(),
    }
}
