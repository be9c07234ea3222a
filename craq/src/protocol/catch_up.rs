//! How a server that lacks objects of a star gets them, before and while it becomes the chain's tail (§5.3).
//!
//! A *learner* asks a serving member (not the head, where there is another) for one part after another: first all keys in
//! order, as they are when each part is made; then, again and again, the keys that were changed since the first part was
//! made, found by the requests that every member remembers. An answer after which nothing newer is left makes the
//! learner exact: it holds the star as it was at one seq. It says so, the planner makes it a *joining* member, at the end
//! of the chain, and what was done in between comes the same way from the last serving member, which can commit nothing
//! more before.
//!
//! A server that was a member before begins with the changes since its own last seq.

use bytes::Bytes;
use star_core::{
    collections::Set,
    ids::{Seq, ServerId},
    key::Key,
    protocol::Effects,
    store::Store,
    time::Time,
};

use super::{
    config::{Bug, NodeConfig},
    context::Context,
    log::Log,
    message::{Body, Changed, ChangedObject, Changes, DoneRequest, Message, Since},
    repair::patience,
    replica::Replica,
    requests::Requests,
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
    /// A joining member lacks writes that the one before has applied, so the chain cannot go on without its catching up.
    is_behind: bool,
    /// The server holds the star as it was at its `committed`.
    is_exact: bool,
}

/// The part of an answer that is put together.
#[derive(Default)]
struct Part {
    objects: Vec<Changed>,
    done: Vec<DoneRequest>,
    values: Vec<u8>,
}

impl Part {
    fn is_full(&self, config: &NodeConfig) -> bool {
        self.values.len() >= config.part_bytes || self.objects.len().max(self.done.len()) >= config.part_entries
    }

    fn add_object(&mut self, store: &impl Store, key: Key) {
        let object = store.get(&key).object.map(|object| {
            self.values.extend_from_slice(object.value);
            let value_bytes = object.value.len() as u32;
            ChangedObject { version: object.version, encoding: object.encoding, value_bytes }
        });
        self.objects.push(Changed { key, object });
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
        self.view.joining.contains(&me) && self.installed && self.committed >= self.base
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

    /// A joining member is behind what the others have committed.
    pub(crate) fn fall_behind<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if !self.catch_up.is_behind {
            self.catch_up.is_behind = true;
            self.ask_for_changes(cx);
        }
    }

    /// Asks for the next part, unless an answer is still to be expected.
    pub(crate) fn tend_catch_up<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        let patience = patience(cx.config.repair_after, self.catch_up.repeats, 0);
        let due = self.catch_up.asked_at.is_none_or(|at| cx.now.since(at) >= patience);
        if due && self.lacks_objects(cx.me()) {
            self.ask_for_changes(cx);
        }
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
            self.send(cx, source, Body::CatchUp { ask, since });
        }
    }

    /// Whom to ask: when the chain waits for this server, the last serving member, which can apply nothing more
    /// meanwhile; else a member that does not order writes, another one from time to time, in case one does not answer.
    fn source(&self, me: ServerId) -> Option<ServerId> {
        let others: Vec<ServerId> = self.view.serving().filter(|one| *one != me && !self.is_head(*one)).collect();
        if self.catch_up.is_behind || others.is_empty() {
            let serves = |one: &&ServerId| **one != me && self.serves(**one);
            return self.chain.order().iter().rev().find(serves).copied();
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
    ) {
        if !self.serves(cx.me()) {
            return; // The asker asks another.
        }
        let mut part = Part::default();
        let next = match since {
            Since::Objects { begun, after } => self.part_of_objects(cx, begun, after.as_deref(), &mut part),
            // Writes that are not committed may be forgotten as well, but nothing of them is asked for.
            Since::Writes { after, objects_after }
                if objects_after >= self.requests.forgotten_of(cx.config.changes_max).min(self.committed) =>
            {
                self.part_of_writes(cx, after, objects_after, &mut part)
            }
            // Which objects were changed since then is forgotten here.
            Since::Writes { .. } => return self.send(cx, from, Body::TooOld { ask }),
        };
        let Part { objects, done, values } = part;
        let forgotten = self.requests.forgotten();
        let (committed, version_floor) = (self.committed, self.version_floor);
        let changes = Changes { next, committed, forgotten, version_floor, objects, done };
        let body = Body::Changes { ask, changes };
        cx.effects.send(from, &Message { tail: Bytes::from(values), ..self.message(body) });
    }

    fn part_of_objects<S: Store, E: Effects<Message>>(
        &self,
        cx: &Context<'_, S, E>,
        begun: Option<Seq>,
        after: Option<&str>,
        part: &mut Part,
    ) -> Since {
        // Parts can come from members that have applied less than the first one: what is missing since then comes later.
        let begun = begun.map_or(self.committed, |begun| begun.min(self.committed));
        let mut last = None;
        let mut is_all = true;
        cx.store.list(self.star, "", after, &mut |key| {
            if part.is_full(cx.config) {
                is_all = false;
                return false;
            }
            part.add_object(cx.store, Key::new(key));
            last = Some(key.into());
            true
        });
        if !is_all {
            return Since::Objects { begun: Some(begun), after: last };
        }
        // The requests that are remembered come next, and with them the objects changed since the beginning.
        Since::Writes { after: self.requests.forgotten().min(begun), objects_after: begun }
    }

    fn part_of_writes<S: Store, E: Effects<Message>>(
        &self,
        cx: &Context<'_, S, E>,
        after: Seq,
        objects_after: Seq,
        part: &mut Part,
    ) -> Since {
        let mut keys: Set<Key> = Set::default();
        let mut last = after;
        for done in self.requests.after_seq(after).take_while(|done| done.seq <= self.committed) {
            if part.is_full(cx.config) {
                return Since::Writes { after: last, objects_after };
            }
            if done.seq > objects_after && keys.insert(done.key.clone()) {
                part.add_object(cx.store, done.key.clone());
            }
            part.done.push(done.clone());
            last = done.seq;
        }
        Since::Writes { after: self.committed.max(after), objects_after }
    }

    /// The member that was asked has forgotten what was done since: everything is wanted again.
    pub(crate) fn on_too_old<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, ask: u64) {
        if ask == self.catch_up.ask && self.lacks_objects(cx.me()) {
            self.forget_objects(cx);
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
        let Changes { next, committed, forgotten, version_floor, objects, done } = changes;
        self.catch_up.goal = self.catch_up.goal.max(committed);
        if !take_objects(cx, &objects, values) {
            return cx.shared.counters.no_space += 1; // The same part is asked for again.
        }
        if let (Some(Since::Objects { .. }), Since::Writes { after, .. }) = (&self.catch_up.since, &next) {
            self.requests = Requests::after(*after);
        }
        let is_last = done.is_empty() && objects.is_empty();
        done.into_iter().for_each(|one| self.requests.insert(one, cx.config.requests_max));
        self.requests.forget_up_to(forgotten);
        self.version_floor = self.version_floor.max(version_floor);
        let is_whole = match &next {
            // What the last serving member has applied is all that a joining member needs: whatever it has of later
            // writes, from members that knew more to be committed, is in the chain's order and comes once more.
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
                if moved || !is_last {
                    self.ask_for_changes(cx);
                }
            }
        }
    }

    /// This server holds the star as it was at `seq`.
    fn now_exact<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, seq: Seq) {
        self.cut_after(cx, self.committed);
        self.committed = seq;
        self.log = Log::after(seq);
        self.catch_up.asked_at = None;
        self.catch_up.is_exact = true;
        if std::mem::take(&mut self.catch_up.is_behind) {
            self.send_position(cx);
        }
    }

    /// Forgets all objects of the star, to begin with nothing.
    pub(crate) fn forget_objects<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        self.cut_after(cx, self.committed);
        let mut keys = Vec::new();
        cx.store.list(self.star, "", None, &mut |key| {
            keys.push(Key::new(key));
            true
        });
        keys.iter().for_each(|key| cx.store.remove(key, false));
        self.committed = Seq(0);
        self.log = Log::default();
        self.requests = Requests::default();
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
    for Changed { key, object } in objects {
        let Some(object) = object else {
            if !cx.config.has_bug(Bug::ResurrectedByCatchUp) {
                cx.store.remove(key, false);
            }
            continue;
        };
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
