//! Every planted bug is found within the stated number of seeds: what the checks cannot find, they do not check.

use star::protocol::Bug;
use star_sim::campaign::Campaign;

/// Seeds that are enough for each bug, and words of a check that finds it.
fn stated(bug: Bug) -> (u64, &'static [&'static str]) {
    match bug {
        Bug::AckBeforeDirty => (3, &["not noted as dirty", "clean means latest"]),
        Bug::DirtyReadAtOnce => (10, &["not linearizable", "clean means latest", "was not in it"]),
        Bug::VersionReused => (3, &["version monotone"]),
        Bug::RequestIdForgotten => (10, &["exactly once", "of the same"]),
        Bug::EpochMissingFromAcks => (30, &["committed on all members"]),
        Bug::MajorityCommits => (3, &["committed on all members"]),
        Bug::InstallKeepsOwnStamps => (30, &["agreement", "committed on all members", "seq"]),
        Bug::LeaseIgnored => (10, &["lease exclusion"]),
    }
}

#[test]
fn each_planted_bug_is_found() {
    for bug in Bug::ALL {
        let (seeds, words) = stated(bug);
        let campaign = Campaign { turnover: true, bug: Some(bug), ..Campaign::default() };
        let found = campaign.first_failure(0..seeds);
        let (seed, failure) = found.unwrap_or_else(|| panic!("{bug:?} was not found in {seeds} seeds"));
        let named = words.iter().any(|word| failure.what.contains(word));
        assert!(named, "{bug:?} was found by another check than expected: seed {seed} fails {failure}");
    }
}
