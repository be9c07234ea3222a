//! Members that are stopped, started again, cut off, or lose their store.

mod support;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use star_control::{
    Acquired, CasOutcome, ControlPlane, EmbeddedClient, PlaneError, Renewed, Revision, embedded::ClusterTimes,
};
use star_core::{Clock, Incarnation};
use star_raft::{MemberState, RaftHost, RaftOptions, RaftTimes, StartError};
use support::{Cluster, LATE, TTL_MAX, Transport, answered, client_times, patient_times, revision, set_for_sure};
use tokio::{task::JoinSet, time::timeout};

async fn set(plane: &EmbeddedClient, key: &str, expected: u64) -> Result<CasOutcome, PlaneError> {
    plane.compare_and_set(key, Revision(expected), Bytes::from(expected.to_string()), &[]).await
}

/// One write more, whose outcome is known.
async fn count_up(plane: &EmbeddedClient, key: &str, expected: u64) {
    let outcome = set_for_sure(plane, key, expected, &Bytes::from(expected.to_string())).await;
    assert_eq!(outcome, CasOutcome::Done(Revision(expected + 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_is_replaced_in_time_and_nothing_is_forgotten() {
    let ttl = Duration::from_millis(900);
    for transport in [Transport::Wires, Transport::Tcp] {
        let mut cluster = Cluster::start(3, transport, RaftTimes::default()).await;
        let plane = cluster.client();
        count_up(&plane, "k", 0).await;
        for round in 1..4 {
            let holder = Incarnation(round);
            let name = format!("s{round}");
            let asked = Clock.now();
            assert_eq!(answered(|| plane.acquire(&name, holder, ttl)).await, Acquired::Held);
            let leader = cluster.leader().await;
            let began = Clock.now();
            cluster.stop(leader);
            let rival = plane.acquire(&name, Incarnation(100), ttl).await;
            let took = Clock.now().since(began);
            println!("{transport:?}: answers again after {took:?}");
            // Nobody else may have the lease before its time has passed, whoever leads.
            let renewed = plane.renew(&name, holder, ttl).await;
            if Clock.now().since(asked) < ttl {
                assert_ne!(rival, Ok(Acquired::Held), "it was held");
                assert_ne!(renewed, Ok(Renewed::Lost), "it was held");
            }
            assert_eq!(revision(&plane, "k").await, round, "nothing went back");
            count_up(&plane, "k", round).await;
            cluster.restart(leader).await;
            cluster.answers().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_start_again_and_know_documents_and_leases() {
    let mut cluster = Cluster::start(3, Transport::Wires, patient_times()).await;
    let plane = cluster.client();
    // More than one snapshot's worth, so that both the snapshot and the log behind it count.
    let mut writers = JoinSet::new();
    for key in 0..8 {
        let plane = plane.clone();
        writers.spawn(async move {
            for expected in 0..200 {
                count_up(&plane, &key.to_string(), expected).await;
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.expect("a writer");
    }
    assert_eq!(answered(|| plane.acquire("s", Incarnation(7), TTL_MAX)).await, Acquired::Held);
    (0..3).for_each(|index| cluster.stop(index));
    assert!(matches!(set(&cluster.client_with(ClusterTimes::default()), "0", 200).await, Err(error) if error.retry()));
    for index in 0..3 {
        cluster.restart(index).await;
    }
    cluster.answers().await;
    // The plane's time stood still meanwhile, so that the lease runs on: its holder may be counting on it.
    let plane = cluster.client();
    let rival = answered(|| plane.acquire("s", Incarnation(8), TTL_MAX)).await;
    assert!(matches!(rival, Acquired::Refused { holder: Incarnation(7), .. }), "{rival:?}");
    for key in 0..8 {
        assert_eq!(revision(&plane, &key.to_string()).await, 200);
        count_up(&plane, &key.to_string(), 200).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_gets_no_answer_and_the_others_go_on() {
    let cluster = Cluster::start(3, Transport::Wires, RaftTimes::default()).await;
    let leader = cluster.leader().await;
    let short = ClusterTimes { answer: Duration::from_millis(700), ..ClusterTimes::default() };
    let (inside, outside) = (cluster.client_at(leader, short), cluster.client());
    count_up(&inside, "k", 0).await;
    let watch = tokio::spawn({
        let inside = inside.clone();
        async move { inside.changed("k", Revision(1)).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    cluster.wires.cut(&cluster.members[leader].addr);
    assert_eq!(revision(&outside, "k").await, 1);
    count_up(&outside, "k", 1).await;
    for outcome in [
        inside.get("k").await.map(drop),
        inside.leases().await.map(drop),
        inside.acquire("s", Incarnation(1), TTL_MAX).await.map(drop),
        set(&inside, "k", 1).await.map(drop),
        timeout(LATE, watch).await.expect("in time").expect("a watcher").map(drop),
    ] {
        let error = outcome.expect_err("it is cut off");
        assert!(matches!(error, PlaneError::Unreachable { .. }) && error.retry(), "{error}");
    }
    cluster.wires.mend();
    assert_eq!(revision(&inside, "k").await, 2);
    assert_eq!(revision(&outside, "k").await, 2, "what was asked for in vain came to nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_for_long_gets_a_snapshot() {
    let mut cluster = Cluster::start(3, Transport::Wires, patient_times()).await;
    let plane = cluster.client();
    let away = (cluster.leader().await + 1) % 3;
    cluster.stop(away);
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    for key in ["x", "y", "z"] {
        set_for_sure(&plane, key, 0, &large).await;
    }
    let mut writers = JoinSet::new();
    for key in 0..8 {
        let plane = plane.clone();
        writers.spawn(async move {
            for expected in 0..250 {
                count_up(&plane, &key.to_string(), expected).await;
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.expect("a writer");
    }
    cluster.restart(away).await;
    // With another one away, nothing is answered without the one that was.
    let other = (0..3).find(|index| *index != away && *index != 0).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.stop(other);
    assert_eq!(revision(&plane, "0").await, 250);
    cluster.restart(other).await;
    let survivor = (0..3).find(|index| *index != away && *index != other).expect("a third");
    cluster.stop(survivor);
    assert_eq!(revision(&plane, "7").await, 250);
    assert_eq!(answered(|| plane.get("z")).await.expect("a document").value, large);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_store_takes_no_part() {
    let mut cluster = Cluster::start(3, Transport::Wires, RaftTimes::default()).await;
    let plane = cluster.client();
    count_up(&plane, "k", 0).await;
    // The first member, too: it must not found another plane.
    cluster.stop(0);
    cluster.lose_store(0);
    cluster.restart(0).await;
    let mut state = cluster.host(0).state();
    let state = timeout(LATE, state.wait_for(|state| matches!(state, MemberState::Stranger { .. }))).await;
    assert!(state.is_ok(), "it says so");
    assert_eq!(revision(&cluster.client_at(0, client_times()), "k").await, 1, "its server is a client still");
    // Two of three are left. With one of them gone the stranger is no help.
    cluster.stop(1);
    let short = cluster.client_with(ClusterTimes::default());
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(matches!(short.get("k").await, Err(PlaneError::Unreachable { .. })));
    cluster.restart(1).await;
    assert_eq!(revision(&plane, "k").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_start_needs_all_and_later_ones_a_majority() {
    let mut cluster = Cluster::new(3, Transport::Wires, RaftTimes::default());
    cluster.restart(0).await;
    cluster.restart(1).await;
    let mut state = cluster.host(0).state();
    let missing = MemberState::Founding { missing: vec!["m2".into()] };
    timeout(LATE, state.wait_for(|state| *state == missing)).await.expect("in time").expect("a state");
    assert!(cluster.client_with(ClusterTimes::default()).get("k").await.is_err());
    cluster.restart(2).await;
    cluster.answers().await;
    (0..3).for_each(|index| cluster.stop(index));
    cluster.restart(1).await;
    cluster.restart(2).await;
    cluster.answers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_and_five_members_work_and_other_numbers_are_refused() {
    for count in [1, 5] {
        let mut cluster = Cluster::start(count, Transport::Wires, patient_times()).await;
        count_up(&cluster.client(), "k", 0).await;
        (0..count / 2).for_each(|index| cluster.stop(index));
        assert_eq!(revision(&cluster.client(), "k").await, 1);
    }
    for count in [2, 4] {
        let cluster = Cluster::new(count, Transport::Wires, patient_times());
        assert!(matches!(RaftHost::start(cluster.options(0)), Err(StartError::Options(_))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_other_options_does_not_start() {
    let mut cluster = Cluster::start(1, Transport::Wires, patient_times()).await;
    cluster.stop(0);
    let options = cluster.options(0);
    for other in [
        RaftOptions { ttl_max: TTL_MAX * 2, ..options.clone() },
        RaftOptions { cluster: "other".into(), ..options.clone() },
    ] {
        assert!(matches!(RaftHost::start(other), Err(StartError::OtherPlane { .. })));
    }
    let other = RaftOptions { me: "nobody".into(), ..options };
    assert!(matches!(RaftHost::start(other), Err(StartError::Options(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_bytes_get_an_answer() {
    let cluster = Cluster::start(1, Transport::Wires, patient_times()).await;
    let mut runner = TestRunner::deterministic();
    let bytes = proptest::collection::vec(any::<u8>(), 0..200);
    for _ in 0..2000 {
        let bytes = bytes.new_tree(&mut runner).expect("bytes").current();
        let answer = cluster.host(0).handle(bytes.clone().into());
        // A watch that happens to be in the bytes may wait.
        if let Ok(answer) = timeout(Duration::from_millis(50), answer).await {
            assert!(!answer.is_empty(), "{bytes:?}");
        }
    }
    assert_eq!(revision(&cluster.client(), "k").await, 0);
}

/// Clients that set one document, each write naming its writer, while members stop, start and are cut off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_write_that_was_done_has_a_revision_of_its_own_while_members_come_and_go() {
    const SECONDS: u64 = 12;
    let mut cluster = Cluster::start(3, Transport::Wires, RaftTimes::default()).await;
    let ends = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let (plane, ends) = (cluster.client_with(ClusterTimes::default()), Arc::clone(&ends));
        writers.spawn(async move { write_until(&plane, &ends).await });
    }
    let mut runner = TestRunner::deterministic();
    let began = Clock.now();
    let mut faults = 0;
    while Clock.now().since(began) < Duration::from_secs(SECONDS) {
        let (index, cuts, wait) =
            (0..3_usize, any::<bool>(), 100..700_u64).new_tree(&mut runner).expect("a fault").current();
        if cuts {
            cluster.wires.cut(&cluster.members[index].addr);
        } else {
            cluster.stop(index);
        }
        tokio::time::sleep(Duration::from_millis(wait)).await;
        cluster.wires.mend();
        if !cluster.runs(index) {
            cluster.restart(index).await;
        }
        tokio::time::sleep(Duration::from_millis(wait)).await;
        faults += 1;
    }
    ends.store(true, Ordering::Relaxed);
    let (mut done, mut count, mut unsure) = (BTreeSet::new(), 0, 0);
    while let Some(writer) = writers.join_next().await {
        let (revisions, unknown) = writer.expect("a writer");
        assert!(revisions.is_sorted_by(|earlier, later| earlier < later), "{revisions:?}");
        count += revisions.len();
        unsure += unknown;
        done.extend(revisions);
    }
    println!("{count} writes done, {unsure} unsure, {faults} faults");
    assert_eq!(done.len(), count, "two writes were given the same revision");
    assert!(count > 50 && faults > 5, "{count} writes, {faults} faults");
    let last = revision(&cluster.client(), "k").await;
    assert!(done.last().is_some_and(|latest| *latest <= last), "{done:?} and then {last}");
    assert!(last <= (count + unsure) as u64, "{last} revisions of {count} writes and {unsure} that are unsure");
}

/// The revisions that were done, and how many outcomes are unknown. What is read never goes back.
async fn write_until(plane: &EmbeddedClient, ends: &AtomicBool) -> (Vec<u64>, usize) {
    let (mut done, mut unsure, mut known) = (Vec::new(), 0, 0);
    while !ends.load(Ordering::Relaxed) {
        let found = match plane.get("k").await {
            Ok(found) => found.map_or(0, |found| found.revision.0),
            Err(error) => {
                assert!(error.retry(), "{error}");
                continue;
            }
        };
        assert!(found >= known, "it was {known} and is {found}");
        known = found;
        match set(plane, "k", found).await {
            Ok(CasOutcome::Done(Revision(revision))) => {
                assert_eq!(revision, found + 1);
                known = revision;
                done.push(revision);
            }
            Ok(_) => {}
            Err(error) => {
                assert!(error.retry(), "{error}");
                unsure += 1;
            }
        }
    }
    (done, unsure)
}
