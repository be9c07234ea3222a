//! From one view to the next (§2.5), without losing an acknowledged write and without pausing clean reads.
//!
//! A committed write was received by every serving member of the view in which it was committed, so any of them may be
//! the next head: what it has, up to the moment when it adopts the new view, is the order from then on. Each node tells
//! the one before what it has; that one, once it has the order itself, names the point up to which both have the same
//! (INSTALL) and sends what follows. So the order comes down the new chain, whichever nodes were lost: a lost head is
//! replaced by its log's longest copy that serves, a lost tail by the one before, which then has the fewest writes that
//! are not committed, and a lost middle by its neighbours, who find out between them what is missing.

use star_control::View;
use star_core::{
    error::ErrorCode,
    ids::{Epoch, Seq, ServerId},
    message::ResponseBody,
    protocol::Effects,
    store::Store,
};

use super::{
    chain::Chain,
    config::{Bug, Reads},
    context::Context,
    message::{Body, Message, Position},
    pass::Down,
    read::Waiter,
    replica::Replica,
};

impl Replica {
    /// Acts on a new view from now on. Views of older epochs are ignored.
    pub(crate) fn adopt<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, view: &View) {
        if view.epoch <= self.view.epoch {
            return;
        }
        let me = cx.me();
        if view.founded > self.view.founded {
            self.begin_anew(cx);
        }
        self.end_as_head(cx);
        self.view = view.clone();
        self.chain = Chain::of(view);
        self.peers = view.members.iter().copied().filter(|other| *other != me && view.is_member(me)).collect();
        self.installed = false;
        self.down = Down { next: self.down.next, ..Down::default() };
        (self.ack_due, self.position_due, self.missed_after) = (false, false, None);
        self.questions.clear();
        self.ask_anew();
        self.restart_catch_up(me);
        // A value that has come in part: the rest may be at nobody who is still in the chain.
        self.cut_after(cx, self.ready());
        self.progress.touch(cx.now);
        self.begin_leaving(cx);
        let is_readable = self.serves(me) && (self.is_tail(me) || cx.config.reads != Reads::Tail);
        cx.store.set_serving(self.star, is_readable);
        if !view.is_member(me) {
            self.leave(cx);
            self.tend_catch_up(cx);
        } else if self.is_head(me) {
            self.begin_as_head(cx);
            self.base = self.ready();
            self.after_install(cx);
        } else {
            self.send_position(cx);
            self.send_own(cx);
        }
        for (from, message) in std::mem::take(&mut self.early) {
            self.on_message(cx, from, message);
        }
    }

    /// What this server has, for the one before.
    pub(crate) fn position(&self) -> Position {
        let mut pending: Vec<(Epoch, u64)> = Vec::new();
        for (_, one) in self.log.iter().take_while(|(seq, _)| *seq <= self.ready()) {
            match pending.last_mut() {
                Some((epoch, count)) if *epoch == one.entry.epoch => *count += 1,
                _ => pending.push((one.entry.epoch, 1)),
            }
        }
        Position { installed: self.installed, committed: self.committed, pending }
    }

    pub(crate) fn send_position<S: Store, E: Effects<Message>>(&self, cx: &mut Context<'_, S, E>) {
        if let Some(before) = self.chain.predecessor(cx.me()) {
            self.send(cx, before, Body::Position(self.position()));
        }
    }

    /// The one after says what it has.
    pub(crate) fn on_position<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        from: ServerId,
        position: Position,
    ) {
        if self.chain.successor(cx.me()) != Some(from) {
            return;
        }
        if self.installed {
            self.bring_up(cx, from, &position);
        } else {
            self.down.reported = Some(position);
        }
    }

    pub(crate) fn on_ask_position<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        from: ServerId,
    ) {
        if self.chain.predecessor(cx.me()) == Some(from) {
            self.send_position(cx);
        }
    }

    /// Sends the one after what it lacks, from the end of this turn on. Only once this server has the order.
    fn bring_up<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        to: ServerId,
        position: &Position,
    ) {
        // Whatever anyone knows to be committed is the same in all logs that hold it.
        self.commit_to(cx, position.committed);
        let forgets = cx.config.has_bug(Bug::NotResentToSuccessor);
        if position.installed {
            let next = position.ready().next();
            // Where it has all that was sent it may still lack pieces of the last value.
            if next <= self.down.next && !forgets {
                (self.down.next, self.down.sent_bytes) = (next, 0);
            }
            self.down.is_linked = true;
            return;
        }
        let same = self.same_up_to(position);
        let base = self.base.max(self.ready());
        self.send(cx, to, Body::Install { from: same, base });
        self.down.is_linked = position.ready() >= same;
        self.down.next = if forgets { same.next().max(self.down.next) } else { same.next() };
        self.down.sent_bytes = 0;
    }

    /// Up to where this server and another have the same writes: what either knows to be committed, and what follows with
    /// the same epochs. (Two writes of one seq and one epoch are the same, and so is all before them.)
    fn same_up_to(&self, position: &Position) -> Seq {
        let mut same = self.committed.max(position.committed.min(self.ready()));
        for theirs in position.epochs_after(same) {
            match self.log.get(same.next()) {
                Some(ours) if ours.entry.epoch == theirs && ours.is_complete() => same = same.next(),
                _ => break,
            }
        }
        same
    }

    /// The order comes down the chain.
    pub(crate) fn on_install<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        before: ServerId,
        from: Seq,
        base: Seq,
    ) {
        if self.installed || self.chain.predecessor(cx.me()) != Some(before) {
            return;
        }
        if self.ready() < from {
            return self.fall_behind(cx);
        }
        if !cx.config.has_bug(Bug::KeepsOwnPending) {
            self.cut_after(cx, from.max(self.committed));
        }
        self.base = base;
        self.after_install(cx);
    }

    /// This server has the order of its epoch.
    fn after_install<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        self.installed = true;
        self.ack_due = true;
        self.progress.touch(cx.now);
        if cx.config.has_bug(Bug::NewTailKeepsOld) && self.is_tail(cx.me()) {
            self.forget_pending(cx);
        }
        self.advance(cx);
        if self.is_head(cx.me()) {
            self.send_own(cx);
        }
        if let (Some(position), Some(to)) = (self.down.reported.take(), self.chain.successor(cx.me())) {
            self.bring_up(cx, to, &position);
        }
    }

    /// The star's history begins anew with this view, because all copies of its objects were lost: what this server may
    /// still hold is of the history before.
    fn begin_anew<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        self.leave(cx);
        self.forget_objects(cx);
        self.end_as_head(cx);
        let early = std::mem::take(&mut self.early);
        let last_asked = self.last_asked;
        *self = Self { view: self.view.clone(), early, last_asked, ..Self::new(self.star, self.last_own) };
    }

    /// This server is not a member any more: its clients must go elsewhere, and what it holds of the star is history.
    fn leave<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        self.cut_after(cx, self.committed);
        let text = "the chain went on without this server before the write was acknowledged; \
                    it may or may not be done: send it again with the same request_id to another server";
        let unfinished = ResponseBody::error(ErrorCode::Unfinished, text);
        for number in self.own.keys().copied().collect::<Vec<_>>() {
            self.finish_own(cx, number, &unfinished);
        }
        self.forward_due.clear();
        self.ask_anew();
        let text = "this server is not a member of the key's chain any more; try another server";
        let refusal = ResponseBody::error(ErrorCode::NotServing, text);
        for waiter in std::mem::take(&mut self.readers) {
            match waiter {
                Waiter::Read(asker, _) => cx.answer(asker, &refusal, &[]),
                Waiter::List(list) => cx.shared.lists_released.push((self.star, list)),
            }
        }
    }
}
