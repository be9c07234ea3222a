//! The first hop: a write and its value go from the origin to every member, along a route.

use std::hash::BuildHasher;

use bytes::Bytes;
use rustc_hash::FxBuildHasher;
use star_core::{
    error::ErrorCode,
    ids::ServerId,
    key::Key,
    message::ResponseBody,
    protocol::Effects,
    requests::{Asker, NewWrite, Operation, charged_bytes},
    store::{Encoding, Place, Store},
};

use super::{
    config::{Bug, Route},
    context::Context,
    message::{Body, Message, WriteHead, WriteId},
    replica::{Buffered, Replica},
    sessions::Standing,
};

impl Replica {
    /// A client's write: this server is its origin.
    pub(crate) fn begin<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        asker: Asker,
        write: NewWrite,
    ) {
        let refusal = self.refuse_service(cx).or_else(|| {
            if write.is_admitted { None } else { cx.refuse_overload(charged_bytes(write.value.len() as u32)) }
        });
        if let Some(refusal) = refusal {
            cx.answer(asker, &refusal, &[]);
            return;
        }
        let value_bytes = write.value.len() as u32;
        let place = match write.operation {
            Operation::Set(encoding) => match place(cx, &write.key, encoding, &write.value) {
                Ok(place) => Some(place),
                Err(refusal) => return cx.answer(asker, &refusal, &[]),
            },
            Operation::Delete => None,
        };
        cx.shared.last_write += 1;
        cx.shared.own_bytes += charged_bytes(value_bytes);
        let number = cx.shared.last_write;
        let head = WriteHead {
            id: WriteId { origin: cx.me(), number },
            request_id: write.request_id,
            key: write.key,
            operation: write.operation,
            condition: write.condition,
            value_bytes,
            behind: number - self.oldest_own(cx.me(), number),
            chain: self.takes_chain(cx, value_bytes as usize),
        };
        if self.installed {
            self.send_out(cx, &head, &write.value);
        }
        let id = head.id;
        let epoch = self.view.epoch;
        let asker = Some(asker);
        let (is_own, said_at, repeats) = (true, cx.now, 0);
        let received_bytes = value_bytes;
        let write = Buffered { head, place, received_bytes, seq: None, epoch, is_own, asker, said_at, repeats };
        self.buffer.insert(id, write);
        self.on_complete(cx, id);
    }

    /// The number of this server's oldest unfinished write, once `number` is added to them.
    fn oldest_own(&mut self, me: ServerId, number: u64) -> u64 {
        while let Some(&oldest) = self.own.front() {
            if self.buffer.contains_key(&WriteId { origin: me, number: oldest }) {
                break;
            }
            self.own.pop_front();
        }
        self.own.push_back(number);
        self.own[0]
    }

    /// Whether this is a late copy of a write that needs nothing any more.
    fn is_finished(&mut self, me: ServerId, head: &WriteHead) -> bool {
        let finished_below = self.finished_below.entry(head.id.origin).or_default();
        *finished_below = (*finished_below).max(head.id.number - head.behind.min(head.id.number));
        if let Some(write) = self.buffer.get(&head.id) {
            return write.is_own;
        }
        if self.missing.contains_key(&head.id) {
            return false; // Also where an earlier life of this server was the origin.
        }
        if head.id.origin == me {
            return true;
        }
        // The leader answers a repeated request; to everyone else its write is nothing new.
        head.id.number < *finished_below || (!self.leads(me) && self.sessions.judge(head, None) != Standing::New)
    }

    /// Why this server can do nothing for a client of this star now, if so.
    pub(crate) fn refuse_service<S: Store, E: Effects<Message>>(&self, cx: &Context<'_, S, E>) -> Option<ResponseBody> {
        let joins = cx.config.has_bug(Bug::JoiningServesReads) && self.view.is_member(cx.me());
        if !self.serves(cx.me()) && !joins {
            let (me, star) = (&cx.config.name, self.star);
            let others = self.view.serving().filter(|member| *member != cx.me());
            let text = match cx.shared.cluster.as_ref().map(|cluster| cluster.names(others)) {
                Some(names) if !names.is_empty() => {
                    format!("server {me} does not serve star {star}: ask one of {names}")
                }
                _ => format!("server {me} has no view of star {star} that names a server; try another server"),
            };
            return Some(ResponseBody::error(ErrorCode::NotServing, text));
        }
        if !cx.lease_valid() {
            let text = format!(
                "server {} holds no lease, so others may have gone on without it; try another server",
                cx.config.name
            );
            return Some(ResponseBody::error(ErrorCode::NoLease, text));
        }
        None
    }

    fn takes_chain<S: Store, E: Effects<Message>>(&self, cx: &Context<'_, S, E>, value_bytes: usize) -> bool {
        self.peers.len() > 1
            && match cx.config.route {
                Route::Fanout => false,
                Route::Chain => true,
                Route::Auto => value_bytes >= cx.config.chain_from_bytes,
            }
    }

    /// Sends a write of this server on its way, by the route that its head names.
    pub(crate) fn send_out<S: Store, E: Effects<Message>>(
        &self,
        cx: &mut Context<'_, S, E>,
        head: &WriteHead,
        value: &Bytes,
    ) {
        if head.chain {
            let next = self.next_in_chain(head.id, cx.me());
            self.send_value(cx, &[next], head, value);
        } else {
            self.send_value(cx, &self.peers, head, value);
        }
    }

    /// Sends a write to some servers, its value in pieces.
    fn send_value<S: Store, E: Effects<Message>>(
        &self,
        cx: &mut Context<'_, S, E>,
        to: &[ServerId],
        head: &WriteHead,
        value: &Bytes,
    ) {
        let piece_bytes = cx.config.piece_bytes;
        let tail = value.slice(..value.len().min(piece_bytes));
        let message = Message { tail, ..self.message(Body::Write(head.clone())) };
        cx.effects.broadcast(to, &message);
        let mut offset = piece_bytes;
        while offset < value.len() {
            let tail = value.slice(offset..value.len().min(offset + piece_bytes));
            let body = Body::Piece { write: head.id, offset: offset as u32, chain: head.chain };
            cx.effects.broadcast(to, &Message { tail, ..self.message(body) });
            offset += piece_bytes;
        }
    }

    /// Sends a write that is held here to one server directly, from the store.
    pub(crate) fn send_again<S: Store, E: Effects<Message>>(
        &self,
        cx: &mut Context<'_, S, E>,
        to: &[ServerId],
        id: WriteId,
    ) {
        let Some(write) = self.buffer.get(&id).filter(|write| write.is_complete()) else { return };
        let value = write.place.map_or_else(Bytes::new, |place| Bytes::copy_from_slice(cx.store.placed(place)));
        cx.shared.counters.sent_again += 1;
        self.send_value(cx, to, &WriteHead { chain: false, ..write.head.clone() }, &value);
    }

    fn next_in_chain(&self, id: WriteId, server: ServerId) -> ServerId {
        next_on_ring(&self.view.members, id.number, server)
    }

    pub(crate) fn on_write<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        _from: ServerId,
        head: WriteHead,
        tail: &Bytes,
    ) {
        let id = head.id;
        if head.chain {
            let next = self.next_in_chain(id, cx.me());
            if next != id.origin {
                let message = Message { tail: tail.clone(), ..self.message(Body::Write(head.clone())) };
                cx.effects.send(next, &message);
            }
        }
        if self.is_finished(cx.me(), &head) {
            return;
        }
        if !self.buffer.contains_key(&id) {
            let place = match head.operation {
                Operation::Delete => None,
                // Without room the write stays unknown here; `repair` asks for it again.
                Operation::Set(encoding) => match cx.store.place(&head.key, encoding, head.value_bytes as usize) {
                    Ok(place) => Some(place),
                    Err(_) => return self.no_room_for(cx, &head),
                },
            };
            let (epoch, seq) = (self.view.epoch, self.missing.remove(&id));
            let (is_own, said_at, repeats) = (false, cx.now, 0);
            let asker = None;
            let write = Buffered { head, place, received_bytes: 0, seq, epoch, is_own, asker, said_at, repeats };
            self.buffer.insert(id, write);
        }
        self.receive(cx, id, 0, tail);
    }

    /// There is no room for another server's write. The leader refuses it; at a member with its stamp, writes without one
    /// make room for it, and then `repair` asks for it again.
    fn no_room_for<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, head: &WriteHead) {
        cx.shared.counters.no_space += 1;
        if self.installed && self.leads(cx.me()) {
            self.refuse_unheld(cx, head);
        } else if self.missing.contains_key(&head.id) {
            let unstamped = self.buffer.iter().filter(|(_, write)| write.seq.is_none() && !write.is_own);
            let mut unstamped: Vec<WriteId> = unstamped.map(|(id, _)| *id).collect();
            unstamped.sort_unstable();
            unstamped.into_iter().for_each(|id| self.drop_write(cx, id));
        }
    }

    pub(crate) fn on_piece<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        id: WriteId,
        offset: u32,
        chain: bool,
        tail: &Bytes,
    ) {
        if chain {
            let next = self.next_in_chain(id, cx.me());
            if next != id.origin {
                let body = Body::Piece { write: id, offset, chain };
                cx.effects.send(next, &Message { tail: tail.clone(), ..self.message(body) });
            }
        }
        self.receive(cx, id, offset, tail);
    }

    /// Bytes of a value have come.
    fn receive<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        id: WriteId,
        offset: u32,
        bytes: &[u8],
    ) {
        let Some(write) = self.buffer.get_mut(&id).filter(|write| !write.is_own) else { return };
        write.epoch = self.view.epoch;
        let end = offset as usize + bytes.len();
        if end > write.head.value_bytes as usize || offset > write.received_bytes {
            return; // Not of this value, or after a gap: the missing part is asked for again.
        }
        if end > write.received_bytes as usize {
            if let Some(place) = write.place {
                cx.store.fill(place, offset as usize, bytes);
            }
            write.received_bytes = end as u32;
        }
        if write.is_complete() {
            self.on_complete(cx, id);
        }
    }

    /// All of a write is here.
    fn on_complete<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, id: WriteId) {
        if self.installed && self.leads(cx.me()) {
            self.stamp(cx, id);
        }
        self.advance(cx);
    }

    pub(crate) fn on_fetch<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        from: ServerId,
        writes: &[WriteId],
    ) {
        for write in writes {
            self.send_again(cx, &[from], *write);
        }
    }

    /// Takes a write out that never will be done here, and gives its room back.
    pub(crate) fn drop_write<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, id: WriteId) {
        let Some(write) = self.buffer.remove(&id) else { return };
        if let Some(place) = write.place {
            cx.store.discard(place);
        }
        if write.is_own {
            cx.shared.own_bytes -= charged_bytes(write.head.value_bytes);
        }
        if let Some(asker) = write.asker {
            let text = "the star went on without this server before the write was acknowledged; \
                        it may or may not be done: send it again with the same request_id to another server";
            cx.answer(asker, &ResponseBody::error(ErrorCode::Unfinished, text), &[]);
        }
    }
}

fn place<S: Store, E: Effects<Message>>(
    cx: &mut Context<'_, S, E>,
    key: &Key,
    encoding: Encoding,
    value: &Bytes,
) -> Result<Place, ResponseBody> {
    match cx.store.place_value(key, encoding, value) {
        Ok(place) => Ok(place),
        Err(full) => {
            cx.shared.counters.no_space += 1;
            let text = format!(
                "the store of server {} is full: {full}; the write was not done; \
                 delete objects, or start the servers with a larger [store] capacity",
                cx.config.name
            );
            Err(ResponseBody::error(ErrorCode::NoSpace, text))
        }
    }
}

/// The member after `server` on the ring of a write of this number. Each write has a ring of its own, the same at all
/// members: so all links between them, in both directions, get the same share.
fn next_on_ring(members: &[ServerId], number: u64, server: ServerId) -> ServerId {
    let mut ring = members.to_vec();
    ring.sort_unstable_by_key(|member| {
        // The hash by itself is a sum, and what is added to all members turns the ring and leaves it the same.
        let sum = FxBuildHasher.hash_one((number, *member));
        (FxBuildHasher.hash_one(sum ^ sum >> 29), *member)
    });
    let place = ring.iter().position(|member| *member == server);
    ring[place.map_or(0, |place| (place + 1) % ring.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_passes_all_members_and_chains_use_all_links_alike() {
        let members: Vec<ServerId> = [4, 0, 7, 2, 5].map(ServerId).to_vec();
        let mut uses = std::collections::BTreeMap::new();
        for number in 0..2000 {
            let mut at = members[number as usize % 5];
            let mut passed = vec![at];
            while passed.len() < 5 {
                let next = next_on_ring(&members, number, at);
                *uses.entry((at, next)).or_insert(0) += 1;
                passed.push(next);
                at = next;
            }
            assert_eq!(next_on_ring(&members, number, at), passed[0], "the next would be the origin");
            passed.sort_unstable();
            passed.dedup();
            assert_eq!(passed.len(), 5);
        }
        // 2,000 chains of 4 links, over 20.
        assert!(uses.len() == 20 && uses.values().all(|uses| (300..500).contains(uses)), "{uses:?}");
    }
}
