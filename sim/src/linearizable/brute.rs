//! The plainest check there is, for histories of a handful of operations: try every order, with versions as plain
//! numbers. It shares no code with the other two beyond the reading of the history.

use star_core::collections::Set;

use super::register::{Event, Item, items};
use crate::history::{History, Name};

/// Room between two versions for those that nobody ever saw.
const SPREAD: u64 = 64;

pub(crate) fn is_linearizable(history: &History) -> bool {
    history.by_key().iter().all(|group| {
        let items = items(history, group);
        let mut named: Set<u64> = Set::default();
        for item in &items {
            match item.event {
                Event::Wrote { version, expected, .. } | Event::Deleted { version, expected } => {
                    named.extend(version);
                    named.extend(expected);
                }
                Event::SawValue { version, .. } | Event::SawVersion { version } => {
                    named.insert(version);
                }
                Event::SawNothing | Event::Absurd => {}
            }
        }
        let mut named: Vec<u64> = named.into_iter().map(|version| version * SPREAD).collect();
        named.sort_unstable();
        any_order(&items, &mut vec![false; items.len()], None, 0, &named)
    })
}

/// Whether the operations that are not `used` can follow on an `object` when `last` was the last version.
fn any_order(items: &[Item], used: &mut Vec<bool>, object: Option<(Name, u64)>, last: u64, named: &[u64]) -> bool {
    let first_return = items.iter().zip(&*used).filter(|(_, used)| !**used).map(|(item, _)| item.ret).min();
    let Some(first_return) = first_return.filter(|ret| *ret < u64::MAX) else { return true };
    for place in 0..items.len() {
        if used[place] || items[place].call > first_return {
            continue;
        }
        used[place] = true;
        for (object, last) in results(&items[place], object, last, named) {
            if any_order(items, used, object, last, named) {
                return true;
            }
        }
        used[place] = false;
    }
    false
}

fn results(item: &Item, object: Option<(Name, u64)>, last: u64, named: &[u64]) -> Vec<(Option<(Name, u64)>, u64)> {
    let found = object.map_or(0, |(_, version)| version);
    let met = |expected: Option<u64>| expected.is_none_or(|expected| expected * SPREAD == found);
    let same = |fits: bool| if fits { vec![(object, last)] } else { vec![] };
    match item.event {
        Event::Wrote { value, version, expected } if met(expected) => {
            let unseen = if version.is_none() { Some(last + 1) } else { None };
            let choices = named.iter().copied().filter(|at| version.is_none_or(|version| version * SPREAD == *at));
            let choices = choices.chain(unseen).filter(|at| *at > last);
            choices.map(|at| (Some((value, at)), at)).collect()
        }
        Event::Deleted { version, expected } if met(expected) && object.is_some() => match version {
            Some(version) if version * SPREAD >= found => vec![(None, version * SPREAD)],
            Some(_) => vec![],
            None => vec![(None, last)],
        },
        Event::SawValue { value, version } => same(object == Some((value, version * SPREAD))),
        Event::SawVersion { version } => same(object.is_some() && found == version * SPREAD),
        Event::SawNothing => same(object.is_none()),
        Event::Wrote { .. } | Event::Deleted { .. } | Event::Absurd => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::tests_support::random_history;
    use crate::linearizable::{Verdict, versions, wgl};
    use crate::random::Random;

    fn dump(history: &History) -> String {
        let mut out = Vec::new();
        history.write(&mut out).expect("memory takes all");
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn all_three_checkers_agree_on_random_histories() {
        let (mut yes, mut no, mut open) = (0, 0, 0);
        for seed in 0..100_000 {
            let mut random = Random::new(seed);
            let history = random_history(&mut random);
            let expected = is_linearizable(&history);
            let searched = wgl::check(&history, 1_000_000);
            assert_eq!(searched.is_linearizable(), expected, "seed {seed}: search {searched:?}\n{}", dump(&history));
            assert!(!matches!(searched, Verdict::Undecided { .. }), "seed {seed}");
            match versions::check(&history) {
                Verdict::Linearizable => {
                    assert!(expected, "seed {seed}: versions see nothing wrong\n{}", dump(&history));
                    yes += 1;
                }
                Verdict::Violation(violation) => {
                    assert!(!expected, "seed {seed}: versions see {violation}\n{}", dump(&history));
                    no += 1;
                }
                Verdict::Undecided { .. } => open += 1,
            }
        }
        // The histories must be of all kinds, or the agreement says nothing.
        assert!(yes > 40_000 && no > 10_000 && open > 5_000, "{yes} yes, {no} no, {open} open");
    }
}
