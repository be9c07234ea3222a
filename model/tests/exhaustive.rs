//! Every state within the bounds, and each mistake found in them.

use star_model::{Bounds, Mistake};
use stateright::{Checker, Model};

/// Goes through everything; says how many states there are, so that a change of the model shows.
fn check(bounds: Bounds, states: usize) {
    let checker = bounds.checker().spawn_dfs().join();
    checker.assert_properties();
    assert_eq!(checker.unique_state_count(), states);
}

/// Remove, join and promote: a server that lost its memory, or only its lease, gets through all steps.
#[test]
fn every_state_of_four_epochs_and_a_write_is_safe() {
    check(Bounds { epochs: 4, writes: 1, crashes: 1, lapses: 1, mistake: None }, 10_399_826);
}

/// A mistake, the epochs, writes and lapses that it needs to show, and the property that it breaks.
const STATED: [(Mistake, u8, u8, u8, &str); 9] = [
    (Mistake::RemovedWhileLeased, 2, 1, 0, LEASES),
    (Mistake::RemovedWhileLeased, 2, 1, 0, READS),
    (Mistake::LeaseRevived, 2, 1, 1, LEASES),
    (Mistake::LeaseRevived, 2, 1, 1, READS),
    (Mistake::LateGrantCounts, 2, 1, 1, LEASES),
    (Mistake::LateGrantCounts, 2, 1, 1, READS),
    (Mistake::AcksOfOtherEpochs, 2, 2, 0, READS),
    (Mistake::OrderIsWhatIsCommitted, 2, 1, 0, COMMITTED),
    (Mistake::JoiningServes, 3, 1, 1, READS),
];

const LEASES: &str = "lease exclusion";
const READS: &str = "no stale read";
const COMMITTED: &str = "committed survives takeover";

#[test]
fn each_mistake_is_found_and_nothing_without_it() {
    for (mistake, epochs, writes, lapses, property) in STATED {
        let bounds = Bounds { epochs, writes, crashes: 0, lapses, mistake: Some(mistake) };
        let found = bounds.clone().checker().spawn_dfs().join().discovery(property).is_some();
        assert!(found, "{mistake:?} does not break {property:?}");
        let sound = Bounds { mistake: None, ..bounds }.checker().spawn_dfs().join();
        for safety in [LEASES, READS, COMMITTED] {
            assert!(sound.discovery(safety).is_none(), "{safety:?} is broken without a mistake");
        }
    }
}

#[test]
fn every_mistake_is_stated() {
    for mistake in Mistake::ALL {
        assert!(STATED.iter().any(|(stated, ..)| *stated == mistake), "{mistake:?} is not looked for");
    }
}
