//! Every planted bug is found, by the check that is there for it, within the stated number of seeds: what the checks
//! cannot find, they do not check. The same seed without the bug must pass, or the finding says nothing.

use star::protocol::Bug as Star;
use star_sim::{
    campaign::{Bug, Campaign, Mode},
    world::settings::ControlBug as Control,
};

/// A bug, where it shows, the words of a check that finds it, and how many seeds are enough.
const STATED: [(Bug, Mode, &str, u64); 40] = [
    (Bug::Star(Star::AckBeforeDirty), Mode::Turnover, "not noted as dirty", 5),
    (Bug::Star(Star::DirtyReadAtOnce), Mode::Turnover, "not linearizable", 10),
    (Bug::Star(Star::VersionReused), Mode::Turnover, "version monotone", 5),
    (Bug::Star(Star::VersionReused), Mode::Turnover, "clean means latest", 60),
    (Bug::Star(Star::RequestIdForgotten), Mode::Turnover, "exactly once", 20),
    (Bug::Star(Star::RequestIdForgotten), Mode::Turnover, "and then", 20),
    (Bug::Star(Star::EpochMissingFromAcks), Mode::Churn, "committed on all members", 300),
    (Bug::Star(Star::MajorityCommits), Mode::Turnover, "committed on all members", 5),
    (Bug::Star(Star::InstallKeepsOwnStamps), Mode::Turnover, "agreement", 40),
    (Bug::Star(Star::InstallKeepsOwnStamps), Mode::Turnover, "committed on all members", 60),
    (Bug::Star(Star::LeaseIgnored), Mode::Churn, "lease exclusion", 10),
    (Bug::Star(Star::EarlyPromotion), Mode::Churn, "clean means latest", 10),
    (Bug::Star(Star::BaseIgnored), Mode::Churn, "committed on all members", 400),
    (Bug::Star(Star::FoundingKeepsObjects), Mode::Loss, "agreement", 20),
    (Bug::Star(Star::FoundingKeepsObjects), Mode::Loss, "clean means latest", 20),
    (Bug::Star(Star::JoiningServesReads), Mode::Churn, "not linearizable", 60),
    (Bug::Star(Star::ResurrectedByCatchUp), Mode::Churn, "clean means latest", 30),
    (Bug::Star(Star::StaleInstallAccepted), Mode::Turnover, "committed on all members", 100),
    (Bug::Star(Star::SessionsLostAtTakeover), Mode::Turnover, "exactly once", 60),
    (Bug::Star(Star::SessionsLostAtTakeover), Mode::Turnover, "and then", 100),
    (Bug::Star(Star::SessionsLostAtTakeover), Mode::Churn, "remembers other results", 20),
    (Bug::Star(Star::SessionsLostAtCatchUp), Mode::Churn, "remembers other results", 10),
    (Bug::Star(Star::FloorIgnored), Mode::Turnover, "exactly once", 60),
    (Bug::Star(Star::KeptUncompared), Mode::Churn, "clean means latest", 60),
    (Bug::Star(Star::KeptThoughDeleted), Mode::Churn, "clean means latest", 60),
    (Bug::Star(Star::DroppedRemembered), Mode::Turnover, "clean means latest", 60),
    (Bug::Star(Star::OwnWritesNotResent), Mode::Links, "the buffer drains", 10),
    (Bug::Star(Star::UnstampedKeptOfDeadOrigin), Mode::Churn, "the buffer drains", 10),
    (Bug::Star(Star::VersionFloorForgotten), Mode::Links, "version monotone", 10),
    (Bug::Star(Star::VersionFloorForgotten), Mode::Links, "clean means latest", 60),
    (Bug::Control(Control::LeaseRevived), Mode::Churn, "committed on all members", 60),
    (Bug::Control(Control::EvictionBeforeLeaseEnd), Mode::Churn, "committed on all members", 20),
    (Bug::Control(Control::LeaseBeforeViews), Mode::Churn, "committed on all members", 60),
    (Bug::Control(Control::LeaverTakenOut), Mode::Churn, "committed on all members", 100),
    (Bug::Control(Control::OldStateFollowed), Mode::Loss, "lease exclusion", 10),
    (Bug::Star(Star::ReadyNotedLate), Mode::Loss, "committed on all members", 100),
    (Bug::Star(Star::EpochNotedLate), Mode::Loss, "committed on all members", 800),
    (Bug::Star(Star::WholeIgnored), Mode::Loss, "agreement", 20),
    (Bug::Star(Star::ResumedSessionsNew), Mode::Loss, "exactly once", 60),
    (Bug::Control(Control::ClaimKept), Mode::Loss, "no progress", 40),
];

#[test]
fn each_planted_bug_is_found_by_its_check() {
    for (bug, mode, words, seeds) in STATED {
        let sound = Campaign { mode, ..Campaign::default() };
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
    for bug in Bug::all() {
        assert!(STATED.iter().any(|(stated, ..)| *stated == bug), "{bug:?} has no check");
    }
}
