//! The sockets of a server: what a protocol's effects become.

use std::{io::IoSlice, rc::Rc};

use tokio::{net::tcp::OwnedWriteHalf, sync::Notify};
use tracing::debug;

use super::{Limits, outbox::Outbox};
use crate::{
    collections::{Map, Set},
    ids::ServerId,
    message::{
        ResponseBody, Wire,
        frame::{self, FrameKind},
        json, to_postcard,
    },
    protocol::{Effects, Token},
};

/// The request number of JSON messages, which have no id: one is answered after the other.
pub(crate) const JSON_REQUEST: u64 = u64::MAX;

/// The part of a token that names a connection: its slot, and how often the slot was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionId {
    slot: u32,
    use_count: u32,
}

impl ConnectionId {
    fn from_token(token: Token) -> Self {
        Self { slot: token.connection as u32, use_count: (token.connection >> 32) as u32 }
    }

    pub(crate) fn token(self, request: u64) -> Token {
        Token { connection: u64::from(self.slot) | u64::from(self.use_count) << 32, request }
    }
}

/// One open connection, seen from the side that writes to it.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Rc<OwnedWriteHalf>,
    outbox: Outbox,
    /// Whether it is in [`Io::dirty`].
    is_dirty: bool,
    /// Whether the socket takes no more for now; a task waits for it.
    is_blocked: bool,
    /// It was the so-manyeth that was opened.
    number: u64,
    /// Tells the reading side that it may go on, or must end.
    pub(crate) wake_reader: Rc<Notify>,
    pub(crate) is_closing: bool,
    /// Whether the reading side waits for answers to go out.
    pub(crate) is_paused: bool,
    /// The server at the other end that sends us messages.
    pub(crate) peer: Option<ServerId>,
    /// Whether a byte has come.
    pub(crate) begun: bool,
    /// Whether it begins as a server's does, and waits until this one has joined.
    pub(crate) greets: bool,
    /// Requests that are not answered.
    pub(crate) under_way: usize,
    /// Whether the client speaks JSON: then it gets its answers in the order of its requests.
    pub(crate) speaks_json: bool,
    /// Frames that came in whole.
    pub(crate) frames: u64,
    /// Bytes of a frame that is not whole yet.
    pub(crate) partial_bytes: usize,
    /// For how many seconds that frame has not been whole.
    pub(crate) partial_age_s: u32,
}

/// All open connections of a server.
#[derive(Debug)]
pub(crate) struct Io {
    limits: Limits,
    connections: Vec<Option<Connection>>,
    use_counts: Vec<u32>,
    free: Vec<u32>,
    open: usize,
    /// How many were opened since the start.
    opened: u64,
    /// The connections that this server's messages to others go out on.
    links: Map<ServerId, ConnectionId>,
    /// Servers that nothing is sent to, because someone asked for it (see [`super::Handle::fail_link`]).
    failed_links: Set<ServerId>,
    dirty: Vec<ConnectionId>,
    /// Connections with something that may wait a little, and perhaps nothing else.
    later: Vec<ConnectionId>,
    /// Connections whose socket took no more in the last flush: to be waited for.
    blocked: Vec<(ConnectionId, Rc<OwnedWriteHalf>)>,
    scratch: Vec<u8>,
    /// The sum of [`Connection::partial_bytes`].
    partial_bytes: usize,
}

impl Io {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            connections: Vec::new(),
            use_counts: Vec::new(),
            free: Vec::new(),
            open: 0,
            opened: 0,
            links: Map::default(),
            failed_links: Set::default(),
            dirty: Vec::new(),
            later: Vec::new(),
            blocked: Vec::new(),
            scratch: Vec::new(),
            partial_bytes: 0,
        }
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.open
    }

    pub(crate) fn add(&mut self, stream: OwnedWriteHalf) -> ConnectionId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.use_counts.push(0);
            (self.connections.len() - 1) as u32
        });
        self.open += 1;
        self.opened += 1;
        self.connections[slot as usize] = Some(Connection {
            stream: Rc::new(stream),
            outbox: Outbox::default(),
            is_dirty: false,
            is_blocked: false,
            number: self.opened,
            wake_reader: Rc::new(Notify::new()),
            is_closing: false,
            is_paused: false,
            peer: None,
            begun: false,
            greets: false,
            under_way: 0,
            speaks_json: false,
            frames: 0,
            partial_bytes: 0,
            partial_age_s: 0,
        });
        ConnectionId { slot, use_count: self.use_counts[slot as usize] }
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get(id) {
            let partial_bytes = connection.partial_bytes;
            self.partial_bytes -= partial_bytes;
            self.connections[id.slot as usize] = None;
            self.use_counts[id.slot as usize] += 1;
            self.free.push(id.slot);
            self.open -= 1;
        }
    }

    /// Lets go of a connection on which nothing was written, without closing it.
    pub(crate) fn take_writer(&mut self, id: ConnectionId) -> Option<OwnedWriteHalf> {
        let stream = Rc::clone(&self.get(id)?.stream);
        self.remove(id);
        Rc::into_inner(stream)
    }

    pub(crate) fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        if self.use_counts.get(id.slot as usize) != Some(&id.use_count) {
            return None;
        }
        self.connections[id.slot as usize].as_mut()
    }

    pub(crate) fn ids(&self) -> Vec<ConnectionId> {
        (0..self.connections.len())
            .filter(|slot| self.connections[*slot].is_some())
            .map(|slot| ConnectionId { slot: slot as u32, use_count: self.use_counts[slot] })
            .collect()
    }

    /// Of the clients' connections on which no whole message has come, the one that has been open for longest; one on which a part
    /// of a message came only where there is no other. Nothing ever comes in on a link of ours, and yet it is none of them.
    pub(crate) fn longest_silent(&self) -> Option<ConnectionId> {
        let open = self.connections.iter().enumerate().filter_map(|(slot, open)| Some((slot, open.as_ref()?)));
        open.filter(|(_, one)| one.frames == 0 && one.peer.is_none() && !one.greets && !one.is_closing)
            .map(|(slot, one)| (one, ConnectionId { slot: slot as u32, use_count: self.use_counts[slot] }))
            .filter(|(_, id)| !self.links.values().any(|link| link == id))
            .min_by_key(|(one, _)| (one.begun, one.number))
            .map(|(_, id)| id)
    }

    /// Has the reading side end; the connection goes away with it.
    pub(crate) fn close(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get(id) {
            connection.is_closing = true;
            connection.wake_reader.notify_one();
        }
    }

    /// Whether the reading side is to wait until answers have gone out.
    pub(crate) fn must_pause(&mut self, id: ConnectionId) -> bool {
        let (under_way_max, outbox_bytes_max) = (self.limits.requests_under_way_max, self.limits.outbox_bytes_max);
        self.get(id).is_some_and(|connection| {
            let under_way_max = if connection.speaks_json { 1 } else { under_way_max };
            connection.is_paused = connection.under_way >= under_way_max || connection.outbox.len() > outbox_bytes_max;
            connection.is_paused
        })
    }

    /// Notes how many frames came in whole and what is left of one that is not; true if that is more than may be.
    pub(crate) fn note_partial(&mut self, id: ConnectionId, whole: u64, partial_bytes: usize) -> bool {
        let Some(connection) = self.get(id) else { return false };
        connection.frames += whole;
        if whole > 0 || partial_bytes == 0 {
            connection.partial_age_s = 0;
        }
        let before = std::mem::replace(&mut connection.partial_bytes, partial_bytes);
        self.partial_bytes = self.partial_bytes + partial_bytes - before;
        partial_bytes > before && self.partial_bytes > self.limits.partial_bytes_max
    }

    pub(crate) fn set_link(&mut self, to: ServerId, connection: Option<ConnectionId>) {
        match connection {
            Some(id) => self.links.insert(to, id),
            None => self.links.remove(&to),
        };
    }

    pub(crate) fn link(&self, to: ServerId) -> Option<ConnectionId> {
        self.links.get(&to).copied()
    }

    pub(crate) fn fail_link(&mut self, to: ServerId, failed: bool) {
        if failed {
            self.failed_links.insert(to);
            if let Some(link) = self.link(to) {
                self.close(link);
            }
        } else {
            self.failed_links.remove(&to);
        }
    }

    pub(crate) fn is_failed(&self, to: ServerId) -> bool {
        self.failed_links.contains(&to)
    }

    /// Puts a message into the outboxes of servers; `note` sees to it that it is sent.
    fn queue_message<M: Wire>(&mut self, to: &[ServerId], message: &M, note: impl Fn(&mut Self, ConnectionId)) {
        let tail = message.tail();
        let mut head = std::mem::take(&mut self.scratch);
        head.clear();
        frame::encode_head(FrameKind::Peer, 0, message, tail.len(), &mut head);
        for to in to {
            let Some(id) = self.link(*to) else { continue };
            let Some(connection) = self.get(id).filter(|connection| !connection.is_closing) else { continue };
            connection.outbox.open().extend_from_slice(&head);
            connection.outbox.push(tail);
            note(self, id);
            self.check_link(*to, id);
        }
        self.scratch = head;
    }

    fn mark_dirty(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get(id)
            && !connection.is_dirty
        {
            connection.is_dirty = true;
            self.dirty.push(id);
        }
    }

    /// Queues a frame that needs no answer of the protocol.
    pub(crate) fn send_frame(&mut self, id: ConnectionId, kind: FrameKind, frame_id: u64, header: &[u8]) {
        if let Some(connection) = self.get(id) {
            frame::encode_with(kind, frame_id, 0, connection.outbox.open(), |out| out.extend_from_slice(header));
            self.mark_dirty(id);
        }
    }

    /// Queues a refusal of something that is not a request with an id.
    pub(crate) fn refuse(&mut self, id: ConnectionId, as_json: bool, body: &ResponseBody) {
        if let Some(connection) = self.get(id) {
            if as_json {
                json::response(body, &[], connection.outbox.open());
            } else {
                frame::encode_with(FrameKind::Response, 0, 0, connection.outbox.open(), |out| to_postcard(body, out));
            }
            self.mark_dirty(id);
        }
    }

    /// Writes what waits, as far as the sockets take it. Returns the connections whose socket took no more.
    pub(crate) fn flush(&mut self) -> Vec<(ConnectionId, Rc<OwnedWriteHalf>)> {
        for id in std::mem::take(&mut self.dirty) {
            self.flush_one(id);
        }
        std::mem::take(&mut self.blocked)
    }

    /// Whether something waits for [`Io::send_what_waits`].
    pub(crate) fn has_waiting(&self) -> bool {
        !self.later.is_empty()
    }

    /// Has what may wait a little go out with the next flush.
    pub(crate) fn send_what_waits(&mut self) {
        for id in std::mem::take(&mut self.later) {
            self.mark_dirty(id);
        }
    }

    /// The socket of a blocked connection takes more again.
    pub(crate) fn unblock(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get(id) {
            connection.is_blocked = false;
            self.mark_dirty(id);
        }
    }

    fn flush_one(&mut self, id: ConnectionId) {
        let Some(connection) = self.get(id) else { return };
        connection.is_dirty = false;
        if connection.is_blocked {
            return;
        }
        while connection.outbox.len() > 0 {
            let written = match connection.outbox.only_slice() {
                Some(bytes) => connection.stream.try_write(bytes),
                None => {
                    let mut slices: Vec<IoSlice<'_>> = Vec::new();
                    connection.outbox.slices(&mut slices);
                    connection.stream.try_write_vectored(&slices)
                }
            };
            match written {
                Ok(count) => connection.outbox.advance(count),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    connection.is_blocked = true;
                    let stream = Rc::clone(&connection.stream);
                    self.blocked.push((id, stream));
                    return;
                }
                Err(error) => {
                    debug!(%error, "a connection broke while it was written to");
                    return self.close(id);
                }
            }
        }
        if connection.is_paused {
            connection.wake_reader.notify_one();
        }
    }

    /// Drops a link that takes no more although much is waiting: what is lost is said again on a new one.
    fn check_link(&mut self, to: ServerId, id: ConnectionId) {
        let bytes_max = self.limits.outbox_bytes_max;
        if let Some(connection) = self.get(id)
            && connection.outbox.len() > bytes_max
            && !connection.is_closing
        {
            debug!(server = %to, bytes = connection.outbox.len(), "the link is too slow: starting it anew");
            self.close(id);
        }
    }
}

impl<M: Wire> Effects<M> for Io {
    fn send(&mut self, to: ServerId, message: &M) {
        self.broadcast(&[to], message);
    }

    fn broadcast(&mut self, to: &[ServerId], message: &M) {
        self.queue_message(to, message, Self::mark_dirty);
    }

    fn broadcast_later(&mut self, to: &[ServerId], message: &M) {
        self.queue_message(to, message, |io, id| {
            if !io.later.contains(&id) {
                io.later.push(id);
            }
        });
    }

    fn reply(&mut self, token: Token, body: &ResponseBody, value: &[u8]) {
        let id = ConnectionId::from_token(token);
        let Some(connection) = self.get(id) else { return };
        connection.under_way = connection.under_way.saturating_sub(1);
        let out = connection.outbox.open();
        if token.request == JSON_REQUEST {
            json::response(body, value, out);
        } else {
            frame::encode_with(FrameKind::Response, token.request, value.len(), out, |out| to_postcard(body, out));
            out.extend_from_slice(value);
        }
        self.mark_dirty(id);
    }
}
