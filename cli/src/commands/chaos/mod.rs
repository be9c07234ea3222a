//! `star chaos`: breaks a cluster of its own again and again under load, and proves from what the clients saw that no
//! acknowledged write was lost and no read was stale.

mod busy;
mod clients;
mod cluster;
mod faults;
mod gaps;
mod record;
mod redis;
mod report;
mod shared;
mod verdict;

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use clap::{Args, ValueEnum};
use clients::Clients;
use cluster::Cluster;
use faults::{Chaos, Kind};
use report::ChaosReport;
use serde::Serialize;
use shared::Shared;
use star_core::{Clock, config::Config};
use star_sim::random::Random;
use tokio::task::LocalSet;
use verdict::Verdict;

use crate::{
    args::GlobalArgs,
    connection,
    error::{CliError, CliResult, Exit},
    output,
    signals::Signals,
};

const EXAMPLES: &str = "\
Examples:
  star chaos                                  a minute of everything, on five servers
  star chaos --seconds 600 --control redis --faults kill,control
  star chaos --faults busy --busy-seconds 60  is a server evicted that has no time?
What it does: clients write, delete, compare-and-set and read all the time, through all servers and their mapped
stores, while servers are killed (two at a time as well), stopped beyond their lease, cut off from one another and
restarted, and the control plane goes away and comes back. After each fault it waits until every server serves again.
At the end it reads everything at every server, and checks the history of all clients for linearizability.
Exit code 1: a write was lost, a read was stale, or the cluster did not heal; the history and the logs are kept.";

/// Where the control plane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ControlArg {
    /// In the servers
    Embedded,
    /// In a Redis server that is started for the run
    Redis,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ChaosArgs {
    /// How long things are broken; healing and checking take a little longer
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=7 * 86_400))]
    seconds: u64,
    /// How many servers to start
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=16))]
    servers: u16,
    /// Where the control plane is
    #[arg(long, value_name = "WHERE", default_value = "embedded")]
    control: ControlArg,
    /// What is broken
    #[arg(long, value_name = "KINDS", value_delimiter = ',', default_value = "kill,stop,link,rolling,control")]
    faults: Vec<Kind>,
    /// How long each saturation of a server lasts
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    busy_seconds: u64,
    /// Chooses faults and victims; the same number chooses the same again, though the clock has its say as well
    #[arg(long)]
    seed: Option<u64>,
    /// Keep the history in this file, one operation a line: `star check` reads it
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
}

pub(crate) fn run(global: &GlobalArgs, args: &ChaosArgs) -> CliResult {
    let seed = args.seed.unwrap_or_else(|| Clock.now().0 % 1_000_000);
    connection::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let (mut cluster, config) = tokio::select! {
            () = signals.next() => return Ok(Exit::Interrupted),
            started = Cluster::start(global, usize::from(args.servers), args.control) => started?,
        };
        let work = LocalSet::new();
        let outcome = tokio::select! {
            () = signals.next() => Ok(None),
            report = work.run_until(break_all(args, seed, &config, &mut cluster)) => report.map(Some),
        };
        // Its clients go before the servers do, so that these need not wait for anybody.
        drop(work);
        if !matches!(&outcome, Ok(None)) && !matches!(&outcome, Ok(Some(report)) if report.passed()) {
            cluster.processes.keep_logs();
        }
        // Redis goes last, so that the servers can give their leases back.
        let Cluster { processes, redis: _redis, .. } = cluster;
        match processes.stop_after(outcome).await? {
            None => {
                output::note("ended early; all servers are stopped");
                Ok(Exit::Interrupted)
            }
            Some(report) => {
                report.print(global.json)?;
                Ok(if report.passed() { Exit::Done } else { Exit::Error })
            }
        }
    })
}

/// The work itself, from the servers' start to the verdict.
async fn break_all(
    args: &ChaosArgs,
    seed: u64,
    config: &Config,
    cluster: &mut Cluster,
) -> Result<ChaosReport, CliError> {
    let status = cluster.processes.ready(|_| {}).await?;
    let shared = Rc::new(Shared::new(&status, config, seed).await?);
    for key in &shared.still {
        shared.write_still(key).await?;
    }
    let time = Duration::from_secs(args.seconds);
    let clients = Clients::start(&shared, time);
    let mut chaos =
        Chaos { cluster, shared: &shared, random: Random::new(seed), busy_for: Duration::from_secs(args.busy_seconds) };
    let healed = break_for(time, &args.faults, &mut chaos).await;
    if let Err(error) = healed {
        shared.surprise(error.message());
    }
    clients.stop().await;
    let silent = clients::read_everything(&shared).await;
    if silent > 0 {
        shared.surprise(format!("{silent} of the last reads were not answered"));
    }
    judge(args, seed, cluster, &shared)
}

/// Has one fault after another; each kind once before any comes again.
async fn break_for(time: Duration, kinds: &[Kind], chaos: &mut Chaos<'_>) -> Result<(), CliError> {
    let end = chaos.shared.now() + time;
    let mut bag: Vec<Kind> = Vec::new();
    chaos.rest().await;
    while chaos.shared.now() < end {
        if bag.is_empty() {
            bag = kinds.to_vec();
        }
        let kind = bag.swap_remove(chaos.random.below(bag.len() as u64) as usize);
        if output::stderr_is_terminal() {
            output::note(format!("{:>7.1} s  {kind:?}", chaos.shared.now().0 as f64 / 1e9));
        }
        chaos.have(kind).await?;
        chaos.rest().await;
    }
    Ok(())
}

fn judge(args: &ChaosArgs, seed: u64, cluster: &Cluster, shared: &Shared) -> Result<ChaosReport, CliError> {
    let record = shared.record.borrow();
    if output::stderr_is_terminal() {
        output::note(format!("checking {} operations", output::count(record.history.operations().len() as u64)));
    }
    let verdict = Verdict::of(&record.history);
    let is_clean = verdict.is_clean() && record.surprises.is_empty();
    let kept = match &args.history {
        Some(path) => Some(path.clone()),
        None if is_clean => None,
        None => Some(std::env::temp_dir().join(format!("star-chaos-{}.jsonl", std::process::id()))),
    };
    if let Some(path) = &kept {
        write_history(path, shared)
            .map_err(|error| CliError::from(error).context(format!("cannot write {}", path.display())))?;
    }
    let logs = (!is_clean).then(|| cluster.processes.log_directory().clone());
    Ok(ChaosReport::new(args, seed, &record, verdict, kept, logs))
}

fn write_history(path: &Path, shared: &Shared) -> std::io::Result<()> {
    shared.record.borrow().history.write(BufWriter::with_capacity(1 << 20, File::create(path)?))
}
