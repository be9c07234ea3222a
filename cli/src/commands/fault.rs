//! `star fault`: cuts a server's links and ends servers like a crash, to see how a cluster takes it.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use star_core::message::Fault;

use crate::{
    args::GlobalArgs,
    connection,
    error::{CliError, CliResult, Exit},
    faults, output, settings, status,
};

const EXAMPLES: &str = "\
Examples:
  star fault fail-link --at a b      a sends nothing to b and takes nothing from it
  star fault fix-link --at a b
  star fault fail-process --at c     c ends as kill -9 would end it
Servers refuse all of this unless they run with [faults] allow = true. `star chaos` does it at random, with proof.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FaultArgs {
    #[command(subcommand)]
    what: What,
    /// The server that is to have the fault
    #[arg(long, value_name = "SERVER", global = true, required = false)]
    at: Option<String>,
    /// Servers of the cluster; one that answers is enough [default: those of the configuration]
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', global = true)]
    connect: Vec<String>,
    /// How long to wait for each answer
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration, global = true)]
    timeout: Duration,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Cut the link to another server
    FailLink {
        /// The other server
        server: String,
    },
    /// Mend the link to another server
    FixLink {
        /// The other server
        server: String,
    },
    /// End the server's process at once, like a crash
    FailProcess,
}

pub(crate) fn run(global: &GlobalArgs, args: &FaultArgs) -> CliResult {
    let at = args.at.as_deref().ok_or_else(|| {
        CliError::usage("which server is to have the fault?").hint("name it: star fault fail-link --at a b")
    })?;
    let fault = match &args.what {
        What::FailLink { server } => Fault::FailLink { server: server.into() },
        What::FixLink { server } => Fault::FixLink { server: server.into() },
        What::FailProcess => Fault::FailProcess,
    };
    let known = connection::servers(&args.connect, &settings::load(global)?);
    connection::runtime()?.block_on(async {
        let addr = addr_of(&known, at, args.timeout).await?;
        have(global, at, &addr, &fault, args.timeout).await
    })
}

/// Where the server of this name listens, by what is known, or by what the others say.
pub(super) async fn addr_of(known: &[(String, String)], name: &str, timeout: Duration) -> Result<String, CliError> {
    if let Some((_, addr)) = known.iter().find(|(known, _)| known == name) {
        return Ok(addr.clone());
    }
    let cluster = status::gather(known, timeout).await;
    let names: Vec<&str> = cluster.servers.iter().map(|server| server.name.as_str()).collect();
    let unknown = || {
        CliError::usage(format!("there is no server {name:?}")).hint(format!("the servers are {}", names.join(", ")))
    };
    cluster.servers.iter().find(|server| server.name == name).map(|server| server.addr.clone()).ok_or_else(unknown)
}

/// Has the fault, and says what came of it.
pub(super) async fn have(global: &GlobalArgs, name: &str, addr: &str, fault: &Fault, timeout: Duration) -> CliResult {
    let failed_links = faults::ask(addr, fault, timeout).await?;
    let has_ended = *fault == Fault::FailProcess;
    if global.json {
        let state = if has_ended { json!({"ended": true}) } else { json!({"failed_links": failed_links}) };
        output::json_line(&json!({"status": "OK", "at": name, "server": state}))?;
    } else if has_ended {
        output::line(format!("server {name} has ended"))?;
    } else if failed_links.is_empty() {
        output::line(format!("server {name} uses all its links"))?;
    } else {
        output::line(format!("server {name} has cut its links to {}", failed_links.join(", ")))?;
    }
    Ok(Exit::Done)
}
