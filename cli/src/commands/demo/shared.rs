//! What all clients of the demonstration share: the servers, the record, the source of chance.

use std::{cell::RefCell, time::Duration};

use bytes::Bytes;
use star::{ClientError, Options, StarClient, Transport};
use star_core::{
    Clock, Key, RequestId, Time, Version,
    config::Config,
    message::{Condition, Request, RequestBody, ResponseBody},
    store::Encoding,
};
use star_objstore::{Answer, Reader};
use star_sim::{history::Op, random::Random};

use super::record::{Done, Record};
use crate::{
    connection,
    error::CliError,
    status::{ClusterStatus, ServerStatus},
};

/// How long an operation may be tried. A healthy cluster on a loaded machine is far below.
const GIVE_UP_AFTER: Duration = Duration::from_secs(20);

/// The servers, and what is known of them.
pub(super) struct Shared {
    pub(super) servers: Vec<Door>,
    pub(super) record: RefCell<Record>,
    clock: Clock,
    begin: Time,
    random: RefCell<Random>,
}

/// The ways to one server: over TCP, and through its mapped store if that can be opened.
pub(super) struct Door {
    pub(super) name: String,
    /// Talks to this server alone.
    pub(super) client: StarClient,
    pub(super) addr: String,
    reader: Option<Reader>,
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

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The key has this version now.
    Done(Version),
    /// The key has another version than expected.
    Conflict,
    /// There was nothing to delete.
    Nothing,
}

/// What a mapped store says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mapped {
    /// The object is in the buffer.
    Found,
    /// There is no such object.
    Nothing,
    /// It cannot say: the server would have to be asked.
    Ask,
}

impl Shared {
    pub(super) async fn new(cluster: &ClusterStatus, config: &Config) -> Result<Self, CliError> {
        let clock = Clock;
        let begin = clock.now();
        let mut servers = Vec::new();
        for server in &cluster.servers {
            let options = connection::options(config, GIVE_UP_AFTER, Transport::Tcp);
            let options = Options { only_given: true, ..options };
            let client = StarClient::connect(std::slice::from_ref(&server.addr), options).await?;
            let path = server.own.as_ref().and_then(ServerStatus::store_path);
            let reader = path.and_then(|path| Reader::open(path).ok());
            servers.push(Door { name: server.name.clone(), client, addr: server.addr.clone(), reader });
        }
        if servers.is_empty() {
            return Err(CliError::new("no server is left"));
        }
        Ok(Self {
            record: RefCell::new(Record::new(servers.len())),
            servers,
            clock,
            begin,
            random: RefCell::new(Random::new(begin.0)),
        })
    }

    /// Time since the demonstration began.
    pub(super) fn now(&self) -> Time {
        Time(self.clock.now().since(self.begin).as_nanos() as u64)
    }

    /// A number below `bound`.
    pub(super) fn below(&self, bound: usize) -> usize {
        self.random.borrow_mut().below(bound as u64) as usize
    }

    /// A write whose origin is a server chosen at random.
    pub(super) async fn write(&self, client: u32, key: &str, change: Change) -> Result<Outcome, CliError> {
        let (request, op, if_version) = Self::request(key, change);
        let value = request.value.clone();
        let call = self.now();
        let origin = &self.servers[self.below(self.servers.len())];
        let answer = origin.client.call(request).await.map(|answer| answer.body);
        let ret = self.now();
        let (outcome, version) = match &answer {
            Ok(ResponseBody::Written { version }) => (Ok(Outcome::Done(*version)), Some(*version)),
            Ok(ResponseBody::Conflict { version }) => (Ok(Outcome::Conflict), Some(*version)),
            Ok(ResponseBody::NotFound) => (Ok(Outcome::Nothing), None),
            Ok(other) => (Err(ClientError::Unexpected(format!("{other:?}"))), None),
            Err(error) => (Err(error.clone()), None),
        };
        self.record.borrow_mut().add(&Done {
            client,
            op,
            key,
            value: (op != Op::Delete).then_some(value.as_ref()),
            version,
            if_version,
            call,
            ret: outcome.is_ok().then_some(ret),
            ok: matches!(outcome, Ok(Outcome::Done(_) | Outcome::Nothing)),
        });
        outcome.map_err(|error| CliError::from(error).context(format!("cannot write {key:?}")))
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

    /// A read through this server, over TCP.
    pub(super) async fn read(
        &self,
        client: u32,
        server: usize,
        key: &str,
    ) -> Result<Option<(Bytes, Version)>, CliError> {
        let door = &self.servers[server];
        let call = self.now();
        let found = door.client.get(key).await.map_err(|error| {
            CliError::from(error).context(format!("cannot read {key:?} through server {}", door.name))
        })?;
        let found = found.map(|object| (Bytes::from(object.value), object.version));
        self.count_read(client, key, call, found.as_ref().map(|(value, version)| (value.as_ref(), *version)));
        self.record.borrow_mut().by_server[server].tcp += 1;
        Ok(found)
    }

    /// A read from the mapped store of this server, into `buffer`.
    pub(super) fn read_mapped(&self, client: u32, server: usize, key: &str, buffer: &mut Vec<u8>) -> Mapped {
        let call = self.now();
        let Some(reader) = &self.servers[server].reader else { return Mapped::Ask };
        let found = match reader.get(&Key::new(key), buffer) {
            Answer::Found { version, .. } => Some(version),
            Answer::NotFound => None,
            Answer::Ask(_) => return Mapped::Ask,
        };
        self.count_read(client, key, call, found.map(|version| (buffer.as_slice(), version)));
        self.record.borrow_mut().by_server[server].mapped += 1;
        found.map_or(Mapped::Nothing, |_| Mapped::Found)
    }

    fn count_read(&self, client: u32, key: &str, call: Time, found: Option<(&[u8], Version)>) {
        let ret = Some(self.now());
        let (value, version) = found.unzip();
        let done = Done { client, op: Op::Read, key, value, version, if_version: None, call, ret, ok: true };
        self.record.borrow_mut().add(&done);
    }
}
