//! `star compare`: the same loads on Star and on other systems, side by side.

mod plot;
mod rows;
mod table;

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use star_bench::{Distribution, Options, Report, System, Target};

use self::rows::{ROWS, Row};
use crate::{
    args::{GlobalArgs, TransportArg},
    commands::bench::{SystemArg, targets},
    connection,
    error::{CliError, CliResult, Exit},
    output,
    peers::{Group, Wanted},
    processes::{Plan, Processes},
    settings,
    signals::Signals,
    status,
};

const EXAMPLES: &str = "\
Examples:
  star compare                                     every system that is installed, 3 servers, about 6 minutes
  star compare --systems star,redis --rows SET     the rows that begin with SET
  star compare --servers 5 --out report            the table, all figures as JSON and a plot in a directory
Every system gets servers of its own, which run one system at a time; the rounds take the systems in turn, and the table
shows medians. Systems whose program is not installed are left out, and a note says so.";

/// Room for the largest load of all rows, with the versions before.
const CAPACITY_BYTES: u64 = 512 << 20;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompareArgs {
    /// The systems to measure, in the order of the table
    #[arg(long, value_delimiter = ',', default_value = "star,craq,raft,etcd,redis,nats")]
    systems: Vec<SystemArg>,
    /// Servers of each system
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    servers: u16,
    /// How long each load is measured, in each round
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// How often everything is measured
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// Only the rows whose name begins so
    #[arg(long, value_name = "PREFIX", default_value = "")]
    rows: String,
    /// A directory for the table, all figures and a plot
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds >= 0.1 && *seconds <= 3600.0);
    seconds.ok_or_else(|| "it must be from 0.1 to 3600".to_owned())
}

/// All figures of one row on one system, a report a round.
#[derive(Debug, Serialize)]
struct Cell {
    row: &'static str,
    system: &'static str,
    reports: Vec<Report>,
}

impl Cell {
    fn median(&self, figure: impl Fn(&Report) -> f64) -> f64 {
        let mut figures: Vec<f64> = self.reports.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(0.0)
    }

    /// Operations per second, reads and writes together.
    fn per_second(&self) -> f64 {
        self.median(|report| report.read.ops_per_s + report.write.ops_per_s)
    }

    /// The median latency of the more frequent kind, in microseconds.
    fn p50_us(&self) -> f64 {
        self.median(|report| if report.read.ops > report.write.ops { report.read.p50_us } else { report.write.p50_us })
    }

    /// Processor time of the servers an operation, in microseconds.
    fn cpu_us(&self) -> f64 {
        self.median(|report| report.cpu_us_per_op.unwrap_or(0.0))
    }

    fn errors(&self) -> u64 {
        self.reports.iter().map(|report| report.errors).sum()
    }
}

pub(crate) fn run(global: &GlobalArgs, args: &CompareArgs) -> CliResult {
    let rows: Vec<Row> = ROWS.into_iter().filter(|row| row.name.starts_with(args.rows.as_str())).collect();
    if rows.is_empty() {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        return Err(CliError::usage(format!("no row begins with {:?}", args.rows))
            .hint(format!("the rows are: {}", names.join("; "))));
    }
    let mut systems = args.systems.clone();
    systems.dedup();
    connection::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        tokio::select! {
            () = signals.next() => Ok(Exit::Interrupted),
            outcome = compare(global, args, &rows, systems) => outcome,
        }
    })
}

async fn compare(global: &GlobalArgs, args: &CompareArgs, rows: &[Row], mut systems: Vec<SystemArg>) -> CliResult {
    let bar = progress((systems.len() * rows.len() * usize::from(args.rounds)) as u64);
    let mut cells: Vec<Cell> = Vec::new();
    for _ in 0..args.rounds {
        let mut missing = Vec::new();
        for system in &systems {
            match one_round(global, args, rows, *system, &bar).await {
                Ok(reports) => add(&mut cells, rows, *system, reports),
                Err(error) if system.peer().is_some() => {
                    bar.suspend(|| output::note(format!("{} is left out: {}", system.name(), error.message())));
                    missing.push(*system);
                }
                Err(error) => return Err(error),
            }
        }
        systems.retain(|system| !missing.contains(system));
    }
    bar.finish_and_clear();
    if global.json {
        output::json_line(&cells)?;
    } else {
        output::line(table::text(rows, &systems, &cells).to_string())?;
    }
    if let Some(directory) = &args.out {
        write(directory, args, rows, &systems, &cells)?;
        output::note(format!("written to {}", directory.display()));
    }
    Ok(Exit::Done)
}

fn add(cells: &mut Vec<Cell>, rows: &[Row], system: SystemArg, reports: Vec<Option<Report>>) {
    for (row, report) in rows.iter().zip(reports) {
        let Some(report) = report else { continue };
        match cells.iter_mut().find(|cell| cell.row == row.name && cell.system == system.name()) {
            Some(cell) => cell.reports.push(report),
            None => cells.push(Cell { row: row.name, system: system.name(), reports: vec![report] }),
        }
    }
}

/// All rows on one system, on servers that are started for them. Rows that the system has not are `None`.
async fn one_round(
    global: &GlobalArgs,
    args: &CompareArgs,
    rows: &[Row],
    system: SystemArg,
    bar: &ProgressBar,
) -> Result<Vec<Option<Report>>, CliError> {
    let servers = usize::from(args.servers);
    if let Some(peer) = system.peer() {
        let store_directory = settings::load(global)?.store.directory;
        let group = Group::start(peer, &Wanted { servers, capacity_bytes: CAPACITY_BYTES, store_directory }).await?;
        let (tcp, mapped) = (group.tcp_targets(), group.mapped_targets());
        let leaders = leaders(&group.system, &tcp).await;
        let place = Place { system: group.system.clone(), pids: group.pids(), tcp: &tcp, mapped: &mapped, leaders };
        return all_rows(args, rows, &place, bar).await;
    }
    let own = [("store.capacity_bytes".to_owned(), CAPACITY_BYTES.to_string())];
    let mut own = Processes::start(Plan::own_cluster(global, "compare", servers, &own)?)?;
    let outcome = async {
        let cluster = own.ready(|_| {}).await?;
        let (tcp, mapped) = (targets(TransportArg::Tcp, &cluster)?, targets(TransportArg::Auto, &cluster)?);
        let leaders = cluster.leaders(&tcp);
        let place = Place { system: System::Star, pids: cluster.pids(), tcp: &tcp, mapped: &mapped, leaders };
        all_rows(args, rows, &place, bar).await
    };
    let outcome = outcome.await;
    own.stop_after(outcome).await
}

/// Where the loads go.
struct Place<'a> {
    system: System,
    pids: Vec<u32>,
    tcp: &'a [Target],
    /// With mapped stores; empty if the system has none.
    mapped: &'a [Target],
    /// For each star which of the targets without a mapped store leads it; empty where that is no question.
    leaders: Vec<usize>,
}

/// Who leads which chain, of a system that has several and tells.
async fn leaders(system: &System, targets: &[Target]) -> Vec<usize> {
    if *system != System::Craq {
        return Vec::new();
    }
    let known: Vec<_> = targets.iter().map(|target| (target.addr.clone(), target.addr.clone())).collect();
    status::gather(&known, Duration::from_secs(1)).await.leaders(targets)
}

async fn all_rows(
    args: &CompareArgs,
    rows: &[Row],
    place: &Place<'_>,
    bar: &ProgressBar,
) -> Result<Vec<Option<Report>>, CliError> {
    let mut reports = Vec::new();
    for row in rows {
        let targets = if row.mapped { place.mapped } else { place.tcp };
        bar.set_message(format!("{}: {}", place.system.name(), row.name));
        reports.push(match targets {
            [] => None,
            targets => Some(star_bench::run(options(args, row, place, targets), |_| {}).await?),
        });
        bar.inc(1);
    }
    Ok(reports)
}

fn options(args: &CompareArgs, row: &Row, place: &Place<'_>, targets: &[Target]) -> Options {
    Options {
        system: place.system.clone(),
        targets: targets.to_vec(),
        leaders: if row.to_leader { place.leaders.clone() } else { Vec::new() },
        servers: usize::from(args.servers),
        pids: place.pids.clone(),
        clients: row.clients,
        pipeline: row.pipeline,
        rate: None,
        seconds: args.seconds,
        warm_up_seconds: (args.seconds / 4.0).min(1.0),
        read_share: row.read_share,
        keys: row.keys,
        distribution: Distribution::Uniform,
        value_bytes: row.value_bytes,
        fill: true,
        record: false,
        seed: 1,
    }
}

fn progress(steps: u64) -> ProgressBar {
    if !output::stderr_is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a template that indicatif knows");
    ProgressBar::new(steps).with_style(style)
}

/// Writes `table.md`, `figures.json` and `throughput.svg`.
fn write(
    directory: &PathBuf,
    args: &CompareArgs,
    rows: &[Row],
    systems: &[SystemArg],
    cells: &[Cell],
) -> Result<(), CliError> {
    let put = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text)
            .map_err(|error| CliError::from(error).context(format!("cannot write {}", path.display())))
    };
    std::fs::create_dir_all(directory)
        .map_err(|error| CliError::from(error).context(format!("cannot make {}", directory.display())))?;
    let mut text = String::new();
    let (servers, rounds, seconds) = (args.servers, args.rounds, args.seconds);
    let names: Vec<&str> = systems.iter().map(|system| system.name()).collect();
    let _ = writeln!(
        text,
        "`star compare --systems {} --servers {servers} --rounds {rounds} --seconds {seconds}` on {}; medians.\n",
        names.join(","),
        machine()
    );
    text.push_str(&table::markdown(rows, systems, cells));
    put("table.md", text)?;
    put("figures.json", serde_json::to_string_pretty(cells).map_err(std::io::Error::from)?)?;
    put("throughput.svg", plot::throughput(rows, systems, cells))
}

/// The machine in a few words.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {}", model.unwrap_or("an unnamed processor"))
}
