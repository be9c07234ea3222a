//! The first hop: a write and its value go from the origin to every member, along a route.

use bytes::Bytes;
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
    message::{Body, Message, PassOn, WriteHead, WriteId},
    replica::{Buffered, Replica},
    ring::{RINGS, links_of, next_on_ring, ring_of},
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
            pass_on: self.way_of(cx, number, value_bytes as usize),
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

    /// How a new write of this server goes on from whom it is sent to.
    fn way_of<S: Store, E: Effects<Message>>(
        &self,
        cx: &mut Context<'_, S, E>,
        number: u64,
        value_bytes: usize,
    ) -> PassOn {
        let takes_chain = self.peers.len() > 1
            && match cx.config.route {
                Route::Fanout => false,
                Route::Chain => true,
                Route::Auto => value_bytes >= cx.config.chain_from_bytes,
            };
        match cx.config.route {
            _ if !takes_chain => PassOn::No,
            Route::Auto if cx.shared.slow.any() => self.chain_without_slow_links(cx, number),
            _ => PassOn::Chain,
        }
    }

    /// The first ring of a write of this server that has no slow link in it; if there is none, no ring.
    fn chain_without_slow_links<S: Store, E: Effects<Message>>(
        &self,
        cx: &mut Context<'_, S, E>,
        number: u64,
    ) -> PassOn {
        let (me, slow) = (cx.me(), &cx.shared.slow);
        let is_free = |ring: &u8| {
            let order = ring_of(&self.view.members, number, *ring);
            links_of(&order, me).all(|(from, to)| !slow.is_slow(from, to))
        };
        let free = (0..RINGS).find(is_free);
        cx.shared.counters.went_around += u64::from(free != Some(0));
        match free {
            Some(0) => PassOn::Chain,
            Some(ring) => PassOn::OtherChain(ring),
            None => PassOn::No,
        }
    }

    /// Sends a write of this server on its way, as its head says.
    pub(crate) fn send_out<S: Store, E: Effects<Message>>(
        &self,
        cx: &mut Context<'_, S, E>,
        head: &WriteHead,
        value: &Bytes,
    ) {
        if let Some((next, _)) = self.passes_on(cx.me(), head.id, head.pass_on) {
            self.send_value(cx, &[next], head, value);
        } else if cx.shared.slow.any() && cx.config.route == Route::Auto {
            self.send_around(cx, head, value);
        } else {
            self.send_value(cx, &self.peers, head, value);
        }
    }

    /// Sends a write to each member, to those behind a slow link by another one, which passes it on: one for each.
    fn send_around<S: Store, E: Effects<Message>>(&self, cx: &mut Context<'_, S, E>, head: &WriteHead, value: &Bytes) {
        let (me, slow) = (cx.me(), &cx.shared.slow);
        let mut straight = self.peers.clone();
        let mut around: Vec<(ServerId, ServerId)> = Vec::new();
        for member in self.peers.iter().copied().filter(|member| slow.is_slow(me, *member)) {
            let helps = |by: &ServerId| !slow.is_slow(me, *by) && !slow.is_slow(*by, member);
            let helpers: Vec<ServerId> = straight.iter().copied().filter(|by| *by != member && helps(by)).collect();
            if !helpers.is_empty() {
                // By turns, so that the links to the member share what the slow one does not carry.
                let by = helpers[(head.id.number % helpers.len() as u64) as usize];
                straight.retain(|one| *one != member && *one != by);
                around.push((by, member));
            }
        }
        cx.shared.counters.went_around += u64::from(!around.is_empty());
        self.send_value(cx, &straight, head, value);
        for (by, member) in around {
            self.send_value(cx, &[by], &WriteHead { pass_on: PassOn::To(member), ..head.clone() }, value);
        }
    }

    /// To whom this server passes on what it gets of a write, and what that one does with it.
    fn passes_on(&self, me: ServerId, id: WriteId, pass_on: PassOn) -> Option<(ServerId, PassOn)> {
        if let PassOn::To(member) = pass_on {
            return self.peers.contains(&member).then_some((member, PassOn::No));
        }
        let next = next_on_ring(&ring_of(&self.view.members, id.number, pass_on.ring()?), me);
        // At the origin the next is never the origin, for a chain has others in it.
        (next != id.origin).then_some((next, pass_on))
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
            let body = Body::Piece { write: head.id, offset: offset as u32, pass_on: head.pass_on };
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
        self.send_value(cx, to, &WriteHead { pass_on: PassOn::No, ..write.head.clone() }, &value);
    }

    pub(crate) fn on_write<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        _from: ServerId,
        head: WriteHead,
        tail: &Bytes,
    ) {
        let id = head.id;
        if let Some((next, pass_on)) = self.passes_on(cx.me(), id, head.pass_on) {
            let head = WriteHead { pass_on, ..head.clone() };
            cx.effects.send(next, &Message { tail: tail.clone(), ..self.message(Body::Write(head)) });
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
        (id, offset): (WriteId, u32),
        pass_on: PassOn,
        tail: &Bytes,
    ) {
        if let Some((next, pass_on)) = self.passes_on(cx.me(), id, pass_on) {
            let body = Body::Piece { write: id, offset, pass_on };
            cx.effects.send(next, &Message { tail: tail.clone(), ..self.message(body) });
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
