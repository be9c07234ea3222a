//! Progress on stderr: bars where a person looks on, a line for each finished stage everywhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use star_core::{Clock, Time};

use crate::output::{self, GOOD};

/// The stages of the work.
#[derive(Debug)]
pub(super) struct Progress {
    is_live: bool,
}

/// A stage under way.
#[derive(Debug)]
pub(super) struct Stage {
    bar: ProgressBar,
    begin: Time,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { is_live: output::stderr_is_terminal() }
    }

    /// Begins a stage of so many steps.
    pub(super) fn stage(&self, name: &str, steps: u64) -> Stage {
        let bar = if self.is_live { ProgressBar::new(steps) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("  {prefix:24} {bar:30} {msg}").expect("a template that is known");
        bar.set_style(style);
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Stage { bar, begin: Clock.now() }
    }
}

/// Something is done that was no stage.
pub(super) fn done(text: &str) {
    output::note(format!("{GOOD}✓{GOOD:#} {text}"));
}

impl Stage {
    pub(super) fn set(&self, step: u64) {
        self.bar.set_position(step);
    }

    pub(super) fn step(&self) {
        self.bar.inc(1);
    }

    pub(super) fn say(&self, text: String) {
        self.bar.set_message(text);
    }

    /// The stage is over.
    pub(super) fn done(self, text: &str) {
        self.bar.finish_and_clear();
        let took = output::seconds(Clock.now().since(self.begin));
        done(&format!("{text} ({took})"));
    }
}

/// `1 object`, `12 objects`.
pub(super) fn objects(count: usize) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} object{plural}", output::count(count as u64))
}
