//! `sim`: runs the simulator over many seeds, or over one with every event shown.

use std::{io::Write, ops::Range, process::ExitCode};

use rustix::time::{ClockId, clock_gettime};
use star_sim::{
    campaign::{Bug, Campaign, Mode},
    world::{Summary, Trace, faults::FaultKind},
};

const USAGE: &str = "\
sim: runs the Star protocol in a made-up world, with faults, and checks everything

  --seeds A..B    run the seeds from A to B, without B (default 0..1000)
  --seed N        run one seed
  --trace         show every event of it
  --servers N     servers (default: 2 to 5, from the seed)
  --steps N       inputs until everything is healed (default: from the seed)
  --mode NAME     what breaks beside the links: links (nothing else, the default), turnover (stars get other leaders),
                  churn (everything: crashes, stops, pauses longer than a lease, the control plane away)
  --bug NAME      put a mistake in, to see that it is found

Exit code 0: no seed failed; 1: a seed failed (it is named, with the command that runs it again); 2: a wrong option.";

/// How often progress is shown, in seeds.
const PROGRESS_EVERY: u64 = 500;

struct Options {
    campaign: Campaign,
    seeds: Range<u64>,
    trace: bool,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if options.trace { show(&options) } else { run_all(&options) }
}

/// Runs the first seed with every event shown.
fn show(options: &Options) -> ExitCode {
    let seed = options.seeds.start;
    let out = Box::new(std::io::BufWriter::new(std::io::stdout()));
    let run = options.campaign.world(seed, Trace::to(out)).run();
    match run {
        Ok(summary) => {
            eprintln!("seed {seed}: no failure, trace hash {:016x}", summary.digest);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("seed {seed} fails {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run_all(options: &Options) -> ExitCode {
    let begin = cpu_seconds();
    let mut total = Summary::default();
    let count = options.seeds.end - options.seeds.start;
    for (done, seed) in options.seeds.clone().enumerate() {
        match options.campaign.run(seed) {
            Ok(summary) => total.add(&summary),
            Err(failure) => {
                eprintln!("\nseed {seed} fails {failure}\nrun it again: {}", options.campaign.replay(seed));
                return ExitCode::FAILURE;
            }
        }
        let done = done as u64 + 1;
        if done.is_multiple_of(PROGRESS_EVERY) && done < count {
            eprint!("\r{done} of {count} seeds, {} faults, {} operations", total.faults, total.operations);
            let _ = std::io::stderr().flush();
        }
    }
    let cpu = (cpu_seconds() - begin).max(1e-9);
    let simulated = total.simulated as f64 / 1e9;
    eprintln!();
    println!(
        "{count} seeds without a failure: {} steps, {} operations ({} answered requests, {} of unknown outcome), \
         {} faults, {} changes of views, {} of {} messages lost, {} keys judged by versions alone",
        total.steps,
        total.operations,
        total.answers,
        total.unknown,
        total.faults,
        total.views,
        total.lost,
        total.messages,
        total.undecided
    );
    let kinds = FaultKind::ALL.iter().zip(total.faults_by_kind).map(|(kind, count)| format!("{kind:?} {count}"));
    println!("faults: {}", kinds.collect::<Vec<_>>().join(", "));
    println!(
        "{simulated:.0} simulated seconds in {cpu:.1} s of CPU time: {:.0} simulated seconds and {:.0} faults per CPU second, \
         a fault every {:.2} simulated seconds",
        simulated / cpu,
        total.faults as f64 / cpu,
        simulated / (total.faults as f64).max(1.0)
    );
    ExitCode::SUCCESS
}

/// CPU time of this process so far, in seconds.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { campaign: Campaign::default(), seeds: 0..1000, trace: false };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--seeds" => options.seeds = range(&value()?)?,
            "--seed" => {
                let seed: u64 = number(&value()?)?;
                options.seeds = seed..seed + 1;
            }
            "--trace" => options.trace = true,
            "--servers" => {
                let servers: u16 = number(&value()?)?;
                if !(1..=26).contains(&servers) {
                    return Err(format!("--servers is 1 to 26, not {servers}"));
                }
                options.campaign.servers = Some(servers);
            }
            "--steps" => options.campaign.steps = Some(number(&value()?)?),
            "--mode" => {
                let name = value()?;
                let mode = Mode::ALL.into_iter().find(|mode| mode.name() == name);
                options.campaign.mode = mode.ok_or("--mode is links, turnover or churn")?;
            }
            "--bug" => {
                let name = value()?;
                let bug = Bug::all().find(|bug| bug.name() == name);
                let names = || Bug::all().map(Bug::name).collect::<Vec<_>>().join(", ");
                options.campaign.bug = Some(bug.ok_or_else(|| format!("--bug is one of {}", names()))?);
            }
            _ => return Err(format!("{word} is not an option")),
        }
    }
    if options.trace && options.seeds.end - options.seeds.start != 1 {
        return Err("--trace shows one seed: give it with --seed".into());
    }
    Ok(options)
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (start, end) = text.split_once("..").ok_or_else(|| format!("--seeds is A..B, not {text:?}"))?;
    let (start, end) = (number(start)?, number(end)?);
    if start < end { Ok(start..end) } else { Err(format!("--seeds {text} has no seed in it")) }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number that fits here"))
}
