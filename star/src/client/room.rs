//! Values that are written in place: `create`, then `seal` or `abort`.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use star_core::{
    Clock, ErrorCode, Failure, Key, RequestId, Time, Version,
    message::{Condition, Local, Request, RequestBody, Response, ResponseBody},
    store::Encoding,
};
use star_objstore::{Claim, ROOM_BYTES_MIN};

use super::{CasOutcome, ClientError, PAUSE_MAX, PAUSE_MIN, StarClient, directory::Server, outcome};

/// Room for a value, to be written through `DerefMut<Target = [u8]>` and then sealed.
///
/// Where a server runs on this machine and its mapped store can be written, the room is in that store: what is written
/// there is not copied again on this machine. Else it is a buffer, and sealing sends it. What is in it before it is
/// written is undefined.
///
/// Dropping it aborts it. It must not be used in a process that was forked from the one that created it.
pub struct Room {
    client: StarClient,
    key: Key,
    value: Value,
}

enum Value {
    InPlace {
        room: star_objstore::Room,
        /// Its name at the server.
        id: u64,
        server: Arc<Server>,
    },
    Buffer(Vec<u8>),
}

impl StarClient {
    /// Room for a value of `value_bytes` bytes under a key: in the mapped store of a server of this machine if it has
    /// 64 KiB or more and that can be done, else a buffer (see [`Room::is_in_place`]).
    ///
    /// Fails with `NO_SPACE` where that store is full (others may have let go of some a little later), and with
    /// `TOO_LARGE` for a key or value over its limit.
    pub async fn create(&self, key: &str, value_bytes: usize) -> Result<Room, ClientError> {
        let key = Key::new(key);
        let value = match self.create_in_place(&key, value_bytes as u64).await? {
            Some(in_place) => in_place,
            None => Value::Buffer(vec![0; value_bytes]),
        };
        Ok(Room { client: self.clone(), key, value })
    }

    /// `None`: not here, or not now.
    async fn create_in_place(&self, key: &Key, value_bytes: u64) -> Result<Option<Value>, ClientError> {
        let Some((server, path)) = self.inner.servers.of_this_machine().filter(|_| value_bytes >= ROOM_BYTES_MIN)
        else {
            return Ok(None);
        };
        // A store that may only be read, or is being replaced, or has as many producers as it can have.
        let Ok(claim) = Claim::take(&path) else { return Ok(None) };
        let (key, encoding, lock) = (key.clone(), Encoding::Raw, claim.lock());
        let question = Local::Create { key, encoding, value_bytes, lock };
        let time_left = self.inner.options.give_up_after;
        match self.inner.servers.ask_local(&server, &question, time_left).await {
            Ok(ResponseBody::Room(place)) => {
                let room = claim.enter(&place, value_bytes).ok();
                Ok(room.map(|room| Value::InPlace { room, id: place.room, server }))
            }
            Ok(ResponseBody::Error(failure)) if failure.code.retry() && failure.code != ErrorCode::NoSpace => Ok(None),
            Ok(ResponseBody::Error(failure)) => Err(ClientError::Refused(failure)),
            Ok(other) => Err(ClientError::unexpected(other)),
            Err(_) => Ok(None),
        }
    }
}

impl Room {
    /// Whether it is in the mapped store of a server of this machine; else it is a buffer.
    pub fn is_in_place(&self) -> bool {
        matches!(self.value, Value::InPlace { .. })
    }

    /// Makes what was written the key's object, and returns its version. It is committed then, as after a
    /// [`StarClient::set`], and takes effect once in the same way.
    pub async fn seal(self) -> Result<Version, ClientError> {
        match self.seal_if(Condition::Always).await? {
            CasOutcome::Written(version) => Ok(version),
            CasOutcome::Conflict(_) => Err(ClientError::unexpected("a conflict without a condition")),
        }
    }

    /// The same if the condition holds.
    pub async fn seal_if(self, condition: Condition) -> Result<CasOutcome, ClientError> {
        let Self { client, key, value } = self;
        let deadline = Clock.now() + client.inner.options.give_up_after;
        let mut body = RequestBody::Set { key, encoding: Encoding::Raw, condition, request_id: RequestId::Unnamed };
        let (room, id, server) = match value {
            Value::Buffer(value) => return outcome(client.call(Request { body, value: value.into() }).await?.body),
            Value::InPlace { room, id, server } => (room, id, server),
        };
        let ticket = client.inner.names.take(1, deadline).await?;
        let request_id = ticket.request_id();
        if let RequestBody::Set { request_id: named, .. } = &mut body {
            *named = request_id.clone();
        }
        let question = Local::Seal { room: id, condition, request_id };
        let (answer, mut may_be_done) = client.seal_in_place(&server, &question, deadline).await;
        // The bytes stay where and as they are while they are sent, if they must be: the room is kept as long.
        let request = Request { body, value: Bytes::from_owner(room) };
        let answer = match answer {
            Ok(body) => Ok(body.into()),
            // Another server may do it, or this one without the room. It is the same write, by its id.
            Err(_) => {
                let (answer, sent_may_be_done) = client.call_named(&request, deadline).await;
                may_be_done |= sent_may_be_done;
                answer
            }
        };
        let response: Response = client.finish_write(request, &ticket, answer, may_be_done, deadline).await?;
        outcome(response.body)
    }

    /// Gives the room back, and waits until the server knows. Dropping it does as well, a moment later.
    pub async fn abort(self) -> Result<(), ClientError> {
        let Value::InPlace { room, id, server } = self.value else { return Ok(()) };
        // Before the server is told, so that it can use the room at once.
        drop(room);
        let servers = &self.client.inner.servers;
        match servers.ask_local(&server, &Local::Abort { room: id }, self.client.inner.options.give_up_after).await {
            // Without its lock the room may have been taken back before the word came; and a server that ended has none.
            Ok(ResponseBody::Done | ResponseBody::Error(Failure { code: ErrorCode::BadRequest, .. })) => Ok(()),
            Ok(ResponseBody::Error(failure)) => Err(ClientError::Refused(failure)),
            Ok(other) => Err(ClientError::unexpected(other)),
            Err(error) => Err(error.into()),
        }
    }
}

impl StarClient {
    /// Asks the server that has the room to make it an object. Says, too, whether that may have been done before an error.
    async fn seal_in_place(
        &self,
        server: &Server,
        question: &Local,
        deadline: Time,
    ) -> (Result<ResponseBody, ClientError>, bool) {
        let mut pause = PAUSE_MIN;
        loop {
            let time_left = deadline.since(Clock.now());
            match self.inner.servers.ask_local(server, question, time_left).await {
                Ok(ResponseBody::Error(failure)) => {
                    let is_busy = failure.code == ErrorCode::Overloaded && Clock.now() + pause < deadline;
                    if is_busy {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(PAUSE_MAX);
                        continue;
                    }
                    if matches!(failure.code, ErrorCode::NoSpace | ErrorCode::Forgotten) {
                        return (Ok(ResponseBody::Error(failure)), false);
                    }
                    let may_be_done = failure.code == ErrorCode::Unfinished;
                    return (Err(ClientError::Refused(failure)), may_be_done);
                }
                Ok(body) => return (Ok(body), false),
                Err(error) => {
                    let may_be_done = error.may_have_been_done();
                    return (Err(error.into()), may_be_done);
                }
            }
        }
    }

    /// How full the store of a server of this machine is, or of any server of the cluster where none runs here.
    pub async fn capacity(&self) -> Result<star_core::message::Capacity, ClientError> {
        let server = self.inner.servers.nearest();
        let time_left: Duration = self.inner.options.give_up_after;
        match self.inner.servers.ask_local(&server, &Local::Capacity, time_left).await? {
            ResponseBody::Capacity(capacity) => Ok(capacity),
            ResponseBody::Error(failure) => Err(ClientError::Refused(failure)),
            other => Err(ClientError::unexpected(other)),
        }
    }
}

impl Deref for Room {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.value {
            Value::InPlace { room, .. } => room,
            Value::Buffer(value) => value,
        }
    }
}

impl DerefMut for Room {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.value {
            Value::InPlace { room, .. } => room,
            Value::Buffer(value) => value,
        }
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_in_place = self.is_in_place();
        f.debug_struct("Room").field("key", &self.key).field("in_place", &is_in_place).finish_non_exhaustive()
    }
}
