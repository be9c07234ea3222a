//! Many seeds on several cores, in blocks whose results are put together in the order of the seeds, so that the sum is
//! the same however many cores there are, and a run that was stopped goes on where it was.

use std::{
    any::Any,
    collections::BTreeMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use serde::{Deserialize, Serialize};

use crate::{
    campaign::Campaign,
    world::{Failure, Summary},
};

/// Seeds that one core takes at a time.
const BLOCK: u64 = 50;

/// Where a run has come to: all seeds from `first` to `next`, without `next`, have passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// The first seed.
    pub first: u64,
    /// The seed to go on with.
    pub next: u64,
    /// What the seeds between came to.
    pub total: Summary,
}

/// A seed that fails, and why.
#[derive(Clone, Debug)]
pub struct FailedSeed {
    /// The seed.
    pub seed: u64,
    /// What went wrong in it.
    pub failure: Failure,
}

impl Reached {
    /// Before the first seed.
    pub fn nothing(first: u64) -> Self {
        Self { first, next: first, total: Summary::default() }
    }

    /// Runs the seeds from here to `end`, without `end`, on `cores` cores, and calls `note` whenever more have passed.
    /// The error is the lowest seed that failed; no block is begun after it.
    pub fn go_on(
        mut self,
        campaign: &Campaign,
        end: u64,
        cores: usize,
        mut note: impl FnMut(&Self),
    ) -> Result<Self, FailedSeed> {
        let next = AtomicU64::new(self.next);
        let mut ahead: BTreeMap<u64, (u64, Summary)> = BTreeMap::new();
        let mut failed: Option<FailedSeed> = None;
        let (results, reached) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..cores.max(1) {
                let (next, results) = (&next, results.clone());
                scope.spawn(move || {
                    loop {
                        let start = next.fetch_add(BLOCK, Ordering::Relaxed);
                        if start >= end {
                            return;
                        }
                        let block = start..end.min(start + BLOCK);
                        let result = run_block(campaign, block.clone());
                        if result.is_err() {
                            // Nobody begins another block: u64::MAX would overflow with the next addition.
                            next.store(end, Ordering::Relaxed);
                        }
                        if results.send((block, result)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(results);
            for (block, result) in reached {
                match result {
                    Ok(summary) => {
                        ahead.insert(block.start, (block.end, summary));
                    }
                    Err(other) if failed.as_ref().is_none_or(|failed| other.seed < failed.seed) => failed = Some(other),
                    Err(_) => {}
                }
                while let Some((block_end, summary)) = ahead.remove(&self.next) {
                    self.total.add(&summary);
                    self.next = block_end;
                    note(&self);
                }
            }
        });
        failed.map_or(Ok(self), Err)
    }
}

fn run_block(campaign: &Campaign, seeds: Range<u64>) -> Result<Summary, FailedSeed> {
    let mut total = Summary::default();
    for seed in seeds {
        // A panic is a failure like any other: whoever looks for it needs the seed.
        let result = catch_unwind(AssertUnwindSafe(|| campaign.run(seed)));
        let result = result.unwrap_or_else(|panic| Err(Failure { at: 0, steps: 0, what: words_of(&*panic) }));
        total.add(&result.map_err(|failure| FailedSeed { seed, failure })?);
    }
    Ok(total)
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().copied();
    let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a panic: {}", words.unwrap_or("without a word"))
}

#[cfg(test)]
mod tests {
    use star::protocol::Bug as StarBug;

    use super::*;
    use crate::campaign::Bug;

    fn campaign(bug: Option<StarBug>) -> Campaign {
        Campaign { steps: Some(100), bug: bug.map(Bug::Star), ..Campaign::default() }
    }

    fn run(campaign: &Campaign, end: u64, cores: usize) -> Result<Reached, FailedSeed> {
        Reached::nothing(0).go_on(campaign, end, cores, |_| {})
    }

    #[test]
    fn the_sum_does_not_depend_on_the_cores_nor_on_a_stop_on_the_way() {
        let campaign = campaign(None);
        let alone = run(&campaign, 230, 1).expect("good seeds");
        assert_eq!((alone.next, run(&campaign, 230, 3).expect("good seeds")), (230, alone.clone()));
        let mut half = Reached::nothing(0);
        let stop = |reached: &Reached| {
            if reached.next == 100 {
                half = reached.clone();
            }
        };
        assert_eq!(Reached::nothing(0).go_on(&campaign, 230, 2, stop).expect("good seeds"), alone);
        let text = serde_json::to_string(&half).expect("numbers");
        let half: Reached = serde_json::from_str(&text).expect("what was written");
        assert_eq!(half.next, 100);
        assert_eq!(half.go_on(&campaign, 230, 2, |_| {}).expect("good seeds"), alone);
    }

    #[test]
    fn the_lowest_failing_seed_is_named() {
        let campaign = campaign(Some(StarBug::VersionReused));
        let (first, _) = campaign.first_failure(0..1000).expect("a bug that shows");
        for cores in [1, 3] {
            assert_eq!(run(&campaign, 1000, cores).expect_err("a bug that shows").seed, first);
        }
    }
}
