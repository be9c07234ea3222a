//! What a server sends in a turn: each message once, however many get it.

use std::rc::Rc;

use bytes::Bytes;
use serde::Serialize;
use star_core::{
    ids::ServerId,
    message::{ResponseBody, Wire, to_postcard},
    protocol::{Effects, Token},
};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// A message on its way, to one server or to several.
#[derive(Debug)]
pub(crate) struct Parcel<M> {
    pub(crate) message: M,
    /// XXH3 of the message, for the trace.
    pub(crate) digest: u64,
}

impl<M: Wire> Parcel<M> {
    fn pack(message: &M, scratch: &mut Vec<u8>) -> Rc<Self> {
        scratch.clear();
        message.encode_header(scratch);
        let digest = if message.tail().is_empty() {
            xxh3_64(scratch)
        } else {
            let mut hash = Xxh3::new();
            hash.update(scratch);
            hash.update(message.tail());
            hash.digest()
        };
        Rc::new(Self { message: message.clone(), digest })
    }

    /// The message, copied only while others wait for it too.
    pub(crate) fn unpack(parcel: Rc<Self>) -> M {
        Rc::try_unwrap(parcel).map_or_else(|shared| shared.message.clone(), |parcel| parcel.message)
    }
}

/// XXH3 of a request or an answer, for the trace.
pub(crate) fn digest<T: Serialize>(body: &T) -> u64 {
    let mut bytes = Vec::with_capacity(64);
    to_postcard(body, &mut bytes);
    xxh3_64(&bytes)
}

/// One effect of a turn.
#[derive(Debug)]
pub(crate) enum Sent<M> {
    Parcel { to: ServerId, parcel: Rc<Parcel<M>> },
    Answer { token: Token, answer: Box<(ResponseBody, Bytes)> },
}

/// The effects of a turn, in order.
#[derive(Debug)]
pub(crate) struct Outgoing<M> {
    sent: Vec<Sent<M>>,
    scratch: Vec<u8>,
}

impl<M> Default for Outgoing<M> {
    fn default() -> Self {
        Self { sent: Vec::new(), scratch: Vec::new() }
    }
}

impl<M> Outgoing<M> {
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Sent<M>> + '_ {
        self.sent.drain(..)
    }
}

impl<M: Wire> Effects<M> for Outgoing<M> {
    fn send(&mut self, to: ServerId, message: &M) {
        self.broadcast(&[to], message);
    }

    fn broadcast(&mut self, to: &[ServerId], message: &M) {
        if to.is_empty() {
            return;
        }
        let parcel = Parcel::pack(message, &mut self.scratch);
        self.sent.extend(to.iter().map(|to| Sent::Parcel { to: *to, parcel: Rc::clone(&parcel) }));
    }

    fn reply(&mut self, token: Token, body: &ResponseBody, value: &[u8]) {
        let answer = Box::new((body.clone(), Bytes::copy_from_slice(value)));
        self.sent.push(Sent::Answer { token, answer });
    }
}
