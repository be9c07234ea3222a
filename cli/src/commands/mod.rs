//! One module for each command.

pub(crate) mod bench;
pub(crate) mod chaos;
pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod del;
pub(crate) mod demo;
pub(crate) mod fault;
pub(crate) mod get;
pub(crate) mod ls;
pub(crate) mod serve;
pub(crate) mod server;
pub(crate) mod set;
pub(crate) mod shell;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod up;
pub(crate) mod watch;

use crate::{
    args::{Cli, Command},
    error::{CliError, CliResult, Exit},
};

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> CliResult {
    let global = cli.global;
    match cli.command {
        Command::Up(args) => up::run(&global, &args),
        Command::Serve(args) => serve::run(&global, &args),
        Command::Server(args) => server::run(&global, &args),
        Command::Set(args) => set::run(&global, &args),
        Command::Get(args) => get::run(&global, &args),
        Command::Del(args) => del::run(&global, &args),
        Command::Ls(args) => ls::run(&global, &args),
        Command::Watch(args) => watch::run(&global, &args),
        Command::Status(args) => status::run(&global, &args),
        Command::Store(args) => store::run(&global, &args),
        Command::Shell(args) => shell::run(&global, &args),
        Command::Bench(args) => bench::run(&global, &args),
        Command::Compare(args) => compare::run(&global, &args),
        Command::Check(args) => check::run(&global, &args),
        Command::Demo(args) => demo::run(&global, &args),
        Command::Fault(args) => fault::run(&global, &args),
        Command::Chaos(args) => chaos::run(&global, &args),
        Command::Craq(process) => other(process.run()),
        Command::Raft(process) => other(process.run()),
        Command::Completions(args) => completions::run(&args),
    }
}

/// How the process of another system ended.
fn other(outcome: anyhow::Result<()>) -> CliResult {
    outcome.map(|()| Exit::Done).map_err(|error| CliError::new(format!("{error:#}")))
}
