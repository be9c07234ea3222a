//! Every planted bug is found, by the check that is there for it, within the stated number of seeds: what the checks
//! cannot find, they do not check. The same seed without the bug must pass, or the finding says nothing.

use star::protocol::Bug;
use star_sim::campaign::Campaign;

/// A bug, the words of a check that finds it, and how many seeds are enough.
const STATED: [(Bug, &str, u64); 11] = [
    (Bug::AckBeforeDirty, "not noted as dirty", 5),
    (Bug::DirtyReadAtOnce, "not linearizable", 10),
    (Bug::VersionReused, "version monotone", 5),
    (Bug::VersionReused, "clean means latest", 60),
    (Bug::RequestIdForgotten, "exactly once", 20),
    (Bug::RequestIdForgotten, "and then", 20),
    (Bug::EpochMissingFromAcks, "committed on all members", 100),
    (Bug::MajorityCommits, "committed on all members", 5),
    (Bug::InstallKeepsOwnStamps, "agreement", 40),
    (Bug::InstallKeepsOwnStamps, "committed on all members", 60),
    (Bug::LeaseIgnored, "lease exclusion", 10),
];

#[test]
fn each_planted_bug_is_found_by_its_check() {
    let sound = Campaign { turnover: true, ..Campaign::default() };
    for (bug, words, seeds) in STATED {
        let campaign = Campaign { bug: Some(bug), ..sound };
        let finds = |seed: &u64| campaign.run(*seed).is_err_and(|failure| failure.what.contains(words));
        let found = (0..seeds).find(finds);
        let seed = found.unwrap_or_else(|| panic!("{bug:?} was not found as {words:?} in {seeds} seeds"));
        if let Err(failure) = sound.run(seed) {
            panic!("seed {seed} shows nothing about {bug:?}: it fails without it, {failure}");
        }
    }
}

#[test]
fn every_bug_is_stated() {
    for bug in Bug::ALL {
        assert!(STATED.iter().any(|(stated, _, _)| *stated == bug), "{bug:?} has no check");
    }
}
