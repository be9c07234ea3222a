//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{record::Service, settings::ControlChoice};

const EXAMPLES: &str = "\
Services:
  redis      a Redis server for the control plane, at [control] redis_url (of this machine, loopback only);
             every write is on disk before it is confirmed, in <[service] directory>/redis
  objstore   the star servers of this machine: those of [cluster] servers whose addresses are of this machine
  all        both; servers that are started this way use the control plane on Redis

Which control plane star servers get (--control auto): the one on Redis if [control] backend says so, or if the redis
service managed here runs; else the embedded one. The output says which it was.

What stays after a stop: the logs of the latest run, in <[service] directory>/logs, and the data of Redis.
Objects do not: they live in the memory of the servers.

Examples:
  service_manager start redis && service_manager start objstore
  service_manager status
  service_manager status --json
  service_manager stop all

Exit codes:
  0 done   1 error   2 wrong usage or configuration   3 (status) something that was started is dead or not healthy
  130 ended early by Ctrl-C or SIGTERM";

/// Starts, stops and watches the services of this machine that Star needs.
#[derive(Debug, Parser)]
#[command(name = "service_manager", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// The configuration; without it `config.toml` in the current directory, if there is one
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a service and wait until it is ready; what runs already is left as it is
    Start {
        /// What to start
        service: Which,
        #[command(flatten)]
        start: StartArgs,
    },
    /// Stop a service; what the star servers hold stays for the next start
    Stop {
        /// What to stop
        service: Which,
        /// Remove what the star servers hold as well
        #[arg(long)]
        lose_objects: bool,
        #[command(flatten)]
        stop: StopArgs,
    },
    /// Stop a service and start it again
    Restart {
        /// What to restart
        service: Which,
        #[command(flatten)]
        start: StartArgs,
        #[command(flatten)]
        stop: StopArgs,
    },
    /// Show what runs, and whether it is healthy
    Status {
        /// What to show
        #[arg(default_value = "all")]
        service: Which,
    },
}

/// How to start.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Which control plane the star servers get
    #[arg(long, value_name = "PLANE", default_value = "auto")]
    pub(crate) control: ControlChoice,
    /// How long to wait until a service is ready
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
}

/// How to stop.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// How long a process may take to end by itself before it is killed
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) grace: Duration,
}

/// One service, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// A Redis server for the control plane
    Redis,
    /// The star servers of this machine
    Objstore,
    /// Both
    All,
}

impl Which {
    /// The services, each after those it needs.
    pub(crate) fn services(self) -> &'static [Service] {
        match self {
            Self::Redis => &[Service::Redis],
            Self::Objstore => &[Service::Objstore],
            Self::All => &[Service::Redis, Service::Objstore],
        }
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
}
