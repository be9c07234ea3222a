//! What every control plane must do: the cases, run on each backend by `conformance.rs` here and in `raft/tests`.

use std::time::Duration;

use bytes::Bytes;
use star_control::{
    Acquired, CasOutcome, ControlPlane, PlaneError, Renewed, Revision,
    plane::{NAME_BYTES_MAX, VALUE_BYTES_MAX},
};
use star_core::{Clock, Incarnation, Time};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use crate::support::{TTL_MAX, settle};

/// Hands all cases to a macro, after what it is given besides.
macro_rules! each_case {
    ($run:ident! $($given:tt)*) => {
        $run! { $($given)*
            documents_are_set_by_revision_and_keep_every_byte
            a_race_has_exactly_one_winner_each_round
            revisions_count_up_under_load_and_a_watcher_hears_the_last
            a_watch_wakes_for_its_document
            a_dropped_watch_leaves_nothing_behind
            a_watcher_notices_a_plane_that_forgot
            one_of_many_gets_a_lease
            a_lease_runs_out_and_not_before
            a_renewed_lease_goes_on
            a_lease_that_ran_out_is_not_renewed
            only_the_holder_renews_and_releases
            release_frees_at_once
            the_leases_that_are_held_are_listed
            a_write_is_refused_while_a_lease_it_names_is_held
            no_write_slips_in_while_a_lease_is_held
            after_a_start_everybody_may_hold_a_lease_for_a_while
            what_breaks_a_limit_is_refused
        }
    };
}

const A: Incarnation = Incarnation(17);
const B: Incarnation = Incarnation(u64::MAX);
const TTL: Duration = Duration::from_millis(300);
/// Redis counts whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(2);
/// Long after anything here should have happened.
const LATE: Duration = Duration::from_secs(20);

async fn set<P: ControlPlane>(plane: &P, key: &str, expected: u64, value: &str, unleased: &[&str]) -> CasOutcome {
    let unleased: Vec<_> = unleased.iter().map(ToString::to_string).collect();
    let value = Bytes::copy_from_slice(value.as_bytes());
    plane.compare_and_set(key, Revision(expected), value, &unleased).await.expect("an outcome")
}

pub(crate) async fn documents_are_set_by_revision_and_keep_every_byte<P: ControlPlane>(plane: P) {
    assert_eq!(plane.get("k").await, Ok(None));
    assert_eq!(set(&plane, "k", 1, "too early", &[]).await, CasOutcome::Conflict);
    let every_byte: Bytes = (0..=u8::MAX).cycle().take(70_000).collect();
    let first = plane.compare_and_set("k", Revision::ABSENT, every_byte.clone(), &[]).await;
    assert_eq!(first, Ok(CasOutcome::Done(Revision(1))));
    let found = plane.get("k").await.expect("an answer").expect("a document");
    assert_eq!((found.revision, found.value), (Revision(1), every_byte));
    assert_eq!(set(&plane, "k", 0, "again", &[]).await, CasOutcome::Conflict);
    assert_eq!(set(&plane, "k", 1, "", &[]).await, CasOutcome::Done(Revision(2)));
    let found = plane.get("k").await.expect("an answer").expect("a document");
    assert_eq!((found.revision, found.value.len()), (Revision(2), 0));
    assert_eq!(set(&plane, "another {key} \u{1f600}", 0, "v", &[]).await, CasOutcome::Done(Revision(1)));
    assert_eq!(plane.get("k").await.expect("an answer").expect("a document").revision, Revision(2));
}

pub(crate) async fn a_race_has_exactly_one_winner_each_round<P: ControlPlane>(plane: P) {
    for round in 0..10 {
        let mut racers = JoinSet::new();
        for racer in 0..16 {
            let plane = plane.clone();
            racers.spawn(async move { (racer, set(&plane, "k", round, &racer.to_string(), &[]).await) });
        }
        let mut winners = Vec::new();
        while let Some(finished) = racers.join_next().await {
            match finished.expect("a racer") {
                (racer, CasOutcome::Done(revision)) => winners.push((racer, revision)),
                (_, outcome) => assert_eq!(outcome, CasOutcome::Conflict),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        let found = plane.get("k").await.expect("an answer").expect("a document");
        assert_eq!((found.revision, winners[0].1), (Revision(round + 1), Revision(round + 1)));
        assert_eq!(found.value, winners[0].0.to_string());
    }
}

pub(crate) async fn revisions_count_up_under_load_and_a_watcher_hears_the_last<P: ControlPlane>(plane: P) {
    const WRITERS: u64 = 6;
    const EACH: u64 = 20;
    let watcher = tokio::spawn({
        let plane = plane.clone();
        async move {
            let mut heard = Revision::ABSENT;
            while heard < Revision(WRITERS * EACH) {
                let news = plane.changed("count", heard).await.expect("news");
                assert!(news.revision > heard);
                assert_eq!(news.value, news.revision.0.to_string());
                heard = news.revision;
            }
        }
    });
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let plane = plane.clone();
        writers.spawn(async move {
            let mut done = 0;
            while done < EACH {
                let now = plane.get("count").await.expect("an answer").map_or(0, |found| found.revision.0);
                if let CasOutcome::Done(_) = set(&plane, "count", now, &(now + 1).to_string(), &[]).await {
                    done += 1;
                }
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.expect("a writer");
    }
    assert_eq!(plane.get("count").await.expect("an answer").expect("a count").revision, Revision(WRITERS * EACH));
    timeout(LATE, watcher).await.expect("the watcher hears the last change").expect("a watcher");
}

pub(crate) async fn a_watch_wakes_for_its_document<P: ControlPlane>(plane: P) {
    let (heard, mut news) = oneshot::channel();
    tokio::spawn({
        let plane = plane.clone();
        async move { heard.send(plane.changed("k", Revision::ABSENT).await) }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    set(&plane, "other", 0, "o", &[]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(news.try_recv().is_err(), "another document's change is no news");
    set(&plane, "k", 0, "v", &[]).await;
    let found = timeout(LATE, news).await.expect("in time").expect("news").expect("a document");
    assert_eq!((found.revision, &found.value[..]), (Revision(1), &b"v"[..]));
    // What has changed before the watch began is heard at once.
    let found = timeout(LATE, plane.changed("k", Revision::ABSENT)).await.expect("in time").expect("a document");
    assert_eq!(found.revision, Revision(1));
}

pub(crate) async fn a_dropped_watch_leaves_nothing_behind<P: ControlPlane>(plane: P) {
    for _ in 0..200 {
        let _ = timeout(Duration::from_micros(300), plane.changed("k", Revision::ABSENT)).await;
    }
    set(&plane, "k", 0, "v", &[]).await;
    let found = timeout(LATE, plane.changed("k", Revision::ABSENT)).await.expect("in time").expect("a document");
    assert_eq!(found.revision, Revision(1));
}

pub(crate) async fn a_watcher_notices_a_plane_that_forgot<P: ControlPlane>(plane: P) {
    set(&plane, "k", 0, "v", &[]).await;
    for (key, found) in [("k", Revision(1)), ("gone", Revision::ABSENT)] {
        let error = timeout(LATE, plane.changed(key, Revision(5))).await.expect("in time").expect_err("it went back");
        assert_eq!(error, PlaneError::WentBack { key: key.into(), known: Revision(5), found });
        assert!(!error.retry());
    }
}

pub(crate) async fn one_of_many_gets_a_lease<P: ControlPlane>(plane: P) {
    let mut racers = JoinSet::new();
    for holder in 1..=16 {
        let plane = plane.clone();
        racers.spawn(async move { (holder, plane.acquire("s", Incarnation(holder), TTL_MAX).await) });
    }
    let (mut winners, mut seen) = (Vec::new(), Vec::new());
    while let Some(finished) = racers.join_next().await {
        match finished.expect("a racer") {
            (holder, Ok(Acquired::Held)) => winners.push(Incarnation(holder)),
            (_, Ok(Acquired::Refused { holder, remaining })) => {
                assert!(remaining <= TTL_MAX);
                seen.push(holder);
            }
            (_, Err(error)) => panic!("{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(seen, [winners[0]; 15]);
}

/// Tries until the lease is `holder`'s, and returns when that was known.
async fn acquire_at_last<P: ControlPlane>(plane: &P, name: &str, holder: Incarnation) -> Time {
    let began = Clock.now();
    while plane.acquire(name, holder, TTL).await.expect("an outcome") != Acquired::Held {
        assert!(Clock.now().since(began) < LATE, "the lease never becomes free");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Clock.now()
}

pub(crate) async fn a_lease_runs_out_and_not_before<P: ControlPlane>(plane: P) {
    let sent = Clock.now();
    assert_eq!(plane.acquire("s", A, TTL).await, Ok(Acquired::Held));
    let free = acquire_at_last(&plane, "s", B).await;
    assert!(free.since(sent) + ROUNDING >= TTL, "free after {:?}", free.since(sent));
}

pub(crate) async fn a_renewed_lease_goes_on<P: ControlPlane>(plane: P) {
    assert_eq!(plane.acquire("s", A, TTL_MAX).await, Ok(Acquired::Held));
    // Taking it again is not a way to lose it, and asking for less does not shorten it.
    let first_sent = Clock.now();
    assert_eq!(plane.acquire("s", A, TTL_MAX).await, Ok(Acquired::Held));
    assert_eq!(plane.renew("s", A, Duration::from_millis(1)).await, Ok(Renewed::Held));
    tokio::time::sleep(TTL_MAX / 2).await;
    let sent = Clock.now();
    assert_eq!(plane.renew("s", A, TTL_MAX).await, Ok(Renewed::Held), "{:?} later", sent.since(first_sent));
    let free = acquire_at_last(&plane, "s", B).await;
    assert!(free.since(sent) + ROUNDING >= TTL_MAX, "free after {:?}", free.since(sent));
}

pub(crate) async fn a_lease_that_ran_out_is_not_renewed<P: ControlPlane>(plane: P) {
    assert_eq!(plane.renew("s", A, TTL).await, Ok(Renewed::Lost));
    plane.acquire("s", A, TTL).await.expect("an outcome");
    tokio::time::sleep(TTL + ROUNDING * 2).await;
    assert_eq!(plane.renew("s", A, TTL).await, Ok(Renewed::Lost));
    assert_eq!(plane.leases().await, Ok(vec![]));
    assert_eq!(plane.acquire("s", A, TTL_MAX).await, Ok(Acquired::Held));
    assert_eq!(plane.renew("s", A, TTL_MAX).await, Ok(Renewed::Held));
}

pub(crate) async fn only_the_holder_renews_and_releases<P: ControlPlane>(plane: P) {
    plane.acquire("s", A, TTL_MAX).await.expect("an outcome");
    assert_eq!(plane.renew("s", B, TTL_MAX).await, Ok(Renewed::Lost));
    assert_eq!(plane.release("s", B).await, Ok(()));
    assert!(matches!(plane.acquire("s", B, TTL).await, Ok(Acquired::Refused { holder: A, .. })));
    assert_eq!(plane.renew("s", A, TTL_MAX).await, Ok(Renewed::Held));
}

pub(crate) async fn release_frees_at_once<P: ControlPlane>(plane: P) {
    settle(&plane).await;
    for expected in 0..3 {
        plane.acquire("s", A, TTL_MAX).await.expect("an outcome");
        plane.release("s", A).await.expect("a release");
        assert_eq!(set(&plane, "k", expected, "v", &["s"]).await, CasOutcome::Done(Revision(expected + 1)));
        assert_eq!(plane.acquire("s", B, TTL_MAX).await, Ok(Acquired::Held));
        plane.release("s", B).await.expect("a release");
        assert_eq!(plane.release("s", B).await, Ok(()), "twice is no error");
    }
}

pub(crate) async fn the_leases_that_are_held_are_listed<P: ControlPlane>(plane: P) {
    assert_eq!(plane.leases().await, Ok(vec![]));
    for (name, holder, ttl) in [("c", A, TTL_MAX), ("a", B, TTL_MAX), ("b", A, Duration::from_millis(20))] {
        plane.acquire(name, holder, ttl).await.expect("an outcome");
    }
    tokio::time::sleep(Duration::from_millis(30)).await;
    let leases = plane.leases().await.expect("leases");
    assert!(leases.iter().all(|lease| lease.remaining <= TTL_MAX && !lease.remaining.is_zero()), "{leases:?}");
    let held: Vec<_> = leases.iter().map(|lease| (lease.name.as_str(), lease.holder)).collect();
    assert_eq!(held, [("a", B), ("c", A)]);
}

pub(crate) async fn a_write_is_refused_while_a_lease_it_names_is_held<P: ControlPlane>(plane: P) {
    settle(&plane).await;
    let sent = Clock.now();
    plane.acquire("s", A, TTL).await.expect("an outcome");
    assert_eq!(set(&plane, "k", 7, "v", &["s"]).await, CasOutcome::Conflict, "a conflict is said first");
    assert_eq!(set(&plane, "other", 0, "v", &["free"]).await, CasOutcome::Done(Revision(1)));
    assert_eq!(set(&plane, "other", 1, "v", &[]).await, CasOutcome::Done(Revision(2)));
    loop {
        match set(&plane, "k", 0, "v", &["free", "s"]).await {
            CasOutcome::Leased(name) => assert_eq!(name, "s"),
            outcome => break assert_eq!(outcome, CasOutcome::Done(Revision(1))),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(Clock.now().since(sent) + ROUNDING >= TTL, "written after {:?}", Clock.now().since(sent));
}

pub(crate) async fn no_write_slips_in_while_a_lease_is_held<P: ControlPlane>(plane: P) {
    settle(&plane).await;
    let (stop, mut stopped) = oneshot::channel::<()>();
    let (wrote, written) = watch::channel(0);
    let writing = tokio::spawn({
        let plane = plane.clone();
        async move {
            let (mut revision, mut writes) = (0, Vec::new());
            while stopped.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                let began = Clock.now();
                if let CasOutcome::Done(done) = set(&plane, "k", revision, "v", &["s"]).await {
                    revision = done.0;
                    writes.push((began, Clock.now()));
                    wrote.send_replace(writes.len());
                }
            }
            writes
        }
    });
    let (ttl, mut held) = (Duration::from_millis(25), Vec::new());
    let began = Clock.now();
    // Both must have had their turn often enough, however busy the machine is.
    while (held.len() < 40 || *written.borrow() < 11) && Clock.now().since(began) < LATE {
        let sent = Clock.now();
        if plane.acquire("s", A, ttl).await == Ok(Acquired::Held) {
            held.push((Clock.now(), sent + ttl.saturating_sub(ROUNDING)));
        }
        tokio::time::sleep(Duration::from_millis(35)).await;
    }
    let _ = stop.send(());
    let writes = writing.await.expect("a writer");
    assert!(writes.len() > 10 && held.len() > 10, "{} writes, {} leases", writes.len(), held.len());
    for (from, until) in held {
        let slipped = writes.iter().find(|(began, ended)| *began >= from && *ended < until);
        assert_eq!(slipped, None, "a write between {from} and {until}");
    }
}

pub(crate) async fn after_a_start_everybody_may_hold_a_lease_for_a_while<P: ControlPlane>(plane: P) {
    // The plane has started just now, so it may be standing in for one that gave somebody its longest lease.
    let began = Clock.now();
    assert_eq!(set(&plane, "k", 0, "v", &[]).await, CasOutcome::Done(Revision(1)));
    assert_eq!(set(&plane, "k", 1, "v", &["s"]).await, CasOutcome::Leased("s".into()));
    settle(&plane).await;
    // Starting took a part of it.
    assert!(Clock.now().since(began) >= TTL_MAX / 2, "{:?}", Clock.now().since(began));
    assert_eq!(set(&plane, "k", 1, "v", &["s"]).await, CasOutcome::Done(Revision(2)));
}

pub(crate) async fn what_breaks_a_limit_is_refused<P: ControlPlane>(plane: P) {
    let refused = |error: PlaneError| assert!(matches!(&error, PlaneError::Refused(_)) && !error.retry(), "{error}");
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    for name in ["", long.as_str()] {
        refused(plane.acquire(name, A, TTL).await.expect_err("a bad name"));
        refused(plane.compare_and_set(name, Revision(0), Bytes::new(), &[]).await.expect_err("a bad key"));
    }
    for ttl in [Duration::ZERO, TTL_MAX + Duration::from_millis(1)] {
        refused(plane.acquire("s", A, ttl).await.expect_err("a bad time"));
        refused(plane.renew("s", A, ttl).await.expect_err("a bad time"));
    }
    let large = Bytes::from(vec![b'x'; VALUE_BYTES_MAX]);
    assert_eq!(
        plane.compare_and_set("k", Revision(0), large.clone(), &[]).await,
        Ok(CasOutcome::Done(Revision(1))),
        "the largest value fits"
    );
    assert_eq!(plane.get("k").await.expect("an answer").expect("a document").value, large);
    let too_large = Bytes::from(vec![b'x'; VALUE_BYTES_MAX + 1]);
    refused(plane.compare_and_set("k", Revision(1), too_large, &[]).await.expect_err("too large"));
}
