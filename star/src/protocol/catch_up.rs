//! How a server that lacks objects of a star gets them, before and while it becomes a member.
//!
//! A *learner* asks a member (not the leader, where there is another) for one part after another: first all keys in
//! order, as they are when each part is made; then, again and again, the keys that were changed since the first part was
//! made, found by the changes that every member remembers, and the results of requests that are remembered. An answer after which nothing newer is left makes the
//! learner exact: it holds the star as it was at one seq. It says so, the planner makes it a *joining* member, and what
//! was done in between comes the same way from the leader, before the leader can commit anything more.
//!
//! A server that was a member before, or that kept its memory, begins with the changes since its own last seq. One that
//! kept only its store, or was away too long for that, offers what it holds with each question: version and digest of each
//! object. What is the same at the source is not sent ([`kept`](super::kept)).

use bytes::Bytes;
use star_core::{
    collections::Map,
    ids::{Seq, ServerId},
    key::Key,
    protocol::Effects,
    store::{Object, Store},
    time::Time,
};

use super::{
    config::{Bug, NodeConfig},
    context::Context,
    kept::{self, Offer},
    log::Log,
    message::{Body, Changed, ChangedObject, Changes, Kept, Message, Remembered, Since},
    recent::Recent,
    repair::patience,
    replica::Replica,
    sessions::Sessions,
};

/// How far a server has caught up with a star.
#[derive(Debug, Default)]
pub(crate) struct CatchUp {
    /// What it has; `None` before the first question.
    since: Option<Since>,
    /// The newest seq of which something may be applied here: only there or beyond can the server be exact.
    goal: Seq,
    /// The number of the latest question.
    ask: u64,
    /// What that was about, and how often it was asked again.
    asked_since: Option<Since>,
    repeats: u32,
    /// When it was last asked, as long as its answer is missing.
    asked_at: Option<Time>,
    /// Something that was said to be kept was not there: nothing is offered any more.
    offers_nothing: bool,
    /// A joining member lacks committed writes, so the leader cannot go on without its catching up.
    is_behind: bool,
    /// The server holds the star as it was at its `committed`.
    is_exact: bool,
}

/// The part of an answer that is put together.
#[derive(Default)]
struct Part {
    objects: Vec<Changed>,
    /// Where each key of `objects` is in it.
    places: Map<Key, usize>,
    remembered: Vec<Remembered>,
    values: Vec<u8>,
}

impl Part {
    fn is_full(&self, config: &NodeConfig) -> bool {
        self.values.len() >= config.part_bytes || self.objects.len().max(self.remembered.len()) >= config.part_entries
    }

    /// Adds a key as it is now, without its bytes if the asker has it the same.
    fn add_unless_kept(&mut self, store: &impl Store, key: &Key, offer: &mut Offer) {
        match store.get(key).object.filter(|object| offer.has(key, object)) {
            Some(object) => {
                let Object { version, encoding, .. } = object;
                let object = Some(ChangedObject { version, encoding, value_bytes: 0, is_kept: true });
                self.objects.push(Changed { seq: Seq(0), key: key.clone(), object });
            }
            None => self.add_object(store, Seq(0), key),
        }
    }

    /// Adds a key as it is now; one that is in the part already was changed again at `seq`.
    fn add_object(&mut self, store: &impl Store, seq: Seq, key: &Key) {
        if let Some(place) = self.places.get(key) {
            self.objects[*place].seq = seq;
            return;
        }
        let object = store.get(key).object.map(|object| {
            self.values.extend_from_slice(object.value);
            let value_bytes = object.value.len() as u32;
            ChangedObject { version: object.version, encoding: object.encoding, value_bytes, is_kept: false }
        });
        self.places.insert(key.clone(), self.objects.len());
        self.objects.push(Changed { seq, key: key.clone(), object });
    }
}

impl Replica {
    /// Whether this server has come as far as it must for the next step towards serving.
    pub(crate) fn may_advance(&self, me: ServerId) -> bool {
        if self.view.learners.contains(&me) {
            return self.catch_up.is_exact;
        }
        if self.view.leaving.contains(&me) {
            return self.may_leave;
        }
        self.view.joining.contains(&me) && self.installed && self.ready >= self.base
    }

    fn lacks_objects(&self, me: ServerId) -> bool {
        self.view.learners.contains(&me) || (self.view.joining.contains(&me) && self.catch_up.is_behind)
    }

    /// A new view: answers to questions of the one before are not taken any more.
    pub(crate) fn restart_catch_up(&mut self, me: ServerId) {
        if self.serves(me) {
            // From now on what this server has follows from the order.
            self.catch_up = CatchUp { ask: self.catch_up.ask, ..CatchUp::default() };
        }
        self.catch_up.asked_since = None;
        self.catch_up.asked_at = None;
        self.catch_up.is_behind = false;
        self.catch_up.is_exact = false;
    }

    /// A joining member is behind `committed`, up to which the leader knows the order to be committed. What it had begun
    /// of that order comes another way now, object by object, so it must not stand beside it. Nothing is lost with it:
    /// a joining member is nobody's copy.
    pub(crate) fn fall_behind<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, committed: Seq) {
        if !self.catch_up.is_behind {
            self.catch_up.is_behind = true;
            self.drop_order(cx, committed);
            self.ready = self.committed;
            self.log = Log::after(self.committed);
            // A client's results are listed at its latest one, which is earlier in the leader's list than in that of a
            // member that is ahead of it: how far this server has come in the one says nothing of the other.
            if let Some(Since::Writes { after, .. }) = &mut self.catch_up.since {
                *after = self.committed.min(*after);
            }
            self.ask_for_changes(cx);
        }
    }

    /// Asks for the next part, unless an answer is still to be expected.
    pub(crate) fn tend_catch_up<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        let patience = patience(cx.config.repair_after, self.catch_up.repeats, 0);
        let due = self.catch_up.asked_at.is_none_or(|at| cx.now.since(at) >= patience);
        if due && self.lacks_objects(cx.me()) && !self.is_ahead_of_pace(cx) {
            self.ask_for_changes(cx);
        }
    }

    /// Whether the next part is to wait, so that all objects together do not come faster than they may. What was changed since
    /// must come as fast as it can, or it would never end; and a joining member is waited for.
    fn is_ahead_of_pace<S: Store, E: Effects<Message>>(&self, cx: &Context<'_, S, E>) -> bool {
        let is_first_pass = matches!(self.catch_up.since, Some(Since::Objects { .. })) && !self.catch_up.is_behind;
        is_first_pass && cx.shared.copy_pace.must_wait(cx.now)
    }

    fn ask_for_changes<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        let committed = self.committed;
        let since = self.catch_up.since.get_or_insert(if committed == Seq(0) {
            Since::Objects { begun: None, after: None }
        } else {
            Since::Writes { after: committed, objects_after: committed }
        });
        // A question that is asked again keeps its number, so that a slow answer still counts.
        if self.catch_up.asked_since.as_ref() == Some(since) {
            self.catch_up.repeats += 1;
        } else {
            self.catch_up.asked_since = Some(since.clone());
            self.catch_up.ask += 1;
            self.catch_up.repeats = 0;
        }
        let since = since.clone();
        self.catch_up.asked_at = Some(cx.now);
        let ask = self.catch_up.ask;
        if let Some(source) = self.source(cx.me()) {
            let kept = match &since {
                Since::Objects { after, .. } if !self.catch_up.offers_nothing => {
                    kept::offer(cx.store, cx.config, self.star, after.as_deref())
                }
                _ => Vec::new(),
            };
            self.send(cx, source, Body::CatchUp { ask, since, kept });
        }
    }

    /// Whom to ask: when the leader waits for this server, the leader; else a member that has less to do, another one
    /// from time to time, in case one does not answer.
    fn source(&self, me: ServerId) -> Option<ServerId> {
        let leader = self.view.leader;
        let others: Vec<ServerId> = self.view.serving().filter(|one| *one != me && *one != leader).collect();
        if self.catch_up.is_behind || others.is_empty() {
            return (leader != me).then_some(leader);
        }
        let turn = usize::from(me.0) + self.catch_up.ask as usize / 8 + self.catch_up.repeats as usize / 2;
        Some(others[turn % others.len()])
    }

    pub(crate) fn on_catch_up<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        from: ServerId,
        ask: u64,
        since: Since,
        kept: &[Kept],
    ) {
        if !self.serves(cx.me()) {
            return; // The asker asks another.
        }
        let mut part = Part::default();
        let next = match since {
            Since::Objects { begun, after } => {
                self.part_of_objects(cx, begun, after.as_deref(), Offer::new(kept, cx.config), &mut part)
            }
            // Writes that are not committed may be forgotten as well, but nothing of them is asked for.
            Since::Writes { after, objects_after } if objects_after >= self.recent.forgotten().min(self.committed) => {
                self.part_of_writes(cx, after, objects_after, &mut part)
            }
            // Which objects were changed since then is forgotten here.
            Since::Writes { .. } => return self.send(cx, from, Body::TooOld { ask }),
        };
        let Part { objects, remembered, values, .. } = part;
        let (forgotten, evicted) = (self.recent.forgotten(), self.sessions.evicted());
        let (committed, version_floor) = (self.committed, self.version_floor);
        let changes = Changes { next, committed, forgotten, version_floor, objects, remembered, evicted };
        let body = Body::Changes { ask, changes };
        cx.effects.send(from, &Message { tail: Bytes::from(values), ..self.message(body) });
    }

    fn part_of_objects<S: Store, E: Effects<Message>>(
        &self,
        cx: &Context<'_, S, E>,
        begun: Option<Seq>,
        after: Option<&str>,
        mut offer: Offer,
        part: &mut Part,
    ) -> Since {
        // Parts can come from members that have applied less than the first one: what is missing since then comes later.
        let begun = begun.map_or(self.committed, |begun| begun.min(self.committed));
        let mut last = None;
        let mut is_all = true;
        cx.store.list(self.star, "", after, &mut |key| {
            // The asker has more to offer, perhaps, when all that it offered is kept.
            if part.is_full(cx.config) || offer.is_used_up() {
                is_all = false;
                return false;
            }
            part.add_unless_kept(cx.store, &Key::new(key), &mut offer);
            last = Some(key.into());
            true
        });
        if !is_all {
            return Since::Objects { begun: Some(begun), after: last };
        }
        // What is remembered of requests comes next, and with it the objects changed since the beginning.
        Since::Writes { after: Seq(0), objects_after: begun }
    }

    fn part_of_writes<S: Store, E: Effects<Message>>(
        &self,
        cx: &Context<'_, S, E>,
        after: Seq,
        objects_after: Seq,
        part: &mut Part,
    ) -> Since {
        let mut changed = self.recent.after_seq(after.max(objects_after)).peekable();
        let mut results = self.sessions.changes(after, self.committed).into_iter().peekable();
        let mut last = after;
        loop {
            let next = changed.peek().map(|(seq, _)| *seq).into_iter().chain(results.peek().map(|(seq, _)| *seq)).min();
            let Some(next) = next.filter(|seq| *seq <= self.committed) else { break };
            if part.is_full(cx.config) {
                return Since::Writes { after: last, objects_after };
            }
            while let Some((seq, key)) = changed.next_if(|(seq, _)| *seq == next) {
                part.add_object(cx.store, *seq, key);
            }
            while let Some((_, change)) = results.next_if(|(seq, _)| *seq == next) {
                part.remembered.push(change.to_remembered());
            }
            last = next;
        }
        Since::Writes { after: self.committed.max(after), objects_after }
    }

    /// The member that was asked has forgotten what was done since: everything is wanted again.
    pub(crate) fn on_too_old<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, ask: u64) {
        if ask == self.catch_up.ask && self.lacks_objects(cx.me()) {
            self.forget_order(cx);
            self.ask_for_changes(cx);
        }
    }

    /// A part of what this server lacks.
    pub(crate) fn on_changes<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        ask: u64,
        changes: Changes,
        values: &Bytes,
    ) {
        if ask != self.catch_up.ask || !self.lacks_objects(cx.me()) {
            return; // A late answer.
        }
        let Changes { next, committed, forgotten, version_floor, objects, mut remembered, evicted } = changes;
        self.catch_up.goal = self.catch_up.goal.max(committed);
        self.note_source(cx, committed);
        if let Some(Since::Objects { after, .. }) = &self.catch_up.since {
            if !kept::are_here(cx.store, cx.config, &objects) {
                self.catch_up.offers_nothing = true;
                return self.ask_for_changes(cx);
            }
            let end = if let Since::Objects { after: end, .. } = &next { end.as_deref() } else { None };
            kept::remove_others(cx.store, cx.config, self.star, (after.as_deref(), end), &objects);
        }
        if !take_objects(cx, &objects, values) {
            return cx.shared.counters.no_space += 1; // The same part is asked for again.
        }
        cx.shared.copy_pace.took(cx.now, values.len(), cx.config.copy_bytes_per_second);
        if let (Some(Since::Objects { .. }), Since::Writes { objects_after, .. }) = (&self.catch_up.since, &next) {
            self.sessions = Sessions::default();
            self.recent = Recent::after(*objects_after);
        }
        let is_last = remembered.is_empty() && objects.is_empty();
        self.note_recent(objects, forgotten, cx.config.sessions_max);
        if cx.config.has_bug(Bug::SessionsLostAtCatchUp) {
            remembered.retain(|one| matches!(one, Remembered::Text(_)));
        }
        self.sessions.take(cx.now, remembered, evicted, cx.config.sessions_max);
        self.version_floor = self.version_floor.max(version_floor);
        let is_whole = match &next {
            // What the leader has committed is all that a joining member needs: whatever it has of later writes, from
            // members that knew more to be committed, is in the leader's log and comes once more.
            _ if cx.config.has_bug(Bug::EarlyPromotion) => true,
            Since::Writes { after, .. } if self.catch_up.is_behind => *after >= committed,
            Since::Writes { after, .. } => *after == committed && *after >= self.catch_up.goal,
            Since::Objects { .. } => false,
        };
        match next {
            _ if is_whole => {
                self.catch_up.since = Some(Since::Writes { after: committed, objects_after: committed });
                self.now_exact(cx, committed);
            }
            next => {
                let moved = self.catch_up.since.as_ref() != Some(&next);
                self.catch_up.since = Some(next);
                self.catch_up.asked_at = None;
                if (moved || !is_last) && !self.is_ahead_of_pace(cx) {
                    self.ask_for_changes(cx);
                }
            }
        }
    }

    /// Notes the keys that another member knows to be changed.
    fn note_recent(&mut self, objects: Vec<Changed>, forgotten: Seq, max: usize) {
        let mut changed: Vec<(Seq, Key)> = objects.into_iter().map(|one| (one.seq, one.key)).collect();
        changed.retain(|(seq, _)| *seq > Seq(0));
        changed.sort_unstable();
        changed.into_iter().for_each(|(seq, key)| self.recent.push(seq, key, max));
        self.recent.forget_up_to(forgotten);
    }

    /// This server holds the star as it was at `seq`.
    fn now_exact<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, seq: Seq) {
        self.drop_order(cx, seq);
        self.committed = seq;
        self.ready = seq;
        self.log = Log::after(seq);
        self.catch_up.asked_at = None;
        self.catch_up.is_exact = true;
        if std::mem::take(&mut self.catch_up.is_behind) {
            self.report(cx);
        }
    }

    /// Leaves the order that a joining member had begun to take over: what it lacks up to `seq` has come another way.
    fn drop_order<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, seq: Seq) {
        let mut dirty: Vec<Key> = self.dirty.drain().map(|(key, _)| key).collect();
        dirty.sort_unstable();
        dirty.iter().for_each(|key| cx.store.mark_clean(key));
        while let Some(stamp) = self.log.pop() {
            if self.log.base() <= seq {
                self.missing.remove(&stamp.write);
                self.drop_write(cx, stamp.write);
            } else {
                self.take_stamp_back(cx.config.bug, self.log.base(), &stamp);
            }
        }
    }

    /// Forgets all objects of the star, to begin with nothing.
    pub(crate) fn forget_objects<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        self.forget_order(cx);
        let mut keys = Vec::new();
        cx.store.list(self.star, "", None, &mut |key| {
            keys.push(Key::new(key));
            true
        });
        if cx.config.has_bug(Bug::FoundingKeepsObjects) {
            return;
        }
        keys.iter().for_each(|key| cx.store.remove(key, false));
        cx.shared.counters.objects_dropped += keys.len() as u64;
    }

    /// Forgets which point of the order the objects are of.
    pub(crate) fn forget_order<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        self.drop_order(cx, Seq(0));
        self.committed = Seq(0);
        self.ready = Seq(0);
        self.log = Log::default();
        self.sessions = Sessions::default();
        self.recent = Recent::default();
        self.catch_up.since = None;
        self.catch_up.goal = Seq(0);
    }
}

/// Applies objects as they are at another server; false if there is no room for one.
fn take_objects<S: Store, E: Effects<Message>>(
    cx: &mut Context<'_, S, E>,
    objects: &[Changed],
    values: &Bytes,
) -> bool {
    let mut values = values.clone();
    for Changed { key, object, .. } in objects {
        let Some(object) = object else {
            if !cx.config.has_bug(Bug::ResurrectedByCatchUp) {
                cx.store.remove(key, false);
            }
            continue;
        };
        if object.is_kept {
            cx.shared.counters.objects_kept += 1;
            continue;
        }
        cx.shared.counters.objects_taken += 1;
        let value_bytes = object.value_bytes as usize;
        if value_bytes > values.len() {
            return false; // Not what a server of ours sends.
        }
        let value = values.split_to(value_bytes);
        let Ok(place) = cx.store.place(key, object.encoding, value_bytes) else { return false };
        cx.store.fill(place, 0, &value);
        cx.store.publish(key, place, object.version, false);
    }
    true
}
