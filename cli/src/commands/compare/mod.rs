//! `star compare`: the same loads on Star and on other systems, side by side.

mod cells;
mod measure;
mod plot;
mod report;
mod rows;
mod table;

use std::path::{Path, PathBuf};

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
machine, so nothing else should use its network meanwhile. Ctrl-C ends it, and what was measured by then is shown.";

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
    if let Some(directory) = &args.out {
        // Now, not after a quarter of an hour.
        report::make(directory)?;
    }
    let mut comparison = planned(args, rows);
    let outcome = connection::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        tokio::select! {
            () = signals.next() => Ok(Exit::Interrupted),
            outcome = measure(global, args.out.as_deref(), &mut comparison) => outcome.map(|()| Exit::Done),
        }
    });
    comparison.is_finished = matches!(outcome, Ok(Exit::Done));
    // What took so long is not thrown away because there is no more of it.
    if comparison.is_finished || !comparison.cells.is_empty() {
        show(global, args, &comparison)?;
    }
    outcome
}

fn show(global: &GlobalArgs, args: &CompareArgs, comparison: &Comparison) -> Result<(), CliError> {
    if global.json {
        output::json_line(&comparison.cells)?;
    } else {
        output::line(comparison.text())?;
    }
    if let Some(directory) = &args.out {
        comparison.write(directory)?;
        output::note(format!("written to {}", directory.display()));
    }
    Ok(())
}

/// What is to be measured; no figures yet.
fn planned(args: &CompareArgs, rows: Vec<Row>) -> Comparison {
    let (mut systems, mut servers) = (args.systems.clone(), args.servers.clone());
    systems.dedup();
    servers.sort_unstable();
    servers.dedup();
    let (rounds, seconds) = (args.rounds, args.seconds);
    Comparison { rows, systems, servers, rounds, seconds, cells: Cells::default(), is_finished: false }
}

/// All rounds. A system that is another's, and cannot be started or measured, is left out from then on. What is there is
/// written to `out` after each system.
async fn measure(global: &GlobalArgs, out: Option<&Path>, comparison: &mut Comparison) -> Result<(), CliError> {
    let (rounds, servers, mut systems) = (comparison.rounds, comparison.servers.clone(), comparison.systems.clone());
    let bar = progress((systems.len() * servers.len() * comparison.rows.len() * usize::from(rounds)) as u64);
    for _ in 0..rounds {
        for count in &servers {
            for system in systems.clone() {
                let Comparison { rows, seconds, cells, .. } = comparison;
                let measured = |row: &Row, report| cells.add(*count, row, system, report);
                match measure::one_round(global, *seconds, rows, (system, *count), (&bar, measured)).await {
                    Ok(()) => {}
                    Err(error) if system.peer().is_some() => {
                        bar.suspend(|| output::note(format!("{} is left out: {}", system.name(), error.message())));
                        systems.retain(|other| *other != system);
                        if !comparison.cells.has(system) {
                            comparison.systems.retain(|other| *other != system);
                        }
                    }
                    Err(error) => return Err(error),
                }
                if let Some(out) = out {
                    comparison.write(out)?;
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn progress(steps: u64) -> ProgressBar {
    if !output::stderr_is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a template that indicatif knows");
    ProgressBar::new(steps).with_style(style)
}
