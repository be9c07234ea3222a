//! From one view to the next, without losing an acknowledged write and without pausing clean reads.
//!
//! Every member of the new view reports what it holds to the new leader. A committed write is held by every serving
//! member of the old view, so the new leader's own log, up to its `ready`, contains it: that log becomes the order. The
//! leader sends it with INSTALL; a member keeps its stamps up to what the leader knows to be committed and replaces the
//! rest. Nothing is stamped, acked or counted in the new epoch before that.

use star_control::View;
use star_core::{
    collections::Set,
    error::ErrorCode,
    ids::{Epoch, Seq, ServerId},
    key::Key,
    message::ResponseBody,
    protocol::Effects,
    store::Store,
};

use super::{
    config::Bug,
    context::Context,
    log::Log,
    message::{Body, Message, Stamp, WriteId},
    replica::{Buffered, Replica, Waiter},
    sessions::Sessions,
};

impl Replica {
    /// Acts on a new view from now on. Views of older epochs are ignored.
    pub(crate) fn adopt<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, view: &View) {
        if view.epoch <= self.view.epoch {
            return;
        }
        let me = cx.me();
        // A server that comes with the objects of an earlier life offers them when it catches up. A member from the
        // beginning has nothing to compare them with.
        let may_keep = self.view.epoch == Epoch(0) && !view.is_member(me);
        let begins_with_a_store = view.resumed > self.view.resumed;
        let is_to_resume = self.is_to_resume(cx, view);
        if begins_with_a_store && view.leader == me && view.is_member(me) && !is_to_resume {
            cx.shared.counters.not_resumed += 1;
            // Better no star than one that has lost what it had, now or in a later view. But what was served before is over.
            let (epoch, founded, resumed) = (view.epoch, self.view.founded, self.view.resumed);
            let nobodys = View { star: view.star, epoch, founded, resumed, ..View::default() };
            return self.adopt(cx, &nobodys);
        }
        // What it did in the view before is noted before anybody hears of it, whatever comes in the same turn.
        self.note_turn(cx);
        if is_to_resume {
            self.resume(cx);
        } else if view.founded > self.view.founded && !may_keep {
            self.begin_anew(cx);
        } else if begins_with_a_store && self.view.exists() {
            self.forget_what_was_not_resumed(cx);
        }
        self.view = view.clone();
        self.installed = false;
        self.recount_promised(cx);
        self.stamps_due.clear();
        self.ack_due = false;
        self.ack_awaited_by.clear();
        self.hurried_by.clear();
        self.reports.clear();
        self.acked = view.members.iter().map(|member| (*member, Seq(0))).collect();
        self.peers = view.members.iter().copied().filter(|other| *other != me && view.is_member(me)).collect();
        self.restart_catch_up(me);
        self.note_view(cx);
        if cx.config.has_bug(Bug::SessionsLostAtTakeover) {
            self.sessions = Sessions::default();
        }
        self.finished_below.retain(|origin, _| view.is_member(*origin));
        self.progress.touch(cx.now);
        self.begin_leaving(cx);
        cx.store.set_serving(self.star, self.serves(me));
        if view.is_member(me) {
            self.report(cx);
        } else {
            self.leave(cx);
            self.tend_catch_up(cx);
        }
        for (from, message) in std::mem::take(&mut self.early) {
            self.on_message(cx, from, message);
        }
    }

    /// Tells the leader of this view what this server holds.
    pub(crate) fn report<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if self.leads(cx.me()) {
            self.on_report(cx, cx.me(), self.ready, self.committed);
        } else {
            self.send(cx, self.view.leader, Body::Report { ready: self.ready, committed: self.committed });
        }
    }

    /// At the leader: a member has reported.
    pub(crate) fn on_report<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        from: ServerId,
        ready: Seq,
        committed: Seq,
    ) {
        if !self.leads(cx.me()) || !self.view.is_member(from) {
            return;
        }
        if self.installed {
            self.send_install(cx, from);
            return;
        }
        self.reports.insert(from, (ready, committed));
        if self.view.members.iter().all(|member| self.reports.contains_key(member)) {
            self.install_own(cx);
        }
    }

    /// At the leader: all have reported, so its own log is the order now.
    fn install_own<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        let stamps = self.stamps_after(self.committed, self.ready);
        self.replace_order(cx, self.committed, &stamps);
        for member in self.peers.clone() {
            self.send_install(cx, member);
        }
        self.stamp_waiting(cx);
        self.after_install(cx);
    }

    /// At the leader: brings a member to its order.
    pub(crate) fn send_install<S: Store, E: Effects<Message>>(&self, cx: &mut Context<'_, S, E>, to: ServerId) {
        // Stamps of this very turn go out at its end, after this.
        let last = Seq(self.log.last().0 - self.stamps_due.len() as u64);
        let stamps = self.stamps_after(self.committed, last);
        self.send(cx, to, Body::Install { from: self.committed, stamps });
    }

    pub(crate) fn stamps_after(&self, seq: Seq, last: Seq) -> Vec<Stamp> {
        self.log.after_seq(seq).take_while(|(seq, _)| *seq <= last).map(|(_, stamp)| *stamp).collect()
    }

    /// The leader's order for this epoch.
    pub(crate) fn on_install<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        leader: ServerId,
        from: Seq,
        stamps: &[Stamp],
    ) {
        if leader != self.view.leader && !cx.config.has_bug(Bug::StaleInstallAccepted) {
            return;
        }
        if self.installed {
            // It came twice; only what is new in it counts.
            let first = from.next();
            return self.on_stamps(cx, leader, first, stamps);
        }
        if self.ready < from {
            return self.fall_behind(cx, from);
        }
        self.replace_order(cx, from, stamps);
        self.count_ack(leader, self.base);
        self.after_install(cx);
    }

    /// Keeps the log up to `from`, which is committed, and puts `stamps` after it.
    fn replace_order<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        from: Seq,
        stamps: &[Stamp],
    ) {
        self.base = Seq(from.0 + stamps.len() as u64);
        // Stamps that this server already knows to be committed are the same in every log.
        let keep = from.max(self.committed);
        let stamps = &stamps[((keep.0 - from.0) as usize).min(stamps.len())..];
        let before: Set<Key> = self.dirty.keys().cloned().collect();
        if cx.config.has_bug(Bug::InstallKeepsOwnStamps) {
            let known = (self.log.last().0.saturating_sub(keep.0) as usize).min(stamps.len());
            stamps[known..].iter().for_each(|stamp| self.add_stamp(*stamp));
        } else {
            self.cut_log_after(cx, keep);
            stamps.iter().for_each(|stamp| self.add_stamp(*stamp));
        }
        self.installed = true;
        self.note_install(cx);
        self.recount_promised(cx);
        self.drop_stale(cx);
        self.count_ack(cx.me(), self.ready);
        self.advance_ready(cx);
        // Only now, so that no reader sees a key clean that is dirty again a moment later.
        let mut clean: Vec<Key> = before.into_iter().filter(|key| !self.dirty.contains_key(key)).collect();
        clean.sort_unstable();
        clean.iter().for_each(|key| cx.store.mark_clean(key));
        self.commit_to(cx, from);
    }

    /// Takes the stamps after `keep` back: their writes have no place any more.
    fn cut_log_after<S: Store, E: Effects<Message>>(&mut self, cx: &Context<'_, S, E>, keep: Seq) {
        let cut = self.log.cut_after(keep);
        for (seq, stamp) in (keep.0 + 1..).map(Seq).zip(&cut) {
            self.take_stamp_back(cx.config.bug, seq, stamp);
        }
        self.ready = self.ready.min(keep);
        self.find_dirty();
    }

    /// The stamp at `seq` is not in the order after all.
    pub(crate) fn take_stamp_back(&mut self, bug: Option<Bug>, seq: Seq, stamp: &Stamp) {
        if self.missing.get(&stamp.write) == Some(&seq) {
            self.missing.remove(&stamp.write);
        }
        if let Some(write) = self.buffer.get_mut(&stamp.write) {
            write.seq = write.seq.filter(|place| *place != seq);
            if stamp.is_remembered() && bug != Some(Bug::DroppedRemembered) {
                self.sessions.take_back(seq, &write.head);
            }
        }
    }

    /// Drops unstamped writes of other origins that came before this epoch: an origin that lives sends them again, and
    /// no client of one that does not was told anything.
    fn drop_stale<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        let keeps_dead = cx.config.has_bug(Bug::UnstampedKeptOfDeadOrigin);
        let is_kept = |id: &WriteId| keeps_dead && !self.view.is_member(id.origin);
        let mut stale: Vec<WriteId> =
            self.buffer.iter().filter(|(id, write)| self.is_stale(write) && !is_kept(id)).map(|(id, _)| *id).collect();
        stale.sort_unstable();
        stale.into_iter().for_each(|id| self.drop_write(cx, id));
    }

    /// Whether a write has no stamp and came before this epoch, from somebody else.
    pub(crate) fn is_stale(&self, write: &Buffered) -> bool {
        write.seq.is_none() && write.epoch < self.view.epoch && !write.is_own
    }

    /// What is to be said and done once the order is known.
    fn after_install<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        self.ack_due = true;
        self.ack_awaited_by.clone_from(&self.peers);
        self.progress.touch(cx.now);
        self.advance(cx);
        let peers = self.peers.clone();
        self.send_own(cx, &peers);
        self.fetch_missing(cx);
        self.read_again(cx);
    }

    /// Sends this server's own writes that the leader has not stamped.
    pub(crate) fn send_own<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, to: &[ServerId]) {
        if cx.config.has_bug(Bug::OwnWritesNotResent) {
            return;
        }
        let mut own: Vec<WriteId> =
            self.buffer.iter().filter(|(_, write)| write.is_own && write.seq.is_none()).map(|(id, _)| *id).collect();
        own.sort_unstable();
        for id in own {
            self.send_again(cx, to, id);
        }
    }

    /// Looks at every waiting read anew: what it waited for may have another place now, or none.
    fn read_again<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        let waiting = std::mem::take(&mut self.waiting);
        for (seq, waiter) in waiting.into_iter().flat_map(|(seq, list)| list.into_iter().map(move |one| (seq, one))) {
            match waiter {
                Waiter::Read(asker, key) => self.get(cx, asker, &key),
                Waiter::List(_) => self.wait(seq.min(self.log.last()), waiter),
                Waiter::Remote { .. } => {} // The asker asks the new leader.
            }
        }
        self.release_waiters(cx);
        for (asker, key, _) in std::mem::take(&mut self.asked).into_values() {
            self.get(cx, asker, &key);
        }
    }

    /// The star's history begins anew with this view, because all copies of its objects were lost: what this server may
    /// still hold is of the history before.
    fn begin_anew<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        self.leave(cx);
        self.forget_note(cx);
        self.forget_objects(cx);
        cx.shared.promised_bytes -= self.promised_bytes;
        *self = Self { view: self.view.clone(), early: std::mem::take(&mut self.early), ..Self::new(self.star) };
    }

    /// This server is not a member any more: its clients must go elsewhere, and what it holds of the star is history.
    pub(crate) fn leave<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        let mut dirty: Vec<Key> = self.dirty.drain().map(|(key, _)| key).collect();
        dirty.sort_unstable();
        dirty.iter().for_each(|key| cx.store.mark_clean(key));
        self.cut_log_after(cx, self.committed);
        self.log = Log::after(self.committed);
        self.missing.clear();
        let mut ids: Vec<WriteId> = self.buffer.keys().copied().collect();
        ids.sort_unstable();
        ids.into_iter().for_each(|id| self.drop_write(cx, id));
        let text = "this server is not a member of the key's star any more; try another server";
        let refusal = ResponseBody::error(ErrorCode::NotServing, text);
        for waiter in std::mem::take(&mut self.waiting).into_values().flatten() {
            match waiter {
                Waiter::Read(asker, _) => cx.answer(asker, &refusal, &[]),
                Waiter::List(list) => cx.shared.lists_released.push((self.star, list)),
                Waiter::Remote { .. } => {}
            }
        }
        for (asker, ..) in std::mem::take(&mut self.asked).into_values() {
            cx.answer(asker, &refusal, &[]);
        }
    }
}
