//! What the history proves: the checkers' verdict, and in numbers what went wrong if anything did.

use std::collections::BTreeMap;

use serde::Serialize;
use star_core::Version;
use star_sim::{
    history::{History, Name, Op, Operation, Outcome},
    linearizable::wgl,
};

use crate::commands::check::Judgement;

/// Clients from this number on read after everything was healed.
pub(super) const FIRST_LAST_READER: u32 = 900;

/// The judgement of a whole run.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) judgement: Judgement,
    pub(super) faults: Faults,
}

/// What must be 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Faults {
    /// Acknowledged writes that no server has at the end, although nobody overwrote them.
    pub(super) lost_writes: u64,
    /// Reads that saw less than was acknowledged, or read, before they began.
    pub(super) stale_reads: u64,
    /// Values that stood under more than one version: their write took effect more than once.
    pub(super) duplicated_effects: u64,
}

impl Verdict {
    pub(super) fn of(history: &History) -> Self {
        let mut faults = Faults { duplicated_effects: duplicated(history), ..Faults::default() };
        for group in history.by_key() {
            let key = Key::of(history, &group);
            faults.stale_reads += key.stale_reads();
            faults.lost_writes += key.lost_writes();
        }
        Self { judgement: Judgement::of(history, wgl::STATES_MAX), faults }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.judgement.is_linearizable() && self.faults == Faults::default()
    }
}

/// Each write carries a value of its own, so a value has one version.
fn duplicated(history: &History) -> u64 {
    let mut versions: BTreeMap<Name, Version> = BTreeMap::new();
    let mut twice = std::collections::BTreeSet::new();
    for operation in history.operations() {
        if let (Some(value), Outcome::Done { version: Some(version), .. }) = (operation.value, operation.outcome)
            && *versions.entry(value).or_insert(version) != version
        {
            twice.insert(value);
        }
    }
    twice.len() as u64
}

/// The place of a write or delete among the changes of its key: later ones are greater.
fn place(op: Op, version: Version) -> u64 {
    version.0 * 2 + u64::from(op == Op::Delete)
}

/// The operations of one key.
struct Key<'a> {
    operations: Vec<&'a Operation>,
    /// Calls of the deletes that were done, or may have been, with their places (the last one there is, if unknown).
    deletes: Vec<(u64, u64)>,
}

impl<'a> Key<'a> {
    fn of(history: &'a History, group: &[usize]) -> Self {
        let operations: Vec<&Operation> = group.iter().map(|index| &history.operations()[*index]).collect();
        let delete = |operation: &&Operation| match operation.outcome {
            _ if operation.op != Op::Delete => None,
            Outcome::Unknown => Some((operation.call, u64::MAX)),
            Outcome::Done { version: Some(version), .. } => Some((operation.call, place(Op::Delete, version))),
            _ => None,
        };
        Self { deletes: operations.iter().filter_map(delete).collect(), operations }
    }

    /// Changes that were acknowledged, with their places.
    fn acknowledged(&self) -> impl Iterator<Item = (&'a Operation, u64)> + '_ {
        self.operations.iter().filter(|operation| operation.op != Op::Read).filter_map(|operation| {
            match operation.outcome {
                Outcome::Done { version: Some(version), .. } => Some((*operation, place(operation.op, version))),
                _ => None,
            }
        })
    }

    /// Whether a delete may have come after what is at `floor`, and before `until`.
    fn may_be_deleted(&self, floor: u64, until: u64) -> bool {
        self.deletes.iter().any(|(call, at)| *call < until && *at > floor)
    }

    /// Reads behind what was known before they began.
    fn stale_reads(&self) -> u64 {
        // What is known from when on: of the changes acknowledged and the versions read.
        let mut known: Vec<(u64, u64)> =
            self.acknowledged().filter_map(|(one, at)| Some((one.outcome.ret()?, at))).collect();
        let reads: Vec<(&Operation, u64, Option<Version>)> = self
            .operations
            .iter()
            .filter(|operation| operation.op == Op::Read)
            .filter_map(|operation| match operation.outcome {
                Outcome::Done { ret, version } => Some((*operation, ret, version)),
                _ => None,
            })
            .collect();
        known.extend(reads.iter().filter_map(|(_, ret, version)| Some((*ret, place(Op::Read, (*version)?)))));
        known.sort_unstable();
        let mut highest = 0;
        for entry in &mut known {
            highest = highest.max(entry.1);
            entry.1 = highest;
        }
        let is_stale = |(read, ret, version): &&(&Operation, u64, Option<Version>)| {
            let before = known.partition_point(|(told, _)| *told < read.call);
            let floor = before.checked_sub(1).map_or(0, |last| known[last].1);
            match version {
                Some(version) => place(Op::Read, *version) < floor,
                // Nothing was found: right after a delete, wrong after a write.
                None => floor > 0 && floor % 2 == 0 && !self.may_be_deleted(floor, *ret),
            }
        };
        reads.iter().filter(is_stale).count() as u64
    }

    /// Acknowledged changes that the last reads do not show.
    fn lost_writes(&self) -> u64 {
        let last = self.operations.iter().filter(|operation| operation.client >= FIRST_LAST_READER);
        let shown = last.filter_map(|operation| match operation.outcome {
            Outcome::Done { version: Some(version), .. } => Some(place(Op::Read, version)),
            // Where a delete of unknown outcome may have been done, nothing is certainly lost.
            Outcome::Done { version: None, .. } => Some(self.deletes.iter().map(|(_, at)| *at).max().unwrap_or(0)),
            _ => None,
        });
        let Some(shown) = shown.min() else { return 0 };
        self.acknowledged().filter(|(_, at)| *at > shown).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(lines: &[&str]) -> Faults {
        let history = History::read(lines.join("\n").as_bytes()).expect("good lines");
        let verdict = Verdict::of(&history);
        let is_clean = verdict.faults == Faults::default();
        assert_eq!(verdict.judgement.is_linearizable(), is_clean, "the checkers say the same: {:?}", verdict.faults);
        verdict.faults
    }

    const ONE: &str = r#"{"client":0,"op":"w","key":"k","value":"one","version":1,"call":0,"ret":10,"ok":true}"#;
    const TWO: &str = r#"{"client":0,"op":"w","key":"k","value":"two","version":2,"call":20,"ret":30,"ok":true}"#;
    const GONE: &str = r#"{"client":0,"op":"del","key":"k","version":3,"call":40,"ret":50,"ok":true}"#;
    const SEES_TWO: &str =
        r#"{"client":900,"op":"r","key":"k","value":"two","version":2,"call":60,"ret":70,"ok":true}"#;
    const SEES_ONE: &str =
        r#"{"client":900,"op":"r","key":"k","value":"one","version":1,"call":60,"ret":70,"ok":true}"#;
    const SEES_NOTHING: &str = r#"{"client":900,"op":"r","key":"k","call":60,"ret":70,"ok":true}"#;

    #[test]
    fn what_is_right_is_clean() {
        for lines in [&[ONE, TWO, SEES_TWO][..], &[ONE, TWO, GONE, SEES_NOTHING], &[SEES_NOTHING], &[ONE, SEES_ONE]] {
            assert_eq!(faults(lines), Faults::default(), "{lines:?}");
        }
        let pending_delete = r#"{"client":0,"op":"del","key":"k","call":40,"ok":false}"#;
        assert_eq!(faults(&[ONE, TWO, pending_delete, SEES_NOTHING]), Faults::default());
    }

    #[test]
    fn what_is_lost_is_also_stale() {
        let lost = Faults { lost_writes: 1, stale_reads: 1, duplicated_effects: 0 };
        assert_eq!(faults(&[ONE, TWO, SEES_ONE]), lost, "the second write");
        assert_eq!(faults(&[ONE, SEES_NOTHING]), lost, "the only write");
        assert_eq!(faults(&[ONE, TWO, GONE, SEES_TWO]), lost, "the delete");
        let early = SEES_ONE.replace("900", "1");
        let stale = Faults { lost_writes: 0, ..lost };
        assert_eq!(faults(&[ONE, TWO, &early, &SEES_TWO.replace("60", "80").replace("70", "90")]), stale);
    }

    #[test]
    fn a_write_done_twice_is_seen() {
        let again = SEES_ONE.replace("\"version\":1", "\"version\":3");
        assert_eq!(faults(&[ONE, TWO, &again]), Faults { duplicated_effects: 1, ..Faults::default() });
    }
}
