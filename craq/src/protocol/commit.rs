//! What the tail has is committed (§2.3): it applies a write as soon as it has all of it, and acknowledgements tell the
//! others, which apply it then and answer its client where they are its origin.

use star_core::{
    error::ErrorCode,
    ids::{Seq, ServerId},
    message::ResponseBody,
    protocol::Effects,
    store::Store,
};

use super::{
    config::Bug,
    context::Context,
    log::Pending,
    message::{Message, Operation, Outcome},
    replica::Replica,
};

impl Replica {
    /// Something has come: at the tail it is committed by that.
    pub(crate) fn advance<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if self.installed && self.is_tail(cx.me()) {
            self.commit_to(cx, self.log.ready());
            self.answer_questions(cx);
        } else if cx.config.has_bug(Bug::AckBeforeTail) {
            self.ack_due = true;
        }
    }

    /// What this server says to be committed.
    pub(crate) fn acknowledged<S: Store, E: Effects<Message>>(&self, cx: &Context<'_, S, E>) -> Seq {
        if cx.config.has_bug(Bug::AckBeforeTail) { self.log.ready() } else { self.committed }
    }

    /// Another node says what is committed. It is of this epoch, and this server has taken over the order, so its log
    /// holds the same writes up to there.
    pub(crate) fn on_ack<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        from: ServerId,
        committed: Seq,
    ) {
        if self.installed && self.peers.contains(&from) {
            self.commit_to(cx, committed);
        }
    }

    /// Applies the writes up to `seq`, which the tail has, in order.
    pub(crate) fn commit_to<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, seq: Seq) {
        let seq = seq.min(self.log.ready());
        while self.committed < seq {
            let Some(pending) = self.log.pop() else { break };
            self.committed = self.committed.next();
            self.ack_due = true;
            self.apply(cx, self.committed, pending);
        }
    }

    /// Applies one committed write and answers its client if this server is its origin.
    fn apply<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, seq: Seq, pending: Pending) {
        cx.shared.counters.committed += 1;
        let Pending { entry, place, .. } = pending;
        let key = &entry.key;
        if let Some(version) = entry.effect() {
            let more = self.dirty.get(key).is_some_and(|dirty| dirty.last > seq);
            match (entry.operation, place) {
                (Operation::Set(_), Some(place)) => cx.store.publish(key, place, version, more),
                _ => cx.store.remove(key, more),
            }
            if !more {
                self.dirty.remove(key);
            }
        }
        self.note_settled(cx, &entry);
        if entry.write.origin == cx.me() {
            self.finish_own(cx, entry.write.number, &result(entry.outcome));
        }
    }

    /// Gives up the pending writes after `keep`: they are not of the order. Own ones among them go to the head again.
    pub(crate) fn cut_after<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, keep: Seq) {
        let cut = self.log.cut_after(keep);
        if cut.is_empty() {
            return;
        }
        self.requests.cut_after(keep);
        self.find_dirty();
        for Pending { entry, place, .. } in cut {
            if let Some(place) = place {
                cx.store.discard(place);
            }
            if entry.effect().is_some() && !self.dirty.contains_key(&entry.key) {
                cx.store.mark_clean(&entry.key);
            }
            if entry.write.origin == cx.me()
                && let Some(own) = self.own.get_mut(&entry.write.number)
            {
                own.seq = None;
                self.forward_due.push(entry.write.number);
            }
        }
    }

    /// The planted mistake of a new tail: what it had pending is forgotten, and its keys called clean.
    pub(crate) fn forget_pending<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        while let Some(Pending { entry, place, .. }) = self.log.pop() {
            if let Some(place) = place {
                cx.store.discard(place);
            }
            cx.store.mark_clean(&entry.key);
        }
        self.dirty.clear();
        self.committed = self.log.last();
    }
}

/// What the client is told.
fn result(outcome: Outcome) -> ResponseBody {
    match outcome {
        Outcome::Written(version) => ResponseBody::Written { version },
        Outcome::Conflict(version) => ResponseBody::Conflict { version },
        Outcome::NotFound => ResponseBody::NotFound,
        Outcome::NoSpace => {
            let text = "the store of the chain's head is nearly full; the write was not done; \
                        delete objects, or start the servers with a larger [store] capacity";
            ResponseBody::error(ErrorCode::NoSpace, text)
        }
    }
}
