//! The disk: one `redb` file with the log, the vote, the latest snapshot and who this store is.
//!
//! ```text
//! table "log"    index -> Entry                    what was appended and is not in the snapshot for long
//! table "facts"  "store"    -> StoreId             drawn when the file was made
//!                "plane"    -> u64                 which plane it belongs to
//!                "vote"     -> Vote
//!                "purged"   -> LogId               the last entry that was removed from the log's beginning
//!                "snapshot" -> (SnapshotMeta, bytes)
//! ```
//!
//! All values are postcard. Changes that wait together are one transaction, on disk (`fsync`) before anybody hears that they
//! are done.

mod disk;
mod durable;
mod log;
mod state;

use std::{fs, io::Read, path::Path};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use serde::de::DeserializeOwned;
use star_core::message::{from_postcard, to_postcard};

pub use self::durable::SlowDisk;
pub(crate) use self::{
    disk::Disk,
    durable::Durable,
    log::{Log, LogStore},
    state::{Latest, SharedReplica, StateStore, keep, sent},
};
use crate::{
    options::StartError,
    types::{self, Entry, Group, SnapshotMeta, StoreId, Types, Vote},
};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");

/// A snapshot as it is kept and sent.
pub(crate) type Kept = (SnapshotMeta, bytes::Bytes);

/// A store that was just opened.
pub(crate) struct Opened<G: Group = Types> {
    pub(crate) store: StoreId,
    pub(crate) log: LogStore<G>,
    pub(crate) disk: Disk<G>,
    pub(crate) snapshot: Option<Kept>,
    /// Ends by itself when log and disk are dropped.
    pub(crate) thread: std::thread::JoinHandle<()>,
}

/// Opens the store in this directory, or makes it, for the group (`plane`) of this number and its member of this index.
pub(crate) fn open<G: Group>(
    directory: &Path,
    plane: u64,
    mine: usize,
    slow: SlowDisk,
) -> Result<Opened<G>, StartError> {
    let path = directory.join(G::FILE);
    let wrong = |why: String| StartError::Store { path: path.clone(), why };
    fs::create_dir_all(directory).map_err(|error| wrong(error.to_string()))?;
    let database = Database::create(&path).map_err(|error| wrong(error.to_string()))?;
    let store = match (fact::<StoreId>(&database, "store"), fact::<u64>(&database, "plane")) {
        (Ok(Some(store)), Ok(Some(found))) if found == plane => store,
        (Ok(Some(_)), Ok(Some(_))) => return Err(StartError::OtherPlane { path }),
        (Ok(None), Ok(None)) => found_store(&database, directory, plane, mine).map_err(wrong)?,
        (Err(why), _) | (_, Err(why)) => return Err(wrong(why)),
        _ => return Err(wrong("it does not say whose it is".into())),
    };
    let snapshot = fact::<Kept>(&database, "snapshot").map_err(&wrong)?;
    let log = read_log(&database, store).map_err(&wrong)?;
    let started = Disk::start(database, log.last(), snapshot.as_ref().and_then(|(meta, _)| meta.last_log_id), slow);
    let (disk, thread) = started.map_err(|error| StartError::System(error.to_string()))?;
    Ok(Opened { store, log: LogStore::new(log, disk.clone()), disk, snapshot, thread })
}

/// Writes who a new store is.
fn found_store(database: &Database, directory: &Path, plane: u64, mine: usize) -> Result<StoreId, String> {
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes)).map_err(text)?;
    let store = types::store_id(mine, u64::from_le_bytes(bytes));
    let write = database.begin_write().map_err(text)?;
    {
        write.open_table(LOG).map_err(text)?;
        let mut facts = write.open_table(FACTS).map_err(text)?;
        facts.insert("store", &*encoded(&store)).map_err(text)?;
        facts.insert("plane", &*encoded(&plane)).map_err(text)?;
    }
    write.commit().map_err(text)?;
    // The file itself must be found again after a power loss, too.
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(text)?;
    Ok(store)
}

fn fact<T: DeserializeOwned>(database: &Database, name: &str) -> Result<Option<T>, String> {
    let read = database.begin_read().map_err(text)?;
    let facts = match read.open_table(FACTS) {
        Ok(facts) => facts,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let found = facts.get(name).map_err(text)?;
    found.map(|value| decoded(value.value())).transpose().map_err(|why| format!("its {name}: {why}"))
}

fn read_log<G: Group>(database: &Database, store: StoreId) -> Result<Log<G>, String> {
    let vote = fact::<Vote>(database, "vote")?.map(|vote| begins_as_follower(vote, store));
    let mut log = Log { vote, purged: fact(database, "purged")?, ..Log::default() };
    let read = database.begin_read().map_err(text)?;
    for entry in read.open_table(LOG).map_err(text)?.iter().map_err(text)? {
        let (index, value) = entry.map_err(text)?;
        let entry: Entry<G> = decoded(value.value()).map_err(|why| format!("entry {}: {why}", index.value()))?;
        log.entries.insert(index.value(), entry);
    }
    Ok(log)
}

/// The vote with which the member of this store begins. One that led is no leader any more: the library would let it lead
/// on in its term, and take the term's *first* entry for all that it must have applied before it answers reads. What was
/// committed after that would be missing from them.
fn begins_as_follower(vote: Vote, store: StoreId) -> Vote {
    let led = vote.committed && vote.leader_id.voted_for() == Some(store);
    if led { Vote { committed: false, ..vote } } else { vote }
}

pub(crate) fn encoded<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    to_postcard(value, &mut bytes);
    bytes
}

pub(crate) fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    from_postcard(bytes)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests;
