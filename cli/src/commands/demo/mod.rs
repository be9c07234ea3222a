//! `star demo`: the main job on real input. Stores a directory tree in a cluster of its own while others read, changes
//! a part of it, and proves at every step that every server has every object byte for byte.

mod load;
mod progress;
mod proof;
mod record;
mod report;
mod shared;
mod tree;

use std::{
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use bytesize::ByteSize;
use clap::Args;
use load::Load;
use progress::Progress;
use proof::{Check, Proof};
use report::DemoReport;
use shared::Shared;
use star_core::config::Config;
use star_sim::linearizable::wgl;
use tokio::task::LocalSet;
use tree::Tree;

use super::check::Judgement;
use crate::{
    args::GlobalArgs,
    connection,
    error::{CliError, CliResult, Exit},
    output,
    processes::{Plan, Processes},
    settings,
    signals::Signals,
};

const EXAMPLES: &str = "\
Examples:
  star demo                      the git checkout around the current directory
  star demo ~/pictures --servers 3 --seconds 20
What it does: stores every file through servers chosen at random while other clients read through all servers;
proves each object byte for byte from every server; overwrites, deletes and compares-and-sets under load; proves
again; puts everything back and proves that; then checks the recorded history of all clients for linearizability.
Directories named .git and target, and symbolic links, are left out. Exit code 1: a proof failed.";

/// Room in each store beside twice the tree's bytes: for versions under way and the store's own overhead.
const STORE_EXTRA_BYTES: u64 = 64 << 20;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArgs {
    /// The directory [default: the git checkout around the current directory, else the current directory]
    directory: Option<PathBuf>,
    /// How many servers to start
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=16))]
    servers: u16,
    /// How long the load of overwrites, deletes and reads lasts
    #[arg(long, default_value_t = 8.0, value_parser = seconds)]
    seconds: f64,
    /// The most bytes of files in all; more are left out, and said so
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    limit: ByteSize,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("it must be a number from 0 to 3600".to_owned()),
    }
}

pub(crate) fn run(global: &GlobalArgs, args: &DemoArgs) -> CliResult {
    let config = settings::load(global)?;
    let root = args.directory.clone().map_or_else(checkout, Ok)?;
    let progress = Progress::new();
    let tree = Rc::new(Tree::read(&root, &config.limits, args.limit.0)?);
    progress::done(&format!(
        "{} holds {}, {}",
        root.display(),
        progress::objects(tree.files.len()),
        output::bytes(tree.bytes)
    ));
    let capacity = (tree.bytes * 2 + STORE_EXTRA_BYTES).max(config.limits.value_bytes_max + STORE_EXTRA_BYTES);
    let own =
        [("store.capacity_bytes".to_owned(), capacity.to_string()), ("store.entries_max".to_owned(), "0".to_owned())];
    let plan = Plan::own_cluster(global, "demo", usize::from(args.servers), &own)?;
    connection::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let mut processes = Processes::start(plan)?;
        let work = LocalSet::new();
        let outcome = tokio::select! {
            () = signals.next() => Ok(None),
            report = work.run_until(demonstrate(args, &config, &tree, &mut processes, &progress)) => report.map(Some),
        };
        // Its clients go before the servers do, so that these need not wait for anybody.
        drop(work);
        match processes.stop_after(outcome).await? {
            None => {
                output::note("ended early; all servers are stopped");
                Ok(Exit::Interrupted)
            }
            Some(report) => {
                progress::done("all servers stopped, nothing left behind");
                report.print(global.json)?;
                Ok(if report.passed() { Exit::Done } else { Exit::Error })
            }
        }
    })
}

/// The work itself, from the servers' start to the verdict.
async fn demonstrate(
    args: &DemoArgs,
    config: &Config,
    tree: &Rc<Tree>,
    processes: &mut Processes,
    progress: &Progress,
) -> Result<DemoReport, CliError> {
    let count = usize::from(args.servers);
    let stage = progress.stage("starting servers", count as u64);
    let cluster = processes.ready(|serving| stage.set(serving as u64)).await?;
    stage.done(&format!("{count} servers serve"));

    let shared = Rc::new(Shared::new(&cluster, config).await?);
    let load = Load::new(Rc::clone(&shared), Rc::clone(tree));
    let readers = load.start_readers();
    let proof = Proof::new(&shared, tree, &load);
    let mut checks = Vec::new();

    load.store_all(progress).await?;
    checks.push(proof.everywhere("stored, read back from every server", progress).await?);
    load.change(Duration::from_secs_f64(args.seconds), progress).await?;
    checks.push(proof.everywhere("overwritten, deleted, compared-and-set", progress).await?);
    checks.push(proof.counters().await?);
    load.put_back(progress).await?;
    checks.push(proof.everywhere("put back as on disk", progress).await?);
    checks.push(proof.listed().await?);
    load.stop();
    for reader in readers {
        reader.await??;
    }
    let cluster = processes.status().await;
    checks.push(linearizable(&shared, progress));
    Ok(DemoReport::new(tree, &shared, &cluster, &checks))
}

/// Judges what all clients saw.
fn linearizable(shared: &Shared, progress: &Progress) -> Check {
    let record = shared.record.borrow();
    let operations = record.history.operations().len();
    let stage = progress.stage("checking the history", 1);
    let judgement = Judgement::of(&record.history, wgl::STATES_MAX);
    let name = match judgement.yes() {
        2.. => "history linearizable, by both checkers",
        _ => "history linearizable",
    };
    let mut check = Check::new(name, operations as u64);
    if !judgement.is_linearizable() {
        check.faults.push(format!("the history is {}: {}", judgement.word(), judgement.json()));
    }
    stage.done(&format!(
        "{} operations on {} keys: {}",
        output::count(operations as u64),
        judgement.keys,
        judgement.word()
    ));
    check
}

/// The git checkout around the current directory, else that directory.
fn checkout() -> Result<PathBuf, CliError> {
    let here = std::env::current_dir()?;
    let around = here.ancestors().find(|directory| directory.join(".git").exists()).map(Path::to_path_buf);
    Ok(around.unwrap_or(here))
}
