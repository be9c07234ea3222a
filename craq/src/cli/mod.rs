//! The command line: one module per process. The program `craq` is nothing else; `star` has it as well, to start the
//! processes that it measures.

mod client;
mod coordinator;
mod node;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use star_core::config::LogConfig;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

/// What coordinators and nodes call their cluster.
const CLUSTER: &str = "craq";

const EXAMPLES: &str = "\
Examples, each in a terminal of its own:
  craq coordinator                                        listens on port 5200
  craq node --coordinator 5200                            listens on port 5201
  craq node --coordinator 5200 --port 5202                joins the chain at its tail
  craq client --coordinator 5200 --read 5202              write and read; `help` says how";

/// CRAQ: chain replication with apportioned queries
#[derive(Debug, Parser)]
#[command(name = "craq", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// Which process.
    #[command(subcommand)]
    pub command: Command,
}

/// The processes.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keeps the order of the chain, takes announcements of nodes, and passes writes on to the head
    Coordinator(coordinator::CoordinatorArgs),
    /// One node of the chain
    Node(node::NodeArgs),
    /// Writes through the coordinator and reads from a chosen node
    Client(client::ClientArgs),
}

impl Command {
    /// Runs the process until it is told to end.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Coordinator(args) => coordinator::run(args),
            Self::Node(args) => node::run(args),
            Self::Client(args) => client::run(args),
        }
    }
}

/// An address of this machine: `:1234` and `1234` are ports of 127.0.0.1, anything else is taken as `host:port`.
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

fn log(name: &str) -> anyhow::Result<()> {
    star_core::logger::init(&LogConfig::default(), name).context("the log cannot be set up")
}

/// Waits for Ctrl-C, SIGTERM or the end of the terminal.
async fn stop_signal() -> std::io::Result<()> {
    let (mut interrupt, mut terminate, mut hangup) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_be_ports_alone() {
        assert_eq!(address(":1235").as_deref(), Ok("127.0.0.1:1235"));
        assert_eq!(address("5200").as_deref(), Ok("127.0.0.1:5200"));
        assert_eq!(address("10.0.0.1:80").as_deref(), Ok("10.0.0.1:80"));
        assert!(address("localhost").is_err() && address(":99999").is_err() && address("").is_err());
    }

    #[test]
    fn the_flags_have_the_defaults_of_their_descriptions() {
        let parse = |words: &[&str]| Cli::try_parse_from(words).expect("good words").command;
        let Command::Coordinator(coordinator) = parse(&["craq", "coordinator"]) else { panic!("a coordinator") };
        let Command::Node(node) = parse(&["craq", "node"]) else { panic!("a node") };
        let Command::Client(client) = parse(&["craq", "client"]) else { panic!("a client") };
        assert_eq!((coordinator.port, node.port), (5200, 5201));
        assert_eq!(node.coordinator, "127.0.0.1:1235");
        assert_eq!((client.coordinator.as_str(), client.read.as_str()), ("127.0.0.1:1234", "127.0.0.1:1235"));
    }
}
