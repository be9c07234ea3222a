//! Who is told at once how far this server is, and who a little later.
//!
//! An ack that comes late delays whoever waits for it, and nothing else: so it is sent at once to those where somebody waits. The
//! others need it to apply the writes and to know their keys clean, and get it with what they are sent next. So a lone write
//! does not wake each server for every other one.

use std::time::Duration;

use star_core::{
    ids::{Seq, ServerId},
    protocol::Effects,
    store::Store,
    time::Time,
};

use super::{
    context::Context,
    message::{Body, Message},
    replica::Replica,
};

/// So long after a read that had to wait, this server wants acks at once: where one came, more may come.
const HURRIES_FOR: Duration = Duration::from_millis(500);

impl Replica {
    /// Sends what has become ready in this turn: at once to the leader, which is asked what is committed, to the origins, whose
    /// clients wait, and where reads wait.
    pub(crate) fn ack<S: Store, E: Effects<Message>>(&self, cx: &mut Context<'_, S, E>) {
        let ack = self.message(Body::Ack { ready: self.ready, hurry: self.hurries(cx.now) });
        let is_urgent =
            |to: &ServerId| *to == self.view.leader || self.ack_awaited_by.contains(to) || self.hurried_by.contains(to);
        if self.peers.iter().all(is_urgent) {
            return cx.effects.broadcast(&self.peers, &ack);
        }
        let (urgent, others): (Vec<_>, Vec<_>) = self.peers.iter().copied().partition(is_urgent);
        cx.effects.broadcast(&urgent, &ack);
        cx.effects.broadcast_later(&others, &ack);
    }

    /// A client of this server waits for what becomes ready in this turn.
    pub(crate) fn ack_is_awaited_by(&mut self, origin: ServerId) {
        if !self.ack_awaited_by.contains(&origin) {
            self.ack_awaited_by.push(origin);
        }
    }

    /// A read waits here. The others hear of it at once if they do not know.
    pub(crate) fn hurry(&mut self, now: Time) {
        if !self.hurries(now) {
            self.ack_due = true;
            self.ack_awaited_by.clone_from(&self.peers);
        }
        self.hurries_until = now + HURRIES_FOR;
    }

    /// Whether this server wants acks at once.
    pub(crate) fn hurries(&self, now: Time) -> bool {
        now < self.hurries_until
    }

    pub(crate) fn on_ack<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        from: ServerId,
        ready: Seq,
        hurry: bool,
    ) {
        let hurried = self.hurried_by.iter().position(|member| *member == from);
        match hurried {
            Some(place) if !hurry => drop(self.hurried_by.swap_remove(place)),
            None if hurry => {
                // What it was to hear later it hears now.
                self.hurried_by.push(from);
                self.ack_due = true;
            }
            _ => {}
        }
        self.count_ack(from, ready);
        self.advance(cx);
    }

    pub(crate) fn count_ack(&mut self, from: ServerId, ready: Seq) {
        if let Some((_, acked)) = self.acked.iter_mut().find(|(member, _)| *member == from) {
            *acked = ready.max(*acked);
        }
    }
}
