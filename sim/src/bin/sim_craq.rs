//! `sim_craq`: runs CRAQ in the simulator over many seeds, or over one with every event shown.

use std::{ops::Range, process::ExitCode};

use craq::protocol::{Bug, Reads};
use star_sim::{
    campaign::Mode,
    craq::Campaign,
    world::{Summary, Trace},
};

const USAGE: &str = "\
sim_craq: runs CRAQ in a made-up world, with faults, and checks everything

  --seeds A..B    run the seeds from A to B, without B (default 0..1000)
  --seed N        run one seed and show every event of it
  --servers N     servers (default: 2 to 5, from the seed)
  --mode NAME     links (the default), turnover, churn or loss; see `sim`
  --reads NAME    apportioned or tail (default: from the seed)
  --bug NAME      put a mistake in, to see that it is found

Exit code 0: no seed failed; 1: a seed failed (it is named, with the command that runs it again); 2: a wrong option.";

fn main() -> ExitCode {
    let (campaign, seeds, is_shown) = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let (count, mut total) = (seeds.end - seeds.start, Summary::default());
    for seed in seeds {
        let trace = if is_shown { Trace::to(Box::new(std::io::stdout())) } else { Trace::silent() };
        match campaign.world(seed, trace).run() {
            Ok(summary) => total.add(&summary),
            Err(failure) => {
                eprintln!("seed {seed} fails {failure}\nrun it again: {}", campaign.replay(seed));
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "{count} seeds without a failure: {} steps, {} operations, {} faults, {} changes of views, {} of {} messages lost, \
         {:.0} simulated seconds, {} keys judged by versions alone",
        total.steps,
        total.operations,
        total.faults,
        total.views,
        total.lost,
        total.messages,
        total.simulated as f64 / 1e9,
        total.undecided
    );
    ExitCode::SUCCESS
}

fn options(mut words: impl Iterator<Item = String>) -> Result<(Campaign, Range<u64>, bool), String> {
    let (mut campaign, mut seeds, mut is_shown) = (Campaign::default(), 0..1000, false);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} is not an option, or needs a value"))?;
        match word.as_str() {
            "--seeds" => {
                let (from, to) = value.split_once("..").ok_or("--seeds is A..B")?;
                seeds = number(from)?..number(to)?;
                if seeds.is_empty() {
                    return Err(format!("--seeds {value} has no seed in it"));
                }
            }
            "--seed" => {
                let seed = number(&value)?;
                (seeds, is_shown) = (seed..seed + 1, true);
            }
            "--servers" => campaign.servers = Some(number(&value)?.clamp(1, 26) as u16),
            "--mode" => {
                let mode = Mode::ALL.into_iter().find(|mode| mode.name() == value);
                campaign.mode = mode.ok_or("--mode is links, turnover, churn or loss")?;
            }
            "--reads" => {
                let known = [("apportioned", Reads::Apportioned), ("tail", Reads::Tail)];
                let reads = known.into_iter().find(|(name, _)| *name == value);
                campaign.reads = Some(reads.ok_or("--reads is apportioned or tail")?.1);
            }
            "--bug" => {
                let bug = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == value);
                campaign.bug = Some(bug.ok_or_else(|| format!("--bug is one of {:?}", Bug::ALL))?);
            }
            _ => return Err(format!("{word} is not an option")),
        }
    }
    Ok((campaign, seeds, is_shown))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number that fits here"))
}
