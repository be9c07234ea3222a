//! `sim`: runs the simulator over many seeds, or over one with every event shown.

mod progress;

use std::{ops::Range, path::PathBuf, process::ExitCode};

use star_sim::{
    campaign::{Bug, Campaign, Mode},
    world::Trace,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
sim: runs the Star protocol in a made-up world, with faults, and checks everything

  --seeds A..B    run the seeds from A to B, without B; a number alone is 0..B (default 0..1000)
  --seed N        run one seed
  --trace         show every event of it
  --jobs N        cores to use (default: all)
  --resume FILE   keep in FILE how far the run has come, and go on from there; a file of another program, of other
                  options or of another first seed is begun anew
  --servers N     servers (default: 2 to 5, from the seed)
  --steps N       inputs until everything is healed (default: from the seed)
  --mode NAME     what breaks beside the links: links (nothing else, the default), turnover (stars get other leaders),
                  churn (also crashes, stops, pauses longer than a lease, the control plane away for long), loss (also
                  the last copy of a star lost, the control plane back with an earlier state or with nothing), slow (as churn,
                  with more slow links, which values go around)
  --bug NAME      put a mistake in, to see that it is found

Exit code 0: no seed failed; 1: a seed failed (it is named, with the command that runs it again); 2: a wrong option.";

struct Options {
    campaign: Campaign,
    seeds: Range<u64>,
    trace: bool,
    jobs: usize,
    resume: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if options.trace { show(&options) } else { run_all(options) }
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

fn run_all(options: Options) -> ExitCode {
    let Options { campaign, seeds, jobs, resume, .. } = options;
    let mut run = progress::Run::begin(&campaign, seeds, resume);
    match run.reached.clone().go_on(&campaign, run.end, jobs, |reached| run.note(reached)) {
        Ok(_) => {
            run.finish();
            ExitCode::SUCCESS
        }
        Err(failed) => {
            let seed = failed.seed;
            eprintln!("\nseed {seed} fails {}\nrun it again: {}", failed.failure, campaign.replay(seed));
            ExitCode::FAILURE
        }
    }
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options { campaign: Campaign::default(), seeds: 0..1000, trace: false, jobs, resume: None };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--seeds" => options.seeds = range(&value()?)?,
            "--seed" => {
                let seed: u64 = number(&value()?)?;
                options.seeds = seed..seed + 1;
            }
            "--trace" => options.trace = true,
            "--jobs" => {
                options.jobs = number(&value()?)?;
                if options.jobs == 0 {
                    return Err("--jobs is 1 or more".into());
                }
            }
            "--resume" => options.resume = Some(value()?.into()),
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
                options.campaign.mode = mode.ok_or("--mode is links, turnover, churn, loss or slow")?;
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
    let (start, end) = text.split_once("..").unwrap_or(("0", text));
    let (start, end) = (number(start)?, number(end)?);
    if start < end { Ok(start..end) } else { Err(format!("--seeds {text} has no seed in it")) }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number that fits here"))
}
