//! `star check`: is a recorded history linearizable?

use std::{fs::File, io::BufReader, path::PathBuf, time::Duration};

use clap::Args;
use serde_json::{Value, json};
use star_core::Clock;
use star_sim::{
    history::History,
    linearizable::{Verdict, versions, wgl},
};

use crate::{
    args::GlobalArgs,
    error::{CliError, CliResult, Exit},
    output::{self, BAD, GOOD, STRONG},
};

const EXAMPLES: &str = "\
Example:
  star bench --seconds 5 --history run.jsonl && star check run.jsonl
Two checkers that know nothing of each other judge the history: one by the versions, one by search.
Exit code 0: it is linearizable. 1: it is not, or it could not be decided.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    /// The history: one JSON object on each line, as `star bench --history` writes it
    file: PathBuf,
    /// How many states the search may try for each key before it gives up
    #[arg(long, value_name = "COUNT", default_value_t = wgl::STATES_MAX)]
    states: usize,
}

/// What both checkers say.
#[derive(Debug)]
pub(super) struct Judgement {
    pub(super) operations: usize,
    pub(super) keys: usize,
    /// By the versions, and by search.
    verdicts: [(&'static str, Verdict, Duration); 2],
}

pub(crate) fn run(global: &GlobalArgs, args: &CheckArgs) -> CliResult {
    let clock = Clock;
    let begin = clock.now();
    let file = File::open(&args.file)
        .map_err(|error| CliError::from(error).context(format!("cannot open {}", args.file.display())))?;
    let history = History::read(BufReader::with_capacity(1 << 20, file))
        .map_err(|error| CliError::from(error).context(format!("cannot read {}", args.file.display())))?;
    let read = clock.now().since(begin);
    let judgement = Judgement::of(&history, args.states);
    if global.json {
        output::json_line(&judgement.json())?;
    } else {
        output::line(format!(
            "{} operations on {} keys, read in {}",
            output::count(judgement.operations as u64),
            output::count(judgement.keys as u64),
            output::seconds(read)
        ))?;
        judgement.print()?;
    }
    Ok(if judgement.is_linearizable() { Exit::Done } else { Exit::Error })
}

impl Judgement {
    /// Judges a history; the search of each key may try so many states.
    pub(super) fn of(history: &History, states_max: usize) -> Self {
        let timed = |name, check: &dyn Fn() -> Verdict| {
            let begin = Clock.now();
            let verdict = check();
            (name, verdict, Clock.now().since(begin))
        };
        let by_versions = timed("versions", &|| versions::check(history));
        let by_search = timed("search", &|| wgl::check(history, states_max));
        Self { operations: history.operations().len(), keys: history.keys(), verdicts: [by_versions, by_search] }
    }

    /// Whether a checker found an order, and none found that there is none.
    pub(super) fn is_linearizable(&self) -> bool {
        self.yes() > 0 && !self.is_violated()
    }

    /// How many of the checkers found an order.
    pub(super) fn yes(&self) -> usize {
        self.verdicts.iter().filter(|(_, verdict, _)| verdict.is_linearizable()).count()
    }

    fn is_violated(&self) -> bool {
        self.verdicts.iter().any(|(_, verdict, _)| verdict.is_violation())
    }

    /// Whether one checker says yes and the other no: then one of them is wrong.
    fn is_contradiction(&self) -> bool {
        self.is_violated() && self.yes() > 0
    }

    /// One word for scripts.
    pub(super) fn word(&self) -> &'static str {
        match (self.is_linearizable(), self.is_violated()) {
            (true, _) => "linearizable",
            (false, true) => "not linearizable",
            (false, false) => "undecided",
        }
    }

    pub(super) fn json(&self) -> Value {
        let checkers: serde_json::Map<_, _> = self
            .verdicts
            .iter()
            .map(|(name, verdict, took)| {
                let mut fields = json!({"seconds": took.as_secs_f64()});
                match verdict {
                    Verdict::Linearizable => fields["verdict"] = "linearizable".into(),
                    Verdict::Violation(violation) => {
                        fields["verdict"] = "not linearizable".into();
                        fields["key"] = violation.key.as_str().into();
                        fields["why"] = violation.why.as_str().into();
                        fields["operations"] = violation.lines.clone().into();
                    }
                    Verdict::Undecided { key, why } => {
                        fields["verdict"] = "undecided".into();
                        fields["key"] = key.as_str().into();
                        fields["why"] = why.as_str().into();
                    }
                }
                ((*name).to_owned(), fields)
            })
            .collect();
        json!({
            "verdict": self.word(),
            "linearizable": self.is_linearizable(),
            "operations": self.operations,
            "keys": self.keys,
            "checkers": checkers,
        })
    }

    pub(super) fn print(&self) -> std::io::Result<()> {
        for (name, verdict, took) in &self.verdicts {
            let took = output::seconds(*took);
            match verdict {
                Verdict::Linearizable => output::line(format!("by {name}: linearizable ({took})"))?,
                Verdict::Violation(violation) => {
                    output::line(format!(
                        "by {name}: NOT linearizable ({took})\n{}",
                        violation.to_string().trim_end()
                    ))?;
                }
                Verdict::Undecided { key, why } => {
                    output::line(format!("by {name}: undecided for key {key:?}: {why} ({took})"))?;
                }
            }
        }
        if self.is_contradiction() {
            let text = "the checkers contradict each other: one of them is wrong. Please report it with the history";
            output::line(format!("{BAD}{text}{BAD:#}"))?;
        }
        match self.word() {
            "linearizable" => output::line(format!("{GOOD}linearizable{GOOD:#}")),
            "undecided" => output::line(format!("{STRONG}undecided{STRONG:#}: allow more states with --states")),
            _ => output::line(format!("{BAD}NOT linearizable{BAD:#}")),
        }
    }
}
