//! The mapped store that a client reads from by itself.

use std::{
    cell::RefCell,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use star_core::{Clock, KeyRef, Time, Version, store::Encoding};
use star_objstore::{AHEAD, Answer, Reader, Reason, Ref};

use super::{Object, Value};

/// How long a mapped store that cannot answer any more is left alone before another is looked for.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// The mapped store that reads are answered from, shared by the clones of a client.
#[derive(Debug)]
pub(super) struct Mapped {
    /// Names this one among all of the process.
    id: u64,
    /// The cluster whose stores are right; None if there is no mapped store to look for.
    cluster: Option<String>,
    /// Names what `reader` is, among all such of the process; changes with it. See [`Held`].
    reader_id: AtomicU64,
    reader: Mutex<Option<Arc<Reader>>>,
    /// Where the last store that was opened lies.
    path: Mutex<Option<String>>,
    /// When another may be looked for, as [`Time`] in a number.
    reopen_at: AtomicU64,
}

/// What came of a read from the mapped store.
#[derive(Debug)]
pub(super) enum MappedRead<T> {
    /// The key's object, or that it has none.
    Answer(Option<T>),
    /// It cannot answer now: a server must.
    AskServer,
}

/// What came of reads of several keys from the mapped store.
#[derive(Debug)]
pub(super) struct ManyRead {
    /// The object of each key.
    pub(super) found: Vec<Option<Object>>,
    /// The places of the keys of which it says nothing: a server must be asked.
    pub(super) left: Vec<usize>,
    /// Whether a server must be asked for a reason that is not the key's alone.
    pub(super) lapsed: bool,
}

impl ManyRead {
    fn push(&mut self, read: Result<MappedRead<Object>, Reason>) {
        self.lapsed |= read.is_err();
        match read {
            Ok(MappedRead::Answer(object)) => self.found.push(object),
            Ok(MappedRead::AskServer) | Err(_) => {
                self.left.push(self.found.len());
                self.found.push(None);
            }
        }
    }
}

/// An object as it was read: in the mapped store, without a copy, or what a server sent.
///
/// In the store it takes room until it is dropped; keep it as long as you look at it. It must not be used in a process
/// that was forked meanwhile.
#[derive(Debug)]
pub enum ObjectRef {
    /// In the mapped store, where it stays as it is.
    InPlace(Ref),
    /// A copy.
    Copied(Box<Object>),
}

impl ObjectRef {
    /// Its version.
    pub fn version(&self) -> Version {
        match self {
            Self::InPlace(object) => object.version(),
            Self::Copied(object) => object.version,
        }
    }

    /// How its bytes came in.
    pub fn encoding(&self) -> Encoding {
        match self {
            Self::InPlace(object) => object.encoding(),
            Self::Copied(object) => object.encoding,
        }
    }
}

impl Deref for ObjectRef {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::InPlace(object) => object,
            Self::Copied(object) => &object.value,
        }
    }
}

/// The reader that this thread used last. A lock or a count that threads share would cost more than the read itself,
/// and keep the processor from beginning the next one.
#[derive(Debug)]
struct Held {
    /// Of the client's store.
    id: u64,
    /// Of this very reader.
    reader_id: u64,
    reader: Option<Arc<Reader>>,
}

thread_local! {
    static HELD: RefCell<Held> = const { RefCell::new(Held { id: 0, reader_id: 0, reader: None }) };
}

impl Mapped {
    pub(super) fn new(cluster: Option<String>) -> Self {
        let (id, reader_id, reopen_at) = (next_id(), AtomicU64::new(next_id()), AtomicU64::new(0));
        Self { id, cluster, reader_id, reader: Mutex::new(None), path: Mutex::new(None), reopen_at }
    }

    /// A copy of the key's object, if this store can answer at once; None says nothing.
    #[inline]
    pub(super) fn try_get(&self, key: KeyRef<'_>) -> Option<Object> {
        self.held(|reader| try_copy(reader, key))
    }

    /// The same in place.
    #[inline]
    pub(super) fn try_get_ref(&self, key: KeyRef<'_>) -> Option<Ref> {
        self.held(|reader| reader.try_get_ref(key))
    }

    /// A copy of the key's object, if this store can answer.
    pub(super) fn get(&self, key: KeyRef<'_>) -> Result<MappedRead<Object>, Reason> {
        self.with(|reader| copy(reader, key))
    }

    /// Copies of the keys' objects, as far as this store can answer.
    pub(super) fn get_many(&self, keys: &[KeyRef<'_>]) -> ManyRead {
        let mut read = ManyRead { found: Vec::with_capacity(keys.len()), left: Vec::new(), lapsed: false };
        let answered = self.with(|reader| {
            for group in keys.chunks(AHEAD) {
                reader.prefetch(group);
                for key in group {
                    match try_copy(reader, *key) {
                        Some(object) => read.found.push(Some(object)),
                        None => read.push(copy(reader, *key)),
                    }
                }
            }
            Ok(())
        });
        if let Err(reason) = answered {
            keys.iter().for_each(|_| read.push(Err(reason)));
        }
        read
    }

    /// The key's object in place, if this store can answer; a copy if nothing more can be pinned.
    pub(super) fn get_ref(&self, key: KeyRef<'_>) -> Result<MappedRead<ObjectRef>, Reason> {
        let found = self.with(|reader| match reader.get_ref(key) {
            Ok(found) => Ok(MappedRead::Answer(found.map(ObjectRef::InPlace))),
            Err(Reason::Dirty | Reason::Contended) => Ok(MappedRead::AskServer),
            Err(reason) => Err(reason),
        });
        match found {
            Err(Reason::NoPin) => Ok(match self.get(key)? {
                MappedRead::Answer(found) => MappedRead::Answer(found.map(|object| ObjectRef::Copied(object.into()))),
                MappedRead::AskServer => MappedRead::AskServer,
            }),
            found => found,
        }
    }

    /// Whether the key has an object, if this store can answer.
    pub(super) fn contains(&self, key: KeyRef<'_>) -> Result<MappedRead<()>, Reason> {
        self.with(|reader| match reader.contains(key) {
            Ok(found) => Ok(MappedRead::Answer(found.then_some(()))),
            Err(Reason::Dirty | Reason::Contended) => Ok(MappedRead::AskServer),
            Err(reason) => Err(reason),
        })
    }

    /// Where the store lies that reads are answered from.
    pub(super) fn path(&self) -> Option<String> {
        self.path.lock().clone()
    }

    /// Hands the reader to `read`; [`Reason::Moved`] if there is none.
    fn with<R>(&self, read: impl FnOnce(&Reader) -> Result<R, Reason>) -> Result<R, Reason> {
        self.held(|reader| Some(read(reader))).unwrap_or(Err(Reason::Moved))
    }

    /// The same for what may come to nothing.
    #[inline]
    fn held<R>(&self, read: impl FnOnce(&Reader) -> Option<R>) -> Option<R> {
        // A thread that ends has no such place any more.
        HELD.try_with(|held| {
            let held = &mut *held.borrow_mut();
            if held.reader_id != self.reader_id.load(Ordering::Acquire) {
                self.take_up(held);
            }
            read(held.reader.as_ref()?)
        })
        .ok()?
    }

    #[cold]
    fn take_up(&self, held: &mut Held) {
        let reader = self.reader.lock();
        *held = Held { id: self.id, reader_id: self.reader_id.load(Ordering::Acquire), reader: reader.clone() };
    }

    /// Whether another store may be looked for now: seldom, and by one thread.
    pub(super) fn is_due(&self) -> bool {
        if self.cluster.is_none() {
            return false;
        }
        let now = Clock.now();
        let due = self.reopen_at.load(Ordering::Relaxed);
        let next = (now + REOPEN_AFTER).0;
        now >= Time(due) && self.reopen_at.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Opens the first of these stores that belongs to the cluster; says why not if none does.
    pub(super) fn open<'a>(&self, paths: impl Iterator<Item = &'a str>) -> Result<(), String> {
        let Some(cluster) = &self.cluster else { return Err("the cluster has no view yet".to_owned()) };
        let mut why = "no server of the cluster names one".to_owned();
        for path in paths {
            match Reader::open(path) {
                Ok(reader) if reader.cluster() == *cluster => {
                    *self.path.lock() = Some(path.to_owned());
                    let mut current = self.reader.lock();
                    *current = Some(Arc::new(reader));
                    self.reader_id.store(next_id(), Ordering::Release);
                    return Ok(());
                }
                Ok(_) => why = format!("{path} belongs to another cluster"),
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }
}

/// A number that nothing else has.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A copy of what a key's object is, if it is found at once.
#[inline(always)]
#[allow(clippy::inline_always, reason = "part of the one short function that a read is")]
fn try_copy(reader: &Reader, key: KeyRef<'_>) -> Option<Object> {
    let mut value = Value::new();
    let ((), version, encoding) = reader.try_get(
        key,
        #[inline(always)]
        |found| value.fill(found),
    )?;
    Some(Object { value, version, encoding })
}

/// The same with all that can be said of a key. `Err` with a reason that is not the key's alone.
fn copy(reader: &Reader, key: KeyRef<'_>) -> Result<MappedRead<Object>, Reason> {
    let mut value = Vec::new();
    match reader.get(key, &mut value) {
        Answer::Found { version, encoding } => {
            Ok(MappedRead::Answer(Some(Object { value: Bytes::from(value).into(), version, encoding })))
        }
        Answer::NotFound => Ok(MappedRead::Answer(None)),
        Answer::Ask(Reason::Dirty | Reason::Contended) => Ok(MappedRead::AskServer),
        Answer::Ask(reason) => Err(reason),
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // Other threads let go of the file when they next read through a client, or end.
        let _ = HELD.try_with(|held| {
            let held = &mut *held.borrow_mut();
            if held.id == self.id {
                held.reader = None;
            }
        });
    }
}
