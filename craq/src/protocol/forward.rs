//! A write's first hop: from the server that took it to the head of the chain. Clients may ask any node; a write
//! that comes in elsewhere goes to the head and comes back to its origin on its way down the chain.

use bytes::{Bytes, BytesMut};
use star_core::{
    error::ErrorCode,
    ids::{Seq, ServerId},
    message::ResponseBody,
    protocol::Effects,
    requests::{Asker, NewWrite, charged_bytes},
    store::Store,
    time::Time,
};

use super::{
    config::Bug,
    context::Context,
    head::Write,
    message::{Body, ForwardedWrite, Message, WriteId},
    pass::LARGE_BYTES,
    replica::Replica,
};

/// The most writes in one message.
pub(crate) const WRITES_MAX: usize = 1024;

/// A write of this server's clients, from its arrival until it is committed here.
#[derive(Debug)]
pub(crate) struct OwnWrite {
    pub(crate) head: ForwardedWrite,
    pub(crate) value: Bytes,
    pub(crate) asker: Asker,
    /// Its place, once it has come down the chain.
    pub(crate) seq: Option<Seq>,
    /// When it was last sent to the head, and how often before.
    pub(crate) said_at: Time,
    pub(crate) repeats: u32,
}

impl Replica {
    /// A client's write: this server is its origin.
    pub(crate) fn begin<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        asker: Asker,
        write: NewWrite,
    ) {
        let value_bytes = write.value.len() as u32;
        let refusal = self
            .refuse_service(cx)
            .or_else(|| if write.is_admitted { None } else { cx.refuse_overload(charged_bytes(value_bytes)) });
        if let Some(refusal) = refusal {
            return cx.answer(asker, &refusal, &[]);
        }
        cx.shared.own_bytes += charged_bytes(value_bytes);
        self.last_own += 1;
        let number = self.last_own;
        let NewWrite { key, operation, condition, request_id, value, .. } = write;
        let head = ForwardedWrite { number, request_id, key, operation, condition, value_bytes };
        self.own.insert(number, OwnWrite { head, value, asker, seq: None, said_at: cx.now, repeats: 0 });
        if self.is_head(cx.me()) {
            self.decide_own(cx, number);
        } else {
            self.forward_due.push(number);
        }
    }

    /// Why this server can do nothing for a client of this star now, if so.
    pub(crate) fn refuse_service<S: Store, E: Effects<Message>>(&self, cx: &Context<'_, S, E>) -> Option<ResponseBody> {
        self.refuse_stranger(cx).or_else(|| {
            (!cx.lease_valid()).then(|| {
                let text = format!(
                    "server {} holds no lease, so others may have gone on without it; try another server",
                    cx.config.name
                );
                ResponseBody::error(ErrorCode::NoLease, text)
            })
        })
    }

    /// Refuses what only a serving member can do.
    pub(crate) fn refuse_stranger<S: Store, E: Effects<Message>>(
        &self,
        cx: &Context<'_, S, E>,
    ) -> Option<ResponseBody> {
        (!self.serves(cx.me())).then(|| {
            let why = if self.view.exists() { "is not a serving member of" } else { "has no view yet of" };
            let text = format!("server {} {why} star {}; try another server", cx.config.name, self.star);
            ResponseBody::error(ErrorCode::NotServing, text)
        })
    }

    /// At the head: orders a write of its own clients.
    pub(crate) fn decide_own<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, number: u64) {
        let Some(own) = self.own.get(&number) else { return };
        let id = WriteId { origin: cx.me(), number };
        let write = Write { id, head: own.head.clone(), value: own.value.clone() };
        self.decide(cx, write);
    }

    /// This server's writes that have no place in the order it knows, in order.
    pub(crate) fn homeless(&self) -> Vec<u64> {
        self.own.iter().filter(|(_, own)| own.seq.is_none()).map(|(number, _)| *number).collect()
    }

    /// Sends the homeless writes to the head, or orders them if this server is the head.
    pub(crate) fn send_own<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        let homeless = self.homeless();
        if self.is_head(cx.me()) {
            homeless.into_iter().for_each(|number| self.decide_own(cx, number));
        } else if !cx.config.has_bug(Bug::OwnWritesNotResent) {
            self.forward_due = homeless;
        }
    }

    /// Sends what is due to the head: small writes together, a large value alone and without a copy.
    pub(crate) fn send_forwards<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if self.forward_due.is_empty() {
            return;
        }
        let due = std::mem::take(&mut self.forward_due);
        let Some(head) = self.chain.head().filter(|head| *head != cx.me()) else { return };
        let oldest = self.own.first_key_value().map_or(self.last_own, |(number, _)| *number);
        let mut writes = Vec::new();
        let mut values = BytesMut::new();
        for number in due {
            let Some(own) = self.own.get_mut(&number).filter(|own| own.seq.is_none()) else { continue };
            own.said_at = cx.now;
            let (write, value) = (own.head.clone(), own.value.clone());
            let is_large = value.len() > LARGE_BYTES;
            let is_full = writes.len() >= WRITES_MAX || values.len() + value.len() > cx.config.piece_bytes;
            if !writes.is_empty() && (is_large || is_full) {
                let body = Body::Forward { oldest, writes: std::mem::take(&mut writes) };
                cx.effects.send(head, &Message { tail: values.split().freeze(), ..self.message(body) });
            }
            if is_large {
                let body = Body::Forward { oldest, writes: vec![write] };
                cx.effects.send(head, &Message { tail: value, ..self.message(body) });
            } else {
                writes.push(write);
                values.extend_from_slice(&value);
            }
        }
        if !writes.is_empty() {
            let body = Body::Forward { oldest, writes };
            cx.effects.send(head, &Message { tail: values.freeze(), ..self.message(body) });
        }
    }

    /// At the head: writes that came in elsewhere.
    pub(crate) fn on_forward<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        from: ServerId,
        oldest: u64,
        writes: Vec<ForwardedWrite>,
        mut values: Bytes,
    ) {
        if !self.installed || !self.is_head(cx.me()) {
            return; // The origin sends them again, to whoever is the head then.
        }
        self.decided.entry(from).or_default().finished_below(oldest);
        for head in writes {
            let value_bytes = head.value_bytes as usize;
            if value_bytes > values.len() {
                return; // Not what a server of ours sends.
            }
            let value = values.split_to(value_bytes);
            if self.decided.entry(from).or_default().take(head.number) {
                let id = WriteId { origin: from, number: head.number };
                self.decide(cx, Write { id, head, value });
            }
        }
    }

    /// An own write is out of the order again, or done: it takes no more room.
    pub(crate) fn finish_own<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        number: u64,
        body: &ResponseBody,
    ) {
        if let Some(own) = self.own.remove(&number) {
            cx.shared.own_bytes -= charged_bytes(own.head.value_bytes);
            cx.answer(own.asker, body, &[]);
        }
    }
}
