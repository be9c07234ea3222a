//! What a server does with its mapped store for other processes, beside reads and writes: room for values that they write
//! in place, notices of changes, how full it is.

use std::time::Duration;

use compact_str::CompactString;
use star_core::{
    ErrorCode, Time,
    admission::{refuse_key, refuse_request_id, refuse_value},
    message::{Local, Position, Request, RequestBody, ResponseBody},
    protocol::Token,
    server::{LocalOutcome, LocalService},
};
use star_objstore::{Changes, MappedStore, RoomError, Sealed};

use super::Node;

/// How often it is looked whether producers have let go of rooms.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The longest that a question for notices is kept waiting.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Changes are remembered for this long after the last question for them.
const REMEMBER_FOR: Duration = Duration::from_secs(60);
/// Questions for notices that wait at a time.
const WATCHERS_MAX: usize = 1024;
/// The most notices in an answer.
const NOTICES_MAX: u32 = 1000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct StoreService {
    watchers: Vec<Watcher>,
    /// Until when changes are remembered; zero if they are not.
    watched_until: Time,
    looked: Time,
}

/// A question for notices that waits for some.
#[derive(Debug)]
struct Watcher {
    token: Token,
    prefix: CompactString,
    /// All changes up to here were looked at.
    after: Position,
    limit: usize,
    until: Time,
}

impl LocalService<Node> for StoreService {
    fn ask(&mut self, now: Time, node: &mut Node, token: Token, question: Local) -> LocalOutcome {
        let (key_bytes_max, value_bytes_max) = (node.config().key_bytes_max, node.config().value_bytes_max);
        let store = node.store_mut();
        LocalOutcome::Answer(match question {
            Local::Create { key, encoding, value_bytes, lock } => {
                let bytes = usize::try_from(value_bytes).unwrap_or(usize::MAX);
                let refusal = refuse_key(&key, key_bytes_max).or_else(|| refuse_value(bytes, value_bytes_max));
                refusal.unwrap_or_else(|| {
                    let room = store.create_room(&key, encoding, value_bytes, lock);
                    room.map_or_else(|error| refuse(&error), ResponseBody::Room)
                })
            }
            Local::Seal { room, condition, request_id } => {
                match refuse_request_id(&request_id)
                    .map_or_else(|| store.seal_room(room).map_err(|error| refuse(&error)), Err)
                {
                    Ok(Sealed { key, encoding, value }) => {
                        let body = RequestBody::Set { key, encoding, condition, request_id };
                        return LocalOutcome::Request(Request { body, value });
                    }
                    Err(refusal) => refusal,
                }
            }
            Local::Abort { room } => {
                store.abort_room(room).map_or_else(|error| refuse(&error), |()| ResponseBody::Done)
            }
            Local::Capacity => ResponseBody::Capacity(store.capacity()),
            Local::Watch { prefix, after, limit, wait_ms } => {
                if self.watched_until == Time::ZERO {
                    store.watch(true);
                }
                self.watched_until = now + REMEMBER_FOR;
                let after = after.unwrap_or_else(|| store.position());
                let limit = limit.clamp(1, NOTICES_MAX) as usize;
                let wait = Duration::from_millis(wait_ms.into()).min(WAIT_MAX);
                let mut watcher = Watcher { token, prefix, after, limit, until: now + wait };
                match watcher.look(now, store) {
                    Some(answer) => answer,
                    None if self.watchers.len() < WATCHERS_MAX => {
                        self.watchers.push(watcher);
                        return LocalOutcome::Later;
                    }
                    None => {
                        let text = format!("{WATCHERS_MAX} others wait for changes here; try again, or elsewhere");
                        ResponseBody::error(ErrorCode::Overloaded, text)
                    }
                }
            }
        })
    }

    fn end_turn(&mut self, now: Time, node: &mut Node, answer: &mut dyn FnMut(Token, &ResponseBody)) {
        let store = node.store_mut();
        if now.since(self.looked) >= LOOK_EVERY {
            self.looked = now;
            store.look_after_rooms();
        }
        if self.watched_until == Time::ZERO {
            return;
        }
        self.watchers.retain_mut(|watcher| match watcher.look(now, store) {
            Some(body) => {
                answer(watcher.token, &body);
                false
            }
            None => true,
        });
        if !self.watchers.is_empty() {
            self.watched_until = now + REMEMBER_FOR;
        } else if now >= self.watched_until {
            self.watched_until = Time::ZERO;
            store.watch(false);
        }
    }
}

impl Watcher {
    /// The answer, if there are notices, or the time is up.
    fn look(&mut self, now: Time, store: &MappedStore) -> Option<ResponseBody> {
        if self.after == store.position() && now < self.until {
            return None;
        }
        let Changes { notices, missed, next } = store.changes(self.after, &self.prefix, self.limit);
        self.after = next;
        let is_due = missed || !notices.is_empty() || now >= self.until;
        is_due.then_some(ResponseBody::Notices { notices, missed, next })
    }
}

fn refuse(error: &RoomError) -> ResponseBody {
    let code = match error {
        RoomError::NoSpace(_) => ErrorCode::NoSpace,
        RoomError::LockInUse { .. } => ErrorCode::Overloaded,
        // Of this store, which the asker may not have opened yet.
        RoomError::NotLocked { .. } => ErrorCode::NotServing,
        RoomError::Small { .. } | RoomError::Unknown { .. } | RoomError::Sealed { .. } | RoomError::Aborted { .. } => {
            ErrorCode::BadRequest
        }
    };
    ResponseBody::error(code, error.to_string())
}
