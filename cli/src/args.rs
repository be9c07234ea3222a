//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::{
    bench::BenchArgs, chaos::ChaosArgs, check::CheckArgs, compare::CompareArgs, completions::CompletionsArgs,
    del::DelArgs, demo::DemoArgs, fault::FaultArgs, get::GetArgs, ls::LsArgs, serve::ServeArgs, server::ServerArgs,
    set::SetArgs, shell::ShellArgs, status::StatusArgs, store::StoreArgs, up::UpArgs, watch::WatchArgs,
};

const EXAMPLES: &str = "\
Examples:
  star up                                a cluster of five servers, until Ctrl-C
  star set greeting 'good morning'       store an object
  star get greeting                      print it
  star set photo @photo.jpg              store a file; `-` stores what comes in on stdin
  star set greeting hi --if-version 1    only if nobody changed it since version 1
  star ls photos/ --json                 keys that begin with photos/
  star watch photos/                     print what changes
  star bench --seconds 5                 a load, on the running cluster or on one of its own
  star demo .                            store a directory, prove every object at every server
  star chaos --seconds 60                break a cluster of its own under load, prove that nothing is lost

Exit codes:
  0 done   1 error   2 wrong usage or configuration   3 no such object   4 the condition did not hold
  130 ended early by Ctrl-C or SIGTERM";

/// Star: a linearizable object store that any server takes writes for, and every server answers reads of by itself.
#[derive(Debug, Parser)]
#[command(name = "star", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct GlobalArgs {
    /// The configuration; without it `config.toml` in the current directory, if there is one
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) config: Option<PathBuf>,
    /// Sets one key of the configuration, over file and environment; may be given several times
    #[arg(
        long = "set",
        id = "overrides",
        global = true,
        value_name = "SECTION.KEY=VALUE",
        value_parser = override_of,
        help_heading = "Global options"
    )]
    pub(crate) overrides: Vec<(String, String)>,
    /// Print JSON, one value on a line
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
}

/// How to reach the servers.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConnectArgs {
    /// Servers of the cluster; one that answers is enough [default: those of the configuration]
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub(crate) connect: Vec<String>,
    /// How long to try before giving up
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// Which way reads go: auto takes the mapped store of a server of this machine where it can answer
    #[arg(long, value_name = "WAY", default_value = "auto")]
    pub(crate) transport: TransportArg,
}

/// Which way reads go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TransportArg {
    /// The mapped store of a server of this machine where there is one that can answer, else TCP
    Auto,
    /// Always TCP
    Tcp,
    /// The mapped store; it is an error if there is none
    Shm,
}

impl From<TransportArg> for star::Transport {
    fn from(way: TransportArg) -> Self {
        match way {
            TransportArg::Auto => Self::Auto,
            TransportArg::Tcp => Self::Tcp,
            TransportArg::Shm => Self::Shm,
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole cluster on this machine, each server a process of its own
    Up(UpArgs),
    /// Run one server in the foreground
    Serve(ServeArgs),
    /// Show, add, drain and remove servers of a running cluster
    Server(ServerArgs),
    /// Store an object
    #[command(visible_alias = "put")]
    Set(SetArgs),
    /// Print an object
    Get(GetArgs),
    /// Remove an object
    Del(DelArgs),
    /// List keys
    Ls(LsArgs),
    /// Print what changes, as it changes
    Watch(WatchArgs),
    /// Show servers and stars
    Status(StatusArgs),
    /// Look into the mapped files of servers that run here, or that were left behind
    Store(StoreArgs),
    /// Work with a cluster interactively, or run a script of commands
    Shell(ShellArgs),
    /// Put a load on a cluster and measure it
    Bench(BenchArgs),
    /// Measure the same loads on Star and on other systems, side by side
    Compare(CompareArgs),
    /// Check whether a recorded history is linearizable
    Check(CheckArgs),
    /// Store a directory tree in a cluster and prove every object at every server
    Demo(DemoArgs),
    /// Cut a server's links, or end it like a crash
    Fault(FaultArgs),
    /// Break a cluster again and again under load, and prove that no write is lost and no read stale
    Chaos(ChaosArgs),
    /// Run one of CRAQ's processes, as the program `craq` does; for `bench` and `compare`
    #[command(subcommand, hide = true)]
    Craq(craq::cli::Command),
    /// Run one of the processes of the store on Raft, as the program `raft` does; for `bench` and `compare`
    #[command(subcommand, hide = true)]
    Raft(star_raft::cli::Command),
    /// Print a script that completes this command line in a shell
    Completions(CompletionsArgs),
}

/// `section.key=value`.
fn override_of(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((path, value)) if path.trim().contains('.') => Ok((path.trim().to_owned(), value.trim().to_owned())),
        _ => Err("it must look like section.key=value, for example log.level=debug".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn overrides_name_a_section_and_a_key() {
        assert_eq!(override_of("log.level = debug"), Ok(("log.level".to_owned(), "debug".to_owned())));
        assert!(override_of("level=debug").is_err());
        assert!(override_of("log.level").is_err());
    }
}
