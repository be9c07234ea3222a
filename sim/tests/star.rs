//! The Star protocol in the world: thousands of seeds, each with its own servers, links, clients and faults.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use star_sim::{
    campaign::{Campaign, Mode},
    world::{Summary, Trace, faults::FaultKind},
};

/// Runs the seeds; says how to run the first that fails again.
fn run_all(campaign: Campaign, seeds: std::ops::Range<u64>) -> Summary {
    let mut total = Summary::default();
    for seed in seeds {
        match campaign.run(seed) {
            Ok(summary) => total.add(&summary),
            Err(failure) => panic!("seed {seed} fails {failure}\nrun it again: {}", campaign.replay(seed)),
        }
    }
    assert_eq!((total.undecided, total.by_versions_alone), (0, 0), "both checkers judge every key: {total:?}");
    // A world in which nothing breaks proves nothing.
    for (kind, count) in FaultKind::ALL.into_iter().zip(total.faults_by_kind) {
        let wanted = match kind {
            FaultKind::Turnover => campaign.mode != Mode::Links,
            FaultKind::ControlCutOff | FaultKind::LongPause | FaultKind::Crash | FaultKind::Stop => {
                matches!(campaign.mode, Mode::Churn | Mode::Loss | Mode::Slow)
            }
            FaultKind::LastCopyLost
            | FaultKind::PlaneOlder
            | FaultKind::PlaneEmpty
            | FaultKind::StartAnew
            | FaultKind::FullStop
            | FaultKind::FullCrash => campaign.mode == Mode::Loss,
            _ => true,
        };
        assert_eq!(count > 50, wanted, "{count} times {kind:?}");
    }
    assert_eq!(total.founded_again > 50, campaign.mode == Mode::Loss, "{} times", total.founded_again);
    assert_eq!(total.went_around > 0, campaign.mode == Mode::Slow, "{} times", total.went_around);
    total
}

#[test]
fn links_break_and_servers_pause() {
    let total = run_all(Campaign::default(), 0..1000);
    assert!(total.faults > 4_000 && total.lost > 40_000 && total.operations > 160_000, "{total:?}");
}

#[test]
fn leaders_change_while_stars_work() {
    let total = run_all(Campaign { mode: Mode::Turnover, ..Campaign::default() }, 0..800);
    assert!(total.faults > 2_000 && total.views > 1_500, "{total:?}");
}

#[test]
fn servers_crash_stop_sleep_and_come_back() {
    let total = run_all(Campaign { mode: Mode::Churn, ..Campaign::default() }, 0..1200);
    assert!(total.faults > 4_000 && total.views > 10_000, "{total:?}");
}

#[test]
fn stars_lose_their_last_copies_and_the_control_plane_its_memory() {
    let total = run_all(Campaign { mode: Mode::Loss, ..Campaign::default() }, 0..800);
    assert!(total.faults > 2_000 && total.founded_again > 400 && total.resumed > 1_000, "{total:?}");
}

#[test]
fn links_are_slow_and_values_go_around_them() {
    let total = run_all(Campaign { mode: Mode::Slow, ..Campaign::default() }, 0..800);
    assert!(total.went_around > 5_000 && total.views > 10_000, "{total:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let campaign = Campaign { mode: Mode::Churn, ..Campaign::default() };
    for seed in 0..20 {
        assert_eq!(campaign.run(seed).ok(), campaign.run(seed).ok(), "seed {seed}");
    }
}

/// A writer that a test can look into afterwards.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic holds it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_shown_run_is_the_same_run_and_shows_it() {
    let campaign = Campaign { steps: Some(500), ..Campaign::default() };
    let out = Shared::default();
    let shown = campaign.world(7, Trace::to(Box::new(out.clone()))).run().expect("a good seed");
    assert_eq!(shown.digest, campaign.run(7).expect("a good seed").digest);
    let text = String::from_utf8(out.0.lock().expect("no panic holds it").clone()).expect("text");
    for wanted in ["client 0", "Stamps", "Ack", "EVERYTHING IS HEALED"] {
        assert!(text.contains(wanted), "the trace lacks {wanted}");
    }
}
