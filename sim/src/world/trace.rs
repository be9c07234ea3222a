//! What happened, as one number for comparing runs and, if asked for, as lines for people.

use std::{fmt, io::Write};

use star_control::View;
use xxhash_rust::xxh3::Xxh3;

/// Takes every event of a run.
pub struct Trace {
    hash: Xxh3,
    out: Option<Box<dyn Write>>,
}

impl Trace {
    /// A trace that only hashes.
    pub fn silent() -> Self {
        Self { hash: Xxh3::new(), out: None }
    }

    /// A trace that also writes a line for every event.
    pub fn to(out: Box<dyn Write>) -> Self {
        Self { hash: Xxh3::new(), out: Some(out) }
    }

    /// XXH3 of all events so far.
    pub fn digest(&self) -> u64 {
        self.hash.digest()
    }

    /// Adds an event: `numbers` and `bytes` go into the hash, the line is only made if somebody reads it.
    pub(crate) fn event<D: fmt::Display>(&mut self, at: u64, numbers: &[u64], bytes: &[u8], line: impl FnOnce() -> D) {
        self.hash.update(&at.to_le_bytes());
        for number in numbers {
            self.hash.update(&number.to_le_bytes());
        }
        self.hash.update(&(bytes.len() as u64).to_le_bytes());
        self.hash.update(bytes);
        if let Some(out) = &mut self.out {
            let text = line().to_string();
            // Nobody to read it any more (a closed pipe): the run goes on without.
            if writeln!(out, "{:>12.6} ms  {text}", at as f64 / 1e6).is_err() {
                self.out = None;
            }
        }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({:016x})", self.digest())
    }
}

/// A view in a line: `star 0 epoch 7 leader 2 of 0 1 2 joining 1 learners 3`.
pub(crate) fn view_line(view: &View) -> String {
    let list = |what: &str, ids: &[star_core::ServerId]| match ids {
        [] => String::new(),
        ids => ids.iter().fold(format!(" {what}"), |line, id| format!("{line} {id}")),
    };
    let (members, joining) = (list("of", &view.members), list("joining", &view.joining));
    let learners = list("learners", &view.learners);
    let leaving = list("leaving", &view.leaving);
    format!("star {} epoch {} leader {}{members}{joining}{leaving}{learners}", view.star, view.epoch, view.leader)
}
