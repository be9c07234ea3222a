use std::time::Duration;

use openraft::{
    Entry, EntryPayload, LeaderId, LogId, Vote,
    entry::FromAppData,
    storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder as _, RaftStateMachine},
    testing::{StoreBuilder, Suite},
};
use tempfile::TempDir;

use super::*;
use crate::types::{StorageError, Types};

const PLANE: u64 = 42;

fn state(opened: &Opened) -> StateStore {
    let replica = SharedReplica::new(opened.store, Duration::from_secs(1));
    StateStore::new(replica, opened.disk.clone(), opened.snapshot.clone()).expect("a state")
}

/// Closes a store: its thread ends once nobody can write any more.
fn close(opened: Opened) {
    let Opened { log, disk, thread, .. } = opened;
    drop((log, disk));
    thread.join().expect("a thread");
}

struct Stores;

impl StoreBuilder<Types, LogStore, StateStore, TempDir> for Stores {
    async fn build(&self) -> Result<(TempDir, LogStore, StateStore), StorageError> {
        let directory = tempfile::tempdir().expect("a directory");
        let opened = open::<Types>(directory.path(), PLANE, 0, SlowDisk::default()).expect("a store");
        let state = state(&opened);
        Ok((directory, opened.log, state))
    }
}

#[test]
fn the_librarys_own_suite_passes() {
    Suite::test_all(Stores).expect("all cases");
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn blank(index: u64) -> crate::types::Entry {
    Entry { log_id: LogId::new(LeaderId::new(1, 7), index), payload: EntryPayload::Blank }
}

#[test]
fn vote_log_and_snapshot_are_there_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let opened = open::<Types>(directory.path(), PLANE, 0, SlowDisk::default()).expect("a store");
    let store = opened.store;
    let (mut log, mut machine) = (opened.log.clone(), state(&opened));
    block_on(async {
        log.save_vote(&Vote::new(3, 7)).await.expect("written");
        log.blocking_append((0..10).map(blank)).await.expect("written");
        log.truncate(LogId::new(LeaderId::new(1, 7), 8)).await.expect("written");
        machine.apply((0..6).map(blank)).await.expect("applied");
        let mut builder = machine.get_snapshot_builder().await;
        builder.build_snapshot().await.expect("a snapshot");
        log.purge(LogId::new(LeaderId::new(1, 7), 3)).await.expect("written");
    });
    drop((log, machine));
    close(opened);

    let opened = open::<Types>(directory.path(), PLANE, 0, SlowDisk::default()).expect("a store");
    assert_eq!(opened.store, store);
    let (mut log, mut machine) = (opened.log.clone(), state(&opened));
    block_on(async {
        assert_eq!(log.read_vote().await.expect("read"), Some(Vote::new(3, 7)));
        let state = log.get_log_state().await.expect("read");
        assert_eq!(state.last_purged_log_id.map(|id| id.index), Some(3));
        assert_eq!(state.last_log_id.map(|id| id.index), Some(7));
        assert_eq!(machine.applied_state().await.expect("read").0.map(|id| id.index), Some(5));
        assert!(machine.get_current_snapshot().await.expect("read").is_some());
    });
    drop((log, machine));
    close(opened);
}

/// The library cuts the log at a leader's snapshot before that is written. Killed between the two, a member has its log still.
#[test]
fn the_log_is_cut_on_disk_when_the_snapshot_is_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let opened = open::<Types>(directory.path(), PLANE, 0, SlowDisk::default()).expect("a store");
    block_on(async {
        let mut log = opened.log.clone();
        log.blocking_append((0..10).map(blank)).await.expect("written");
        log.purge(LogId::new(LeaderId::new(1, 7), 7)).await.expect("handed on");
        assert_eq!(log.get_log_state().await.expect("read").last_purged_log_id.map(|id| id.index), Some(7));
    });
    close(opened);

    let opened = open::<Types>(directory.path(), PLANE, 0, SlowDisk::default()).expect("a store");
    let (mut log, mut machine) = (opened.log.clone(), state(&opened));
    block_on(async {
        let found = log.get_log_state().await.expect("read");
        assert_eq!((found.last_purged_log_id, found.last_log_id.map(|id| id.index)), (None, Some(9)));
        assert_eq!(log.try_get_log_entries(0..10).await.expect("read").len(), 10);
        log.purge(LogId::new(LeaderId::new(1, 7), 7)).await.expect("handed on");
        machine.apply((0..8).map(blank)).await.expect("applied");
        let mut builder = machine.get_snapshot_builder().await;
        builder.build_snapshot().await.expect("a snapshot");
    });
    drop((log, machine));
    close(opened);

    let opened = open::<Types>(directory.path(), PLANE, 0, SlowDisk::default()).expect("a store");
    let state = block_on(opened.log.clone().get_log_state()).expect("read");
    assert_eq!((state.last_purged_log_id.map(|id| id.index), state.last_log_id.map(|id| id.index)), (Some(7), Some(9)));
    close(opened);
}

/// One snapshot of the first `entries`, to be taken later.
async fn builder(machine: &mut StateStore, entries: std::ops::Range<u64>) -> impl openraft::RaftSnapshotBuilder<Types> {
    machine.apply(entries.map(blank)).await.expect("applied");
    machine.get_snapshot_builder().await
}

fn upto(snapshot: Option<openraft::Snapshot<Types>>) -> Option<u64> {
    snapshot.and_then(|snapshot| snapshot.meta.last_log_id).map(|id| id.index)
}

#[test]
fn an_older_snapshot_does_not_take_the_place_of_a_later_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let opened = open::<Types>(directory.path(), PLANE, 0, SlowDisk::default()).expect("a store");
    let mut machine = state(&opened);
    block_on(async {
        let mut older = builder(&mut machine, 0..6).await;
        let mut later = builder(&mut machine, 6..8).await;
        later.build_snapshot().await.expect("a snapshot");
        older.build_snapshot().await.expect("a snapshot");
        assert_eq!(upto(machine.get_current_snapshot().await.expect("read")), Some(7));
    });
    drop(machine);
    close(opened);
    let opened = open::<Types>(directory.path(), PLANE, 0, SlowDisk::default()).expect("a store");
    let applied = block_on(state(&opened).applied_state()).expect("read").0;
    assert_eq!(applied.map(|id| id.index), Some(7));
    close(opened);
}

/// What stands in line behind the question are entries to be applied, and with them the leases of all servers.
#[test]
fn nobody_waits_for_a_snapshot_on_its_way_to_a_stuck_disk() {
    let directory = tempfile::tempdir().expect("a directory");
    let slow = SlowDisk::default();
    let opened = open::<Types>(directory.path(), PLANE, 0, slow.clone()).expect("a store");
    let mut machine = state(&opened);
    block_on(async {
        builder(&mut machine, 0..6).await.build_snapshot().await.expect("a snapshot");
        let mut next = builder(&mut machine, 6..8).await;
        slow.set(Duration::from_secs(3));
        let mut written = std::pin::pin!(next.build_snapshot());
        tokio::select! {
            biased;
            _ = &mut written => panic!("somebody waited for the disk"),
            found = machine.get_current_snapshot() => assert_eq!(upto(found.expect("read")), Some(5), "the one on disk"),
        }
        written.await.expect("a snapshot");
        assert_eq!(upto(machine.get_current_snapshot().await.expect("read")), Some(7));
    });
    drop(machine);
    close(opened);
}

#[test]
fn whoever_led_before_a_restart_is_a_follower_after_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let opened = open::<Types>(directory.path(), PLANE, 0, SlowDisk::default()).expect("a store");
    let mine = opened.store;
    close(opened);
    // Its own vote loses what makes it a leader's; that of another leader is kept as it is.
    for (leader, is_committed) in [(mine, false), (mine + 1, true)] {
        let opened = open::<Types>(directory.path(), PLANE, 0, SlowDisk::default()).expect("a store");
        block_on(opened.log.clone().save_vote(&Vote::new_committed(3, leader))).expect("written");
        close(opened);
        let opened = open::<Types>(directory.path(), PLANE, 0, SlowDisk::default()).expect("a store");
        let vote = block_on(opened.log.clone().read_vote()).expect("read").expect("a vote");
        assert_eq!((vote.leader_id.term, vote.leader_id.node_id, vote.committed), (3, leader, is_committed));
        close(opened);
    }
}

#[test]
fn a_store_is_used_by_one_and_for_one_plane() {
    let directory = tempfile::tempdir().expect("a directory");
    let opened = open::<Types>(directory.path(), PLANE, 0, SlowDisk::default()).expect("a store");
    assert!(
        matches!(open::<Types>(directory.path(), PLANE, 0, SlowDisk::default()), Err(StartError::Store { .. })),
        "it is in use"
    );
    close(opened);
    assert!(matches!(
        open::<Types>(directory.path(), PLANE + 1, 0, SlowDisk::default()),
        Err(StartError::OtherPlane { .. })
    ));
    close(open::<Types>(directory.path(), PLANE, 0, SlowDisk::default()).expect("the same plane"));
    let file = directory.path().join(Types::FILE);
    fs::write(&file, b"something else").expect("written");
    assert!(matches!(open::<Types>(directory.path(), PLANE, 0, SlowDisk::default()), Err(StartError::Store { .. })));
}

#[test]
fn two_new_stores_are_told_apart() {
    let directories = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
    let stores = directories
        .each_ref()
        .map(|directory| open::<Types>(directory.path(), PLANE, 0, SlowDisk::default()).expect("a store"));
    assert_ne!(stores[0].store, stores[1].store);
    stores.into_iter().for_each(close);
}

#[test]
fn a_proposal_survives_its_encoding() {
    let proposal = crate::types::Proposal {
        stamp: crate::types::Stamp { reign: Some(LeaderId::new(2, 9)), at: star_core::Time(5) },
        command: star_control::machine::Command::Leases,
    };
    let entry = crate::types::Entry::from_app_data(proposal);
    assert_eq!(decoded::<crate::types::Entry>(&encoded(&entry)).expect("an entry"), entry);
}
