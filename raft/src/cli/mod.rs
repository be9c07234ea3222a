//! The command line: one module per process. The program `raft` is nothing else; `star` has it as well, to start the
//! processes that it measures.

mod client;
mod server;

use std::io::{BufRead, IsTerminal, Write};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

const EXAMPLES: &str = "\
Examples, each in a terminal of its own:
  raft server 1        the first of three servers, on port 7201; it takes commands, `help` says which
  raft server 2
  raft server 3
  raft client 1        put and get; `help` says how";

/// A key-value store on Raft
#[derive(Debug, Parser)]
#[command(name = "raft", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// Which process.
    #[command(subcommand)]
    pub command: Command,
}

/// The processes.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// One of the servers
    Server(server::ServerArgs),
    /// Puts and gets
    Client(client::ClientArgs),
}

impl Command {
    /// Runs the process until it is told to end.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Server(args) => server::run(args),
            Self::Client(args) => client::run(args),
        }
    }
}

/// The servers, as all processes have to be told of them.
#[derive(Clone, Debug, Args)]
struct ServersArgs {
    /// All servers, in the order of their numbers: ports of this machine, or host:port
    #[arg(long, value_name = "ADDRESS,…", value_delimiter = ',', default_value = "7201,7202,7203",
        value_parser = address)]
    servers: Vec<String>,
}

/// An address: `:1234` and `1234` are ports of 127.0.0.1, anything else is taken as `host:port`.
fn address(text: &str) -> Result<String, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        return Ok(format!("127.0.0.1:{port}"));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("give a port, or host:port".to_owned()),
    }
}

fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("the system gives no runtime")
}

/// Reads lines from stdin until it ends or `take` says so, and prints what `take` makes of each.
fn read_lines(prompt: &str, mut take: impl FnMut(&str) -> Option<anyhow::Result<String>>) -> anyhow::Result<()> {
    let (mut input, is_terminal) = (std::io::stdin().lock(), std::io::stdin().is_terminal());
    loop {
        if is_terminal {
            print!("{prompt}> ");
            std::io::stdout().flush()?;
        }
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        match take(line.trim()) {
            None => return Ok(()),
            Some(Ok(answer)) if answer.is_empty() => {}
            Some(Ok(answer)) => println!("{answer}"),
            Some(Err(error)) => println!("error: {error:#}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_have_the_defaults_of_their_descriptions() {
        let parse = |words: &[&str]| Cli::try_parse_from(words).map(|cli| cli.command);
        let Ok(Command::Server(server)) = parse(&["raft", "server", "2"]) else { panic!("a server") };
        assert_eq!(server.servers.servers, ["127.0.0.1:7201", "127.0.0.1:7202", "127.0.0.1:7203"]);
        assert!(!server.faults);
        assert!(parse(&["raft", "client", "999"]).is_ok() && parse(&["raft", "server", "0"]).is_err());
        assert!(parse(&["raft", "client", "1", "--servers", ":1,other:2"]).is_ok());
    }
}
