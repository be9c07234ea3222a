//! `star bench`: a load, measured.

mod history;
mod report;

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use star::StarClient;
use star_bench::{Distribution, Options, Progress, Report, System, Target};
use star_objstore::Reader;

use crate::{
    args::{GlobalArgs, TransportArg},
    connection,
    error::{CliError, CliResult, Exit},
    output,
    peers::{Group, Peer, Wanted},
    processes::{Plan, Processes},
    settings,
    signals::Signals,
    status::{self, ClusterStatus},
};

const EXAMPLES: &str = "\
Examples:
  star bench                                            95 % reads, 64 clients, 10 s
  star bench --read-share 0 --clients 8 --pipeline 32   writes only, 256 under way
  star bench --rate 20000 --transport tcp               20,000 a second are due, also while a server stalls
  star bench --transport tcp --keys 1000 --distribution zipf
  star bench --seconds 5 --history run.jsonl && star check run.jsonl
  star bench --system redis --read-share 0              the same load on another system
With auto and shm, clients read from the mapped stores of servers on this machine where those can answer.
The keys key-00000000, key-00000001 … are written once before the load.";

/// The shortest values of a load that is recorded.
const RECORDED_BYTES_MIN: usize = 24;
/// How long to wait for a running cluster to answer.
const LOOK_WITHIN: Duration = Duration::from_millis(1500);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// The system to measure
    #[arg(long, default_value = "star")]
    system: SystemArg,
    /// Servers of the cluster that is started where none runs
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    servers: u16,
    /// How long the load is measured
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Clients, each with a connection of its own
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    clients: usize,
    /// Requests that each client has under way
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pipeline: usize,
    /// So many operations are due each second, of all clients together, whether earlier ones were answered or not. Latencies
    /// count from when each was due; --clients times --pipeline are under way at most, and what has no room waits [default:
    /// each operation is due when one before it is answered]
    #[arg(long, value_name = "OPS_PER_SECOND", value_parser = rate, allow_negative_numbers = true)]
    rate: Option<f64>,
    /// The share of reads, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.95, value_parser = share)]
    read_share: f64,
    /// Different keys
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    keys: u64,
    /// How keys are chosen
    #[arg(long, default_value = "uniform")]
    distribution: DistributionArg,
    /// The length of each value, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    value_size: usize,
    /// Which way reads go
    #[arg(long, value_name = "WAY", default_value = "auto")]
    transport: TransportArg,
    /// Which server a write goes to
    #[arg(long, value_name = "WHICH", default_value = "auto")]
    writes_to: WritesTo,
    /// Write every operation to this file, for `star check`
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Servers of the running cluster [default: those of the configuration, if one answers]
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    connect: Vec<String>,
}

/// The systems that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SystemArg {
    /// Star replication
    Star,
    /// CRAQ, on the core that Star stands on
    Craq,
    /// A key-value store on Raft (openraft), its log on disk
    Raft,
    /// Redis: each write waits for all replicas; needs the Debian package redis-server
    Redis,
    /// etcd through its JSON gateway, its log on disk; needs the Debian package etcd-server
    Etcd,
    /// A key-value bucket of NATS; needs the Debian package nats-server
    Nats,
}

impl SystemArg {
    /// Its name as an option.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Star => "star",
            Self::Craq => "craq",
            Self::Raft => "raft",
            Self::Etcd => "etcd",
            Self::Redis => "redis",
            Self::Nats => "nats",
        }
    }

    /// The system as one that is not Star.
    pub(crate) fn peer(self) -> Option<Peer> {
        match self {
            Self::Star => None,
            Self::Craq => Some(Peer::Craq),
            Self::Raft => Some(Peer::Raft),
            Self::Etcd => Some(Peer::Etcd),
            Self::Redis => Some(Peer::Redis),
            Self::Nats => Some(Peer::Nats),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DistributionArg {
    /// Every key as often as any other
    Uniform,
    /// Few keys often: the k-th in proportion to 1/k^0.99
    Zipf,
}

/// Which server the load sends a write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WritesTo {
    /// As Star's own clients choose: the leader while few requests are under way (up to 16, with values over 4 KiB up to 4), else any
    Auto,
    /// The one that leads the key; each client has a connection to every server
    Leader,
    /// The client's one server, whoever leads
    Any,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0);
    seconds.ok_or_else(|| "it must be more than 0 and at most 86400".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| *rate > 0.0 && *rate <= 1e7);
    rate.ok_or_else(|| "it must be more than 0 and at most 10000000".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "it must be between 0 and 1".to_owned())
}

pub(crate) fn run(global: &GlobalArgs, args: &BenchArgs) -> CliResult {
    if args.history.is_some() && args.value_size < RECORDED_BYTES_MIN {
        let text = format!("a recorded load needs values of at least {RECORDED_BYTES_MIN} bytes, so that they differ");
        return Err(CliError::usage(text).hint(format!("--value-size {RECORDED_BYTES_MIN} or more")));
    }
    if args.rate.is_some_and(|rate| rate * args.seconds < 1.0) {
        return Err(
            CliError::usage("with this --rate nothing is due within --seconds").hint("a higher rate, or more time")
        );
    }
    if let Some(peer) = args.system.peer() {
        return connection::runtime()?.block_on(run_peer(global, args, peer));
    }
    connection::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let (cluster, own) = match running(global, args).await? {
            Some(cluster) => (cluster, None),
            None => {
                let mut own = Processes::start(own_plan(global, args)?)?;
                let ready = tokio::select! {
                    () = signals.next() => None,
                    ready = own.ready(|_| {}) => Some(ready),
                };
                match ready {
                    Some(Ok(cluster)) => (cluster, Some(own)),
                    Some(Err(error)) => return own.stop_after(Err(error)).await,
                    None => return own.stop_after(Ok(Exit::Interrupted)).await,
                }
            }
        };
        let outcome = tokio::select! {
            () = signals.next() => Ok(Exit::Interrupted),
            outcome = measure(global, args, &cluster, own.is_some()) => outcome,
        };
        match own {
            Some(own) => own.stop_after(outcome).await,
            None => outcome,
        }
    })
}

/// Measures another system, on servers of its own.
async fn run_peer(global: &GlobalArgs, args: &BenchArgs, peer: Peer) -> CliResult {
    if !args.connect.is_empty() {
        return Err(CliError::usage("--connect is for --system star")
            .hint("other systems are measured on servers that are started for it"));
    }
    if args.history.is_some() && !peer.is_checkable() {
        return Err(CliError::usage("--history is for systems that speak to Star's clients, and are linearizable")
            .hint("--system star, craq or raft"));
    }
    let mut signals = Signals::new()?;
    let work = async {
        let wanted = Wanted {
            servers: usize::from(args.servers),
            capacity_bytes: capacity(global, args)?,
            store_directory: settings::load(global)?.store.directory,
        };
        let group = Group::start(peer, &wanted).await?;
        let targets = match args.transport {
            TransportArg::Tcp => group.tcp_targets(),
            TransportArg::Auto => group.targets.clone(),
            TransportArg::Shm => group.mapped_targets(),
        };
        let servers = usize::from(args.servers);
        let options = Options { system: group.system.clone(), servers, pids: group.pids(), ..options(args, targets) };
        let report = load(args, options).await?;
        print(global, args, &report)?;
        Ok(Exit::Done)
    };
    tokio::select! {
        () = signals.next() => Ok(Exit::Interrupted),
        outcome = work => outcome,
    }
}

/// The cluster that runs already, if one does.
async fn running(global: &GlobalArgs, args: &BenchArgs) -> Result<Option<ClusterStatus>, CliError> {
    let known = connection::servers(&args.connect, &settings::load(global)?);
    let cluster = status::gather(&known, LOOK_WITHIN).await;
    if let Some(star) = cluster.unserved_somewhere() {
        return Err(CliError::new(format!(
            "not every server serves star {star}, and the load asks every server for every key"
        ))
        .hint("measure a cluster with [cluster] replicas = 0"));
    }
    if cluster.servers.iter().any(|server| server.state == status::UP) {
        return Ok(Some(cluster));
    }
    if args.connect.is_empty() && cluster.servers.iter().all(|server| server.own.is_none()) {
        return Ok(None);
    }
    let states: Vec<String> =
        cluster.servers.iter().map(|server| format!("{} is {}", server.name, server.state)).collect();
    Err(CliError::new(format!("the cluster does not serve: {}", states.join(", ")))
        .hint("start it with `star up`, or leave --connect out to measure a cluster of its own"))
}

/// A cluster of its own, with room for all keys.
fn own_plan(global: &GlobalArgs, args: &BenchArgs) -> Result<Plan, CliError> {
    let own = [("store.capacity_bytes".to_owned(), capacity(global, args)?.to_string())];
    Plan::own_cluster(global, "bench", usize::from(args.servers), &own)
}

/// Room for all keys, in bytes.
fn capacity(global: &GlobalArgs, args: &BenchArgs) -> Result<u64, CliError> {
    // Twice: while a key is written, the store holds the version before as well.
    let needed = args.keys.saturating_mul(args.value_size as u64 + 256).saturating_mul(2);
    Ok(needed.max(settings::load(global)?.store.capacity_bytes))
}

async fn measure(global: &GlobalArgs, args: &BenchArgs, cluster: &ClusterStatus, own: bool) -> CliResult {
    let mut options = options(args, targets(args.transport, cluster)?);
    options.pids = cluster.pids();
    let under_way = args.clients.saturating_mul(args.pipeline);
    let few = under_way <= StarClient::leader_first_under_way_max(args.value_size);
    if args.writes_to == WritesTo::Leader || (args.writes_to == WritesTo::Auto && few) {
        options.leaders = cluster.leaders(&options.targets);
    }
    if output::stderr_is_terminal() {
        let whose = if own { "a cluster of its own" } else { "the running cluster" };
        output::note(format!("{} servers of {whose}", options.targets.len()));
    }
    let report = load(args, options).await?;
    print(global, args, &report)?;
    Ok(Exit::Done)
}

/// Runs the load, and writes its history if that is wanted.
async fn load(args: &BenchArgs, mut options: Options) -> Result<Report, CliError> {
    let Some(path) = &args.history else { return run_load(options).await };
    // What the keys hold before the load belongs to the history, so it is written and recorded here.
    options.fill = false;
    let initial = history::fill(&options).await?;
    let mut report = run_load(options).await?;
    history::write(path, &initial, &std::mem::take(&mut report.history))?;
    Ok(report)
}

/// Runs a load with its progress shown.
async fn run_load(options: Options) -> Result<Report, CliError> {
    let bar = progress(&options);
    let watching = bar.clone();
    let report = star_bench::run(options, move |progress| show(&watching, progress)).await?;
    bar.finish_and_clear();
    Ok(report)
}

fn options(args: &BenchArgs, targets: Vec<Target>) -> Options {
    Options {
        system: System::Star,
        servers: targets.len(),
        pids: Vec::new(),
        targets,
        leaders: Vec::new(),
        clients: args.clients,
        pipeline: args.pipeline,
        rate: args.rate,
        seconds: args.seconds,
        warm_up_seconds: (args.seconds / 5.0).clamp(0.0, 1.0),
        read_share: args.read_share,
        keys: args.keys,
        distribution: match args.distribution {
            DistributionArg::Uniform => Distribution::Uniform,
            DistributionArg::Zipf => Distribution::Zipf,
        },
        value_bytes: args.value_size,
        fill: true,
        record: args.history.is_some(),
        seed: 1,
    }
}

/// The servers that serve, with their mapped stores where reads may go there.
pub(crate) fn targets(transport: TransportArg, cluster: &ClusterStatus) -> Result<Vec<Target>, CliError> {
    let serving = cluster.servers.iter().filter(|server| server.state == status::UP);
    let targets: Vec<Target> = serving
        .map(|server| {
            let store = server.own.as_ref().and_then(status::ServerStatus::store_path);
            let store = store.filter(|path| transport != TransportArg::Tcp && Reader::open(path).is_ok());
            Target { addr: server.addr.clone(), store: store.map(PathBuf::from) }
        })
        .collect();
    if transport == TransportArg::Shm && targets.iter().any(|target| target.store.is_none()) {
        return Err(CliError::new("not every server has a mapped store that can be opened from here")
            .hint("--transport auto takes those that can be, tcp takes none"));
    }
    Ok(targets)
}

fn progress(options: &Options) -> ProgressBar {
    if !output::stderr_is_terminal() {
        return ProgressBar::hidden();
    }
    let milliseconds = ((options.seconds + options.warm_up_seconds) * 1e3) as u64;
    let style = ProgressStyle::with_template("{bar:30} {msg}").expect("a template that indicatif knows");
    ProgressBar::new(milliseconds).with_style(style)
}

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_position((progress.seconds * 1e3) as u64);
    let rate = output::count((progress.ops as f64 / progress.seconds.max(1e-3)) as u64);
    bar.set_message(format!("{:.0} s, {rate} operations/s", progress.seconds));
}

fn print(global: &GlobalArgs, args: &BenchArgs, report: &Report) -> Result<(), CliError> {
    if global.json {
        output::json_line(report)?;
    } else {
        output::line(report::table(report).to_string())?;
        output::line(report::summary(report))?;
        if let Some(path) = &args.history {
            output::line(format!("history: {} (judge it with `star check {0}`)", path.display()))?;
        }
    }
    Ok(())
}
