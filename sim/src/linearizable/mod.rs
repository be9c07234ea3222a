//! Is a history linearizable? Two checkers that know nothing of each other's ways, and a third for tests.
//!
//! * [`versions`]: sorts by version, `O(n log n)`; decides nearly every history, a million operations in seconds.
//! * [`wgl`]: searches for an order (Wing and Gong, with Lowe's memory of what was tried); decides all, but may take long.
//!
//! Keys are independent of each other, so each key's operations are judged by themselves (linearizability is local).
//! One operation is before another if it returned at an earlier time than the other was called; equal times overlap.

#[cfg(test)]
mod brute;
mod chain;
mod register;
pub mod versions;
pub mod wgl;

use std::fmt;

use crate::history::{History, Outcome};

/// What a checker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order of the operations that explains all answers.
    Linearizable,
    /// There is none.
    Violation(Box<Violation>),
    /// This checker cannot tell.
    Undecided {
        /// The key.
        key: String,
        /// What it cannot see, or what it ran out of.
        why: String,
    },
}

impl Verdict {
    /// Whether there is an order for sure.
    pub fn is_linearizable(&self) -> bool {
        *self == Self::Linearizable
    }

    /// Whether there is none for sure.
    pub fn is_violation(&self) -> bool {
        matches!(self, Self::Violation(_))
    }
}

/// Why a history is not linearizable, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key whose operations have no order.
    pub key: String,
    /// What cannot be.
    pub why: String,
    /// The indices in the history of the operations that show it, in the order of their calls.
    pub operations: Vec<usize>,
    /// The same operations, a line each.
    pub lines: Vec<String>,
}

impl Violation {
    pub(crate) fn new(history: &History, why: impl Into<String>, mut operations: Vec<usize>) -> Self {
        operations.sort_unstable_by_key(|index| (history.operations()[*index].call, *index));
        operations.dedup();
        let key = history.key(history.operations()[operations[0]].key).to_owned();
        let lines = operations.iter().map(|index| describe(history, *index)).collect();
        Self { key, why: why.into(), operations, lines }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "key {:?} is not linearizable: {}", self.key, self.why)?;
        self.lines.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// What both checkers say of a whole history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The verdict; `Undecided` names the first key that neither checker could decide.
    pub verdict: Verdict,
    /// Operations in the history.
    pub operations: usize,
    /// Keys in the history.
    pub keys: usize,
    /// Keys that the versions did not decide, so that the search did.
    pub searched: usize,
    /// Keys that neither decided.
    pub undecided: usize,
}

/// Checks a history: by versions, and by search where those leave a key open.
///
/// `states_max` bounds the search of one key.
pub fn check(history: &History, states_max: usize) -> Report {
    let groups = history.by_key();
    let mut report = Report {
        verdict: Verdict::Linearizable,
        operations: history.operations().len(),
        keys: groups.len(),
        searched: 0,
        undecided: 0,
    };
    for group in &groups {
        let mut verdict = versions::check_key(history, group);
        if matches!(verdict, Verdict::Undecided { .. }) {
            report.searched += 1;
            verdict = wgl::check_key(history, group, states_max);
        }
        match verdict {
            Verdict::Linearizable => {}
            Verdict::Violation(_) => {
                report.verdict = verdict;
                return report;
            }
            Verdict::Undecided { .. } => {
                report.undecided += 1;
                if report.undecided == 1 {
                    report.verdict = verdict;
                }
            }
        }
    }
    report
}

/// One operation on one line.
pub(crate) fn describe(history: &History, index: usize) -> String {
    let operation = &history.operations()[index];
    let condition = operation.if_version.map_or_else(String::new, |version| format!(" if version {version}"));
    let value = operation.value.map_or_else(String::new, |value| {
        let value = history.value(value);
        let short: String = value.chars().take(40).collect();
        let dots = if short.len() < value.len() { "…" } else { "" };
        format!(" {short:?}{dots}")
    });
    let answer = match operation.outcome {
        Outcome::Unknown => "unknown".to_owned(),
        Outcome::Refused { .. } => "not done".to_owned(),
        Outcome::Conflict { met, .. } => format!("conflict with version {met}"),
        Outcome::Done { version: Some(version), .. } => format!("version {version}"),
        Outcome::Done { version: None, .. } => "no object".to_owned(),
    };
    let ret = operation.outcome.ret().map_or_else(String::new, |ret| ret.to_string());
    let (client, name, call) = (operation.client, operation.op.name(), operation.call);
    format!("client {client:>3} {name:>3}{condition}{value} -> {answer}  [{call} .. {ret}] ns")
}
