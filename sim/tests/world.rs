//! The world itself, with a toy protocol: a sound one passes, each unsound one is found, and a seed is a run.

mod toy;

use star_sim::{
    random::Random,
    world::{Failure, Settings, Summary, Trace, World},
};
use toy::{Toy, ToyBug};

fn world(seed: u64, bug: Option<ToyBug>) -> World<Toy> {
    let settings = Settings { steps: 1_500, ..Settings::random(&mut Random::new(seed)) };
    World::new(seed, settings, bug, Trace::silent())
}

fn run(seed: u64, bug: Option<ToyBug>) -> Result<Summary, Failure> {
    world(seed, bug).run()
}

#[test]
fn a_sound_protocol_passes_and_meets_faults() {
    let mut total = Summary::default();
    for seed in 0..200 {
        let summary = run(seed, None).unwrap_or_else(|failure| panic!("seed {seed} fails {failure}"));
        total.add(&summary);
    }
    assert!(total.faults > 1_000 && total.lost > 1_000 && total.answers > 20_000, "{total:?}");
}

#[test]
fn each_unsound_protocol_is_found() {
    use ToyBug::{AnswersFromMemory, ForgetsRequests, GivesUp, LosesWrites};
    for (bug, seeds, wanted) in [
        (ForgetsRequests, 20, "exactly once"),
        (AnswersFromMemory, 20, "not linearizable"),
        (LosesWrites, 20, "clean means latest"),
        (GivesUp, 20, "the buffer drains"),
    ] {
        let failures: Vec<String> =
            (0..seeds).filter_map(|seed| run(seed, Some(bug)).err()).map(|failure| failure.what).collect();
        assert!(!failures.is_empty(), "{bug:?} was not found in {seeds} seeds");
        let named = failures.iter().any(|what| what.contains(wanted));
        assert!(named, "{bug:?} was found, but never as {wanted:?}: {failures:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_run_and_another_seed_is_another() {
    let digest = |seed: u64| run(seed, None).expect("a sound protocol").digest;
    let digests: Vec<u64> = (0..20).map(digest).collect();
    assert_eq!(digests, (0..20).map(digest).collect::<Vec<_>>());
    let different: std::collections::BTreeSet<u64> = digests.into_iter().collect();
    assert_eq!(different.len(), 20);
}
