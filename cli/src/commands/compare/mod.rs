//! `star compare`: the same loads on Star and on other systems, side by side.

mod cells;
mod measure;
mod plot;
mod report;
mod rows;
mod table;

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use self::{
    cells::Cells,
    report::Comparison,
    rows::{ROWS, Row},
};
use crate::{
    args::GlobalArgs,
    commands::bench::SystemArg,
    connection,
    error::{CliError, CliResult, Exit},
    output,
    signals::Signals,
};

const EXAMPLES: &str = "\
Examples:
  star compare                                     every system that is installed, 3 servers, a quarter of an hour
  star compare --systems star,redis --rows SET     the rows that begin with SET
  star compare --servers 3,5 --out report          tables, all figures as JSON and plots in a directory
Every system gets servers of its own, which run one system at a time; the rounds take the systems in turn, and the tables
show medians. Systems whose program is not installed are left out, and a note says so. Messages and bytes are of the whole
machine, so nothing else should use its network meanwhile.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompareArgs {
    /// The systems to measure, in the order of the table
    #[arg(long, value_delimiter = ',', default_value = "star,craq,raft,etcd,redis,nats")]
    systems: Vec<SystemArg>,
    /// Servers of each system; with several numbers each is measured
    #[arg(
        long, value_name = "COUNT,…", value_delimiter = ',', default_value = "3",
        value_parser = clap::value_parser!(u16).range(1..=9)
    )]
    servers: Vec<u16>,
    /// How long each load is measured, in each round
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// How often everything is measured
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// Only the rows whose name begins so
    #[arg(long, value_name = "PREFIX", default_value = "")]
    rows: String,
    /// A directory for the tables, all figures and plots
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds >= 0.1 && *seconds <= 3600.0);
    seconds.ok_or_else(|| "it must be from 0.1 to 3600".to_owned())
}

pub(crate) fn run(global: &GlobalArgs, args: &CompareArgs) -> CliResult {
    let rows: Vec<Row> = ROWS.into_iter().filter(|row| row.name.starts_with(args.rows.as_str())).collect();
    if rows.is_empty() {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        return Err(CliError::usage(format!("no row begins with {:?}", args.rows))
            .hint(format!("the rows are: {}", names.join("; "))));
    }
    connection::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        tokio::select! {
            () = signals.next() => Ok(Exit::Interrupted),
            outcome = compare(global, args, rows) => outcome,
        }
    })
}

async fn compare(global: &GlobalArgs, args: &CompareArgs, rows: Vec<Row>) -> CliResult {
    let comparison = measure(global, args, rows).await?;
    if global.json {
        output::json_line(&comparison.cells)?;
    } else {
        output::line(comparison.text())?;
    }
    if let Some(directory) = &args.out {
        comparison.write(directory)?;
        output::note(format!("written to {}", directory.display()));
    }
    Ok(Exit::Done)
}

/// All rounds. A system that is another's, and cannot be started or measured, is left out from then on.
async fn measure(global: &GlobalArgs, args: &CompareArgs, rows: Vec<Row>) -> Result<Comparison, CliError> {
    let (mut systems, mut servers) = (args.systems.clone(), args.servers.clone());
    systems.dedup();
    servers.sort_unstable();
    servers.dedup();
    let bar = progress((systems.len() * servers.len() * rows.len() * usize::from(args.rounds)) as u64);
    let mut cells = Cells::default();
    for _ in 0..args.rounds {
        for count in &servers {
            let mut missing = Vec::new();
            for system in &systems {
                match measure::one_round(global, args.seconds, &rows, (*system, *count), &bar).await {
                    Ok(reports) => cells.add(*count, &rows, *system, reports),
                    Err(error) if system.peer().is_some() => {
                        bar.suspend(|| output::note(format!("{} is left out: {}", system.name(), error.message())));
                        missing.push(*system);
                    }
                    Err(error) => return Err(error),
                }
            }
            systems.retain(|system| !missing.contains(system));
        }
    }
    bar.finish_and_clear();
    Ok(Comparison { rows, systems, servers, rounds: args.rounds, seconds: args.seconds, cells })
}

fn progress(steps: u64) -> ProgressBar {
    if !output::stderr_is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a template that indicatif knows");
    ProgressBar::new(steps).with_style(style)
}
