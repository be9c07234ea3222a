//! The Star protocol in the world: thousands of seeds, each with its own servers, links, clients and faults.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use star_sim::{
    campaign::Campaign,
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
    // A world in which nothing breaks proves nothing.
    for (kind, count) in FaultKind::ALL.into_iter().zip(total.faults_by_kind) {
        let wanted = match kind {
            FaultKind::Turnover => campaign.turnover,
            FaultKind::CrashForgetting => campaign.crash,
            FaultKind::CrashKeeping => false,
            _ => true,
        };
        assert_eq!(count > 50, wanted, "{count} times {kind:?}");
    }
    total
}

#[test]
fn one_view_per_star() {
    let total = run_all(Campaign::default(), 0..2_000);
    assert!(total.faults > 10_000 && total.lost > 100_000 && total.operations > 400_000, "{total:?}");
    assert!(total.undecided < 40, "the search gives up too often: {total:?}");
}

#[test]
fn leaders_change_while_stars_work() {
    let campaign = Campaign { turnover: true, ..Campaign::default() };
    let total = run_all(campaign, 0..500);
    assert!(total.faults > 2_500, "{total:?}");
}

#[test]
fn one_server_crashes() {
    run_all(Campaign { crash: true, turnover: true, ..Campaign::default() }, 0..300);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let campaign = Campaign { turnover: true, crash: true, ..Campaign::default() };
    for seed in 0..30 {
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
