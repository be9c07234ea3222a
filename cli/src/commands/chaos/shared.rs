//! What all clients of a run share: the ways to the servers, the keys, the record, the source of chance.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use bytes::Bytes;
use star::{Options, StarClient, Transport};
use star_core::{
    Clock, Key, RequestId, Time, Version,
    config::Config,
    message::{Condition, Request, RequestBody, ResponseBody},
    network::ClientOptions,
    store::Encoding,
};
use star_objstore::{Answer, Reader, Reason};
use star_sim::{history::Op, random::Random};

use super::record::{Done, Record};
use crate::{
    connection,
    error::CliError,
    status::{ClusterStatus, ServerStatus},
};

/// Objects of each star that are changed all the time.
const HOT_KEYS: usize = 32;
/// Objects of each star that are written once, before the first fault: their reads always meet a clean key.
const STILL_KEYS: usize = 2;
/// A writer goes to another server, with the same request id, if one says nothing for so long.
const WRITER_PATIENCE: Duration = Duration::from_millis(250);
/// After this the outcome of a write is unknown. Longer than any fault, so that few are.
const WRITER_GIVES_UP: Duration = Duration::from_secs(20);
/// Readers wait longer than any server is stopped: what it answers when it goes on must be right.
const READER_PATIENCE: Duration = Duration::from_secs(20);
/// Those that measure gaps ask again soon.
const PROBE_PATIENCE: Duration = Duration::from_millis(300);

/// See the module.
pub(super) struct Shared {
    pub(super) servers: Vec<Door>,
    /// All servers; each write goes to any of them.
    writer: StarClient,
    pub(super) stars: u16,
    /// Keys by star.
    pub(super) hot: Vec<Vec<String>>,
    pub(super) still: Vec<String>,
    pub(super) record: RefCell<Record>,
    /// The latest version known of each hot key, for conditions.
    versions: RefCell<star_core::collections::Map<String, Version>>,
    clock: Clock,
    begin: Time,
    random: RefCell<Random>,
    writes: Cell<u64>,
    pub(super) is_over: Cell<bool>,
}

/// The ways to one server.
pub(super) struct Door {
    pub(super) name: String,
    patient: StarClient,
    quick: StarClient,
    store: Option<String>,
    reader: RefCell<Option<Reader>>,
}

/// A write.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Make this the key's object.
    Set(Bytes),
    /// Make it so if the key has this version.
    CompareAndSet(Bytes, Version),
    /// Remove the key's object.
    Delete,
}

impl Shared {
    pub(super) async fn new(cluster: &ClusterStatus, config: &Config, seed: u64) -> Result<Self, CliError> {
        let stars = config.cluster.stars;
        let addrs: Vec<String> = cluster.servers.iter().map(|server| server.addr.clone()).collect();
        let options = |patience, give_up_after| {
            let network = ClientOptions { request_timeout: patience, ..config.client_options() };
            Options { network, ..connection::options(config, give_up_after, Transport::Tcp) }
        };
        let writer = StarClient::connect(&addrs, options(WRITER_PATIENCE, WRITER_GIVES_UP)).await?;
        let mut servers = Vec::new();
        for server in &cluster.servers {
            let own = std::slice::from_ref(&server.addr);
            let one = |patience| Options { only_given: true, ..options(patience, patience) };
            servers.push(Door {
                name: server.name.clone(),
                patient: StarClient::connect(own, one(READER_PATIENCE)).await?,
                quick: StarClient::connect(own, one(PROBE_PATIENCE)).await?,
                store: server.own.as_ref().and_then(ServerStatus::store_path).map(str::to_owned),
                reader: RefCell::new(None),
            });
        }
        let clock = Clock;
        let begin = clock.now();
        Ok(Self {
            record: RefCell::new(Record::new(usize::from(stars), servers.len())),
            servers,
            writer,
            stars,
            hot: keys("hot", stars, HOT_KEYS),
            still: keys("still", stars, STILL_KEYS).concat(),
            versions: RefCell::default(),
            clock,
            begin,
            random: RefCell::new(Random::new(seed)),
            writes: Cell::new(1),
            is_over: Cell::new(false),
        })
    }

    /// Time since the run began.
    pub(super) fn now(&self) -> Time {
        Time(self.clock.now().since(self.begin).as_nanos() as u64)
    }

    /// A number below `bound`.
    pub(super) fn below(&self, bound: usize) -> usize {
        self.random.borrow_mut().below(bound as u64) as usize
    }

    /// A number that no call returned before.
    pub(super) fn next_number(&self) -> u64 {
        self.writes.replace(self.writes.get() + 1)
    }

    /// The latest version known of a key; 0 where none is.
    pub(super) fn version(&self, key: &str) -> Version {
        self.versions.borrow().get(key).copied().unwrap_or(Version(0))
    }

    /// A write through any server; tried again with the same request id until the outcome is known, or the time is up.
    pub(super) async fn write(&self, client: u32, key: &str, change: Change) {
        let (request, op, if_version) = Self::request(key, change);
        let value = request.value.clone();
        let call = self.now();
        let answer = self.writer.call(request).await.map(|answer| answer.body);
        let ret = self.now();
        let (version, is_known, ok) = match &answer {
            Ok(ResponseBody::Written { version }) => (Some(*version), true, true),
            Ok(ResponseBody::Conflict { version }) => (Some(*version), true, false),
            Ok(ResponseBody::NotFound) => (None, true, true),
            Ok(_) | Err(_) => (None, false, false),
        };
        if is_known {
            let known = if op == Op::Delete { Version(0) } else { version.unwrap_or_default() };
            self.versions.borrow_mut().insert(key.to_owned(), known);
            self.record.borrow_mut().gaps.wrote(usize::from(Key::new(key).star(self.stars).0), ret);
        }
        self.record.borrow_mut().add(&Done {
            client,
            op,
            key,
            value: (op != Op::Delete).then_some(value.as_ref()),
            version,
            if_version,
            call,
            ret: is_known.then_some(ret),
            ok,
        });
        if let Ok(body @ (ResponseBody::Value { .. } | ResponseBody::Keys { .. } | ResponseBody::Many(_))) = answer {
            self.surprise(format!("a write of {key:?} was answered by {body:?}"));
        }
    }

    fn request(key: &str, change: Change) -> (Request, Op, Option<Version>) {
        let request_id = RequestId::Unnamed; // The client names it.
        let (key, encoding) = (Key::new(key), Encoding::Raw);
        match change {
            Change::Set(value) => {
                let body = RequestBody::Set { key, encoding, condition: Condition::Always, request_id };
                (Request { body, value }, Op::Write, None)
            }
            Change::CompareAndSet(value, version) => {
                let body = RequestBody::Set { key, encoding, condition: Condition::IfVersion(version), request_id };
                (Request { body, value }, Op::CompareAndSet, Some(version))
            }
            Change::Delete => {
                let body = RequestBody::Delete { key, condition: Condition::Always, request_id };
                (body.into(), Op::Delete, None)
            }
        }
    }

    /// A read through this server, over TCP; false if it was not answered.
    pub(super) async fn read(&self, client: u32, server: usize, key: &str) -> bool {
        let call = self.now();
        let Ok(found) = self.servers[server].patient.get(key).await else { return false };
        self.record.borrow_mut().counts.reads += 1;
        let found = found.as_ref().map(|object| (object.value.as_ref(), object.version));
        self.saw(client, key, call, found);
        true
    }

    /// A read from the mapped store of this server; false if that could not answer.
    pub(super) fn read_mapped(&self, client: u32, server: usize, key: &str, buffer: &mut Vec<u8>) -> bool {
        let call = self.now();
        let found = match self.servers[server].look(key, buffer) {
            Answer::Found { version, .. } => Some((buffer.as_slice(), version)),
            Answer::NotFound => None,
            Answer::Ask(_) => return false,
        };
        self.record.borrow_mut().counts.mapped_reads += 1;
        self.saw(client, key, call, found);
        true
    }

    fn saw(&self, client: u32, key: &str, call: Time, found: Option<(&[u8], Version)>) {
        let ret = Some(self.now());
        let (value, version) = found.unzip();
        self.versions.borrow_mut().insert(key.to_owned(), version.unwrap_or_default());
        let done = Done { client, op: Op::Read, key, value, version, if_version: None, call, ret, ok: true };
        self.record.borrow_mut().add(&done);
    }

    /// Writes an object that nobody changes any more; it holds its own key.
    pub(super) async fn write_still(&self, key: &str) -> Result<(), CliError> {
        self.writer.set(key, key.to_owned()).await?;
        Ok(())
    }

    /// Reads an object that nobody changes, over TCP and from the mapped store, and compares it.
    pub(super) async fn probe(&self, server: usize, key: &str, buffer: &mut Vec<u8>) {
        let door = &self.servers[server];
        match door.look(key, buffer) {
            Answer::Found { version, .. } => self.compare(server, key, Some((buffer.as_slice(), version))),
            Answer::NotFound => self.compare(server, key, None),
            Answer::Ask(_) => {}
        }
        if let Ok(found) = door.quick.get(key).await {
            let now = self.now();
            self.record.borrow_mut().gaps.read(server, now);
            self.compare(server, key, found.as_ref().map(|object| (object.value.as_ref(), object.version)));
        }
    }

    fn compare(&self, server: usize, key: &str, found: Option<(&[u8], Version)>) {
        self.record.borrow_mut().counts.compared += 1;
        if found != Some((key.as_bytes(), Version(1))) {
            let found = found.map(|(value, version)| (String::from_utf8_lossy(value).into_owned(), version));
            let (name, now) = (&self.servers[server].name, self.now());
            self.surprise(format!("at {now}, {key:?}, which nobody changes, was {found:?} at server {name}"));
        }
    }

    /// Notes what must not happen.
    pub(super) fn surprise(&self, text: String) {
        self.record.borrow_mut().surprises.push(text);
    }
}

impl Door {
    /// Looks into the mapped store; opens it anew if another file has taken its place.
    fn look(&self, key: &str, buffer: &mut Vec<u8>) -> Answer {
        let mut reader = self.reader.borrow_mut();
        let answer = reader.as_ref().map_or(Answer::Ask(Reason::Moved), |reader| reader.get(&Key::new(key), buffer));
        let Answer::Ask(Reason::NoLease | Reason::NotServing | Reason::Moved) = answer else { return answer };
        if reader.as_ref().is_none_or(Reader::moved) {
            // There is none while the server is away.
            *reader = self.store.as_ref().and_then(|path| Reader::open(path).ok());
        }
        answer
    }
}

/// So many keys of each star.
fn keys(prefix: &str, stars: u16, count: usize) -> Vec<Vec<String>> {
    let mut keys = vec![Vec::new(); usize::from(stars)];
    let mut number = 0_u64;
    while keys.iter().any(|of_star| of_star.len() < count) {
        let key = format!("{prefix}/{number}");
        let of_star: &mut Vec<String> = &mut keys[usize::from(Key::new(key.as_str()).star(stars).0)];
        if of_star.len() < count {
            of_star.push(key);
        }
        number += 1;
    }
    keys
}
