//! Writes go down the chain (§2.3): each node keeps a pending write beside the committed object, marks its key dirty,
//! and passes it on. What came in a turn goes on at its end, in one message unless values are large; a large value is
//! cut into pieces, and each is passed on when it comes, so a long chain is busy with one value all along.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use star_core::{
    ids::{Seq, ServerId},
    protocol::Effects,
    store::Store,
};

use super::{
    context::Context,
    forward::WRITES_MAX,
    log::Pending,
    message::{Body, DoneRequest, Entry, Message, Operation, Position},
    replica::{Dirty, Replica},
};

/// Values longer than this travel alone, without being copied into one message with others.
pub(crate) const LARGE_BYTES: usize = 4096;

/// What the one after this server has been sent in this epoch.
#[derive(Debug, Default)]
pub(crate) struct Down {
    /// Whether it has been told the order; nothing is sent to it before.
    pub(crate) is_linked: bool,
    /// The first write that it has not been sent.
    pub(crate) next: Seq,
    /// How many bytes of the value of the one before it has been sent.
    pub(crate) sent_bytes: u32,
    /// What it said of itself before this server had the order.
    pub(crate) reported: Option<Position>,
    /// Bytes of large values that came in this turn, so that they can go on without a copy.
    pub(crate) fresh: VecDeque<(Seq, u32, Bytes)>,
}

impl Down {
    /// Keeps bytes that came in this turn until its end, if passing them on by reference is worth it.
    pub(crate) fn keep_fresh(&mut self, seq: Seq, offset: u32, bytes: Bytes) {
        if bytes.len() > LARGE_BYTES {
            self.fresh.push_back((seq, offset, bytes));
        }
    }

    /// The bytes at `offset` of a value, if they came in this turn.
    fn find_fresh(&self, seq: Seq, offset: u32, len: usize) -> Option<Bytes> {
        let holds = |(of, start, bytes): &&(Seq, u32, Bytes)| {
            *of == seq && *start <= offset && (offset - start) as usize + len <= bytes.len()
        };
        let (_, start, bytes) = self.fresh.iter().find(holds)?;
        let at = (offset - start) as usize;
        Some(bytes.slice(at..at + len))
    }
}

impl Replica {
    /// Writes from the one before.
    pub(crate) fn on_writes<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        from: ServerId,
        first: Seq,
        entries: Vec<Entry>,
        mut values: Bytes,
    ) {
        if !self.installed || self.chain.predecessor(cx.me()) != Some(from) {
            return;
        }
        let mut seq = first;
        for entry in entries {
            let value = values.split_to(values.len().min(entry.value_bytes as usize));
            let is_next = seq == self.log.last().next() && self.log.ready() == self.log.last();
            if is_next {
                if !self.accept(cx, entry) {
                    break; // No room now; `repair` asks for it again.
                }
            } else if seq > self.log.last() {
                self.miss();
                break;
            }
            self.receive(cx, seq, 0, value);
            seq = seq.next();
        }
        self.advance(cx);
    }

    /// More bytes of a value from the one before.
    pub(crate) fn on_piece<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        from: ServerId,
        seq: Seq,
        offset: u32,
        bytes: Bytes,
    ) {
        if !self.installed || self.chain.predecessor(cx.me()) != Some(from) {
            return;
        }
        if seq > self.log.last() {
            return self.miss();
        }
        self.receive(cx, seq, offset, bytes);
        self.advance(cx);
    }

    /// Something before what came is missing: the one before is told, once.
    fn miss(&mut self) {
        let last = self.log.last();
        if self.missed_after != Some(last) {
            self.missed_after = Some(last);
            self.position_due = true;
        }
    }

    /// Takes the next write in, without the bytes of its value; false if there is no room for it.
    fn accept<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, entry: Entry) -> bool {
        let mut place = None;
        if entry.effect().is_some() {
            if let Operation::Set(encoding) = entry.operation {
                let Ok(room) = cx.store.place(&entry.key, encoding, entry.value_bytes as usize) else {
                    cx.shared.counters.no_space += 1;
                    return false;
                };
                place = Some(room);
            }
            if !cx.mark_dirty(&entry.key) {
                if let Some(room) = place {
                    cx.store.discard(room);
                }
                return false;
            }
        }
        self.enter(cx, Pending { entry, place, received_bytes: 0, since: cx.now });
        true
    }

    /// Adds the next write to the log; its key is marked already.
    pub(crate) fn enter<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, pending: Pending) {
        let seq = self.log.last().next();
        let entry = &pending.entry;
        self.tie_own(cx.me(), entry, seq);
        self.note_dirty(seq, entry);
        if entry.is_remembered() {
            let (request_id, key) = (entry.request_id.clone(), entry.key.clone());
            let done = DoneRequest { seq, request_id, key, outcome: entry.outcome };
            self.requests.insert(done, cx.config.requests_max);
        }
        self.log.push(pending);
    }

    fn note_dirty(&mut self, seq: Seq, entry: &Entry) {
        let Some(version) = entry.effect() else { return };
        let mut after = version;
        if entry.operation == Operation::Delete {
            self.version_floor = self.version_floor.max(version);
            after = star_core::Version(0);
        }
        self.dirty.insert(entry.key.clone(), Dirty { last: seq, version: after });
    }

    /// Finds the dirty keys again from the log, after its end was taken back.
    pub(crate) fn find_dirty(&mut self) {
        self.dirty.clear();
        let log = std::mem::take(&mut self.log);
        log.iter().for_each(|(seq, pending)| self.note_dirty(seq, &pending.entry));
        self.log = log;
    }

    /// Bytes of a value have come.
    fn receive<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        seq: Seq,
        offset: u32,
        bytes: Bytes,
    ) {
        let Some(pending) = self.log.get_mut(seq) else { return };
        let end = offset as usize + bytes.len();
        if end > pending.entry.value_bytes as usize || offset > pending.received_bytes {
            return; // Not of this value, or after a gap: the missing part is asked for again.
        }
        if end > pending.received_bytes as usize {
            if let Some(place) = pending.place {
                cx.store.fill(place, offset as usize, &bytes);
            }
            pending.received_bytes = end as u32;
            self.down.keep_fresh(seq, offset, bytes);
        }
    }

    /// Sends the one after all that it has not been sent.
    pub(crate) fn send_down<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if let Some(to) = self.chain.successor(cx.me()).filter(|_| self.down.is_linked) {
            if self.down.next <= self.log.base() {
                // It was to be sent again, and was acknowledged meanwhile.
                (self.down.next, self.down.sent_bytes) = (self.log.base().next(), 0);
            }
            self.send_rest(cx, to);
            while self.down.next <= self.log.last() {
                self.send_writes(cx, to);
                self.send_rest(cx, to);
            }
        }
        self.down.fresh.clear();
    }

    /// Sends the bytes that have come of a value whose beginning was sent.
    fn send_rest<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, to: ServerId) {
        let seq = Seq(self.down.next.0.saturating_sub(1));
        let Some(received_bytes) = self.log.get(seq).map(|pending| pending.received_bytes) else { return };
        while self.down.sent_bytes < received_bytes {
            let offset = self.down.sent_bytes;
            let len = ((received_bytes - offset) as usize).min(cx.config.piece_bytes);
            let tail = self.value_part(cx, seq, offset, len);
            cx.effects.send(to, &Message { tail, ..self.message(Body::Piece { seq, offset }) });
            self.down.sent_bytes += len as u32;
        }
    }

    /// Sends the next writes in one message: many small ones, or one with a large value or the beginning of one.
    fn send_writes<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, to: ServerId) {
        let first = self.down.next;
        let small_max = LARGE_BYTES.min(cx.config.piece_bytes);
        let mut entries = Vec::new();
        let mut values = BytesMut::new();
        let mut seq = first;
        while let Some(pending) = self.log.get(seq).filter(|_| entries.len() < WRITES_MAX) {
            if pending.entry.value_bytes as usize > small_max || values.len() > cx.config.piece_bytes {
                break;
            }
            entries.push(pending.entry.clone());
            values.extend_from_slice(pending.place.map_or(&[][..], |place| cx.store.placed(place)));
            seq = seq.next();
        }
        let mut tail = values.freeze();
        if entries.is_empty()
            && let Some(pending) = self.log.get(seq)
        {
            entries.push(pending.entry.clone());
            tail = self.value_part(cx, seq, 0, (pending.received_bytes as usize).min(cx.config.piece_bytes));
            self.down.sent_bytes = tail.len() as u32;
            seq = seq.next();
        } else if let Some(pending) = self.log.get(Seq(seq.0 - 1)) {
            self.down.sent_bytes = pending.entry.value_bytes;
        }
        self.down.next = seq;
        cx.effects.send(to, &Message { tail, ..self.message(Body::Writes { first, entries }) });
    }

    fn value_part<S: Store, E: Effects<Message>>(
        &self,
        cx: &Context<'_, S, E>,
        seq: Seq,
        offset: u32,
        len: usize,
    ) -> Bytes {
        self.down.find_fresh(seq, offset, len).unwrap_or_else(|| {
            let value = self.log.get(seq).and_then(|pending| pending.place).map_or(&[][..], |at| cx.store.placed(at));
            let start = offset as usize;
            Bytes::copy_from_slice(&value[start..start + len])
        })
    }
}
