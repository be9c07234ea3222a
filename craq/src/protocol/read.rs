//! Reads (§2.3, §2.4): a clean key is answered here, without a message; for a dirty one the tail is asked what is
//! committed.
//!
//! The paper's version query names a key and gets the number of its committed version. Here the tail answers with its
//! committed seq, which says the same for all keys at once: the reads of a whole turn share one question, and the answer
//! is an acknowledgement as well.
//!
//! Why this is linearizable: a write is committed when the tail has it, so every node before has marked its key by then.
//! A read that begins later meets it here, applied or dirty; if dirty, the tail says at a moment after the read began
//! what is committed, and the read is answered as of that moment. The lease makes sure that the node is still one of the
//! chain.

use bytes::Bytes;
use star_core::{
    ids::{Seq, ServerId},
    key::Key,
    message::ResponseBody,
    protocol::Effects,
    requests::Asker,
    store::Store,
    time::Time,
};

use super::{
    config::{Bug, Reads},
    context::Context,
    message::{Body, Message, Operation},
    replica::Replica,
};

/// Who waits for the tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// A read.
    Read(Asker, Key),
    /// A list, by its number at the node.
    List(u64),
}

/// A question to the tail that is not answered yet.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) body: Body,
    pub(crate) waiters: Vec<Waiter>,
    /// When it was last asked.
    pub(crate) at: Time,
}

/// What the tail is asked.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) from: ServerId,
    pub(crate) ask: u64,
    /// A key to read; `None`: what is committed?
    pub(crate) key: Option<Key>,
}

impl Replica {
    /// A client's read.
    pub(crate) fn get<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, asker: Asker, key: &Key) {
        let reads = cx.config.reads;
        let refusal = match reads {
            Reads::Eventual | Reads::Bounded { .. } => self.refuse_stranger(cx),
            Reads::Apportioned | Reads::Tail => self.refuse_service(cx),
        };
        if let Some(refusal) = refusal {
            return cx.answer(asker, &refusal, &[]);
        }
        match reads {
            Reads::Eventual => return cx.answer_from_store(asker, key),
            Reads::Bounded { .. } if self.answer_bounded(cx, asker, key) => return,
            Reads::Bounded { .. } => {
                if let Some(refusal) = self.refuse_service(cx) {
                    return cx.answer(asker, &refusal, &[]);
                }
            }
            Reads::Apportioned | Reads::Tail => {}
        }
        if self.knows_latest(cx, key) {
            cx.shared.counters.reads_clean += 1;
            return cx.answer_from_store(asker, key);
        }
        cx.shared.counters.reads_asked += 1;
        self.readers.push(Waiter::Read(asker, key.clone()));
    }

    /// Whether what is committed here is the latest that any client can have been told of a key.
    fn knows_latest<S: Store, E: Effects<Message>>(&self, cx: &Context<'_, S, E>, key: &Key) -> bool {
        let is_tail = self.is_tail(cx.me());
        if cx.config.reads.is_plain() && !is_tail {
            return false;
        }
        let is_clean = !cx.store.get(key).dirty || cx.config.has_bug(Bug::DirtyReadAtOnce);
        is_clean || (is_tail && self.may_answer(cx))
    }

    /// At the tail: whether it has all that was committed in the views before, so that what it has is what is committed.
    fn may_answer<S: Store, E: Effects<Message>>(&self, cx: &Context<'_, S, E>) -> bool {
        self.installed && (self.committed >= self.base || cx.config.has_bug(Bug::TailAnswersEarly))
    }

    /// Answers with the newest object here if it is within the bounds; false if it is not.
    fn answer_bounded<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        asker: Asker,
        key: &Key,
    ) -> bool {
        let Reads::Bounded { versions, age } = cx.config.reads else { return false };
        if cx.now >= cx.shared.certain_until + age {
            return false; // It may be older than the bound.
        }
        let Some(dirty) = self.dirty.get(key) else {
            cx.answer_from_store(asker, key);
            return true;
        };
        let Some(newest) = self.log.get(dirty.last).filter(|newest| newest.is_complete()) else { return false };
        let committed = cx.store.get(key).object.map_or(0, |object| object.version.0);
        let version = newest.entry.effect().unwrap_or_default();
        let oldest = self.log.iter().next().map_or(cx.now, |(_, pending)| pending.since);
        if version.0 - committed.min(version.0) > versions || cx.now.since(oldest) > age {
            return false;
        }
        match (newest.entry.operation, newest.place) {
            (Operation::Set(encoding), Some(place)) => {
                let value = Bytes::copy_from_slice(cx.store.placed(place));
                cx.answer(asker, &ResponseBody::Value { version, encoding }, &value);
            }
            _ => cx.answer(asker, &ResponseBody::NotFound, &[]),
        }
        true
    }

    /// Whether a list of keys that begin with `prefix` must ask the tail first.
    pub(crate) fn list_must_ask<S: Store, E: Effects<Message>>(&self, cx: &Context<'_, S, E>, prefix: &str) -> bool {
        let me = cx.me();
        if !self.serves(me) || cx.config.reads == Reads::Eventual || (self.is_tail(me) && self.may_answer(cx)) {
            return false;
        }
        let is_plain = cx.config.reads.is_plain() && !self.is_tail(me);
        is_plain || self.dirty.keys().any(|key| key.as_str().starts_with(prefix))
    }

    /// Asks the tail for all that waits, or answers it where this server is the tail itself.
    pub(crate) fn send_questions<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if self.readers.is_empty() || !self.installed {
            return;
        }
        let Some(tail) = self.chain.tail() else { return };
        if tail == cx.me() {
            if self.may_answer(cx) {
                let waiters = std::mem::take(&mut self.readers);
                self.answer_waiters(cx, waiters);
            }
            return;
        }
        let mut waiters = std::mem::take(&mut self.readers);
        if cx.config.reads.is_plain() {
            // Each read goes to the tail by itself; what is left asks what is committed.
            let (reads, lists): (Vec<_>, Vec<_>) =
                waiters.into_iter().partition(|waiter| matches!(waiter, Waiter::Read(..)));
            for read in reads {
                self.ask(cx, tail, vec![read]);
            }
            waiters = lists;
        }
        if !waiters.is_empty() {
            self.ask(cx, tail, waiters);
        }
    }

    fn ask<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, tail: ServerId, waiters: Vec<Waiter>) {
        self.last_asked += 1;
        let ask = self.last_asked;
        let body = match &waiters[..] {
            [Waiter::Read(_, key)] if cx.config.reads.is_plain() => Body::Read { ask, key: key.clone() },
            _ => Body::Ask { ask },
        };
        cx.shared.counters.questions += 1;
        self.send(cx, tail, body.clone());
        self.asked.insert(ask, Asked { body, waiters, at: cx.now });
    }

    /// At the tail: another node asks. Needs no lease here: the asker is in the same view when it hears the answer, so
    /// nothing was committed without this server in between.
    pub(crate) fn on_question<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        question: Question,
    ) {
        if !self.is_tail(cx.me()) {
            return; // Both are in the same view: not what a server of ours asks.
        }
        if self.may_answer(cx) {
            self.answer_question(cx, question);
        } else if self.questions.iter().all(|known| (known.from, known.ask) != (question.from, question.ask)) {
            self.questions.push(question);
        }
    }

    /// At the tail: answers what it was asked too early.
    pub(crate) fn answer_questions<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if !self.questions.is_empty() && self.may_answer(cx) {
            for question in std::mem::take(&mut self.questions) {
                self.answer_question(cx, question);
            }
        }
    }

    fn answer_question<S: Store, E: Effects<Message>>(&self, cx: &mut Context<'_, S, E>, question: Question) {
        let Question { from, ask, key } = question;
        let Some(key) = key else {
            return self.send(cx, from, Body::Answer { ask, committed: self.committed });
        };
        let (body, tail) = match cx.store.get(&key).object {
            Some(object) => {
                let body = ResponseBody::Value { version: object.version, encoding: object.encoding };
                (body, Bytes::copy_from_slice(object.value))
            }
            None => (ResponseBody::NotFound, Bytes::new()),
        };
        cx.effects.send(from, &Message { tail, ..self.message(Body::ReadAnswer { ask, body }) });
    }

    /// The tail says what is committed. This server is before it in the chain, so it has all of that.
    pub(crate) fn on_answer<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        ask: u64,
        committed: Seq,
    ) {
        if !self.installed || committed > self.ready() {
            return;
        }
        if let Some(asked) = self.asked.remove(&ask) {
            self.commit_to(cx, committed);
            self.answer_waiters(cx, asked.waiters);
        }
    }

    /// The tail answers a read.
    pub(crate) fn on_read_answer<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        ask: u64,
        body: &ResponseBody,
        value: &[u8],
    ) {
        let Some(asked) = self.asked.remove(&ask) else { return };
        for waiter in asked.waiters {
            if let Waiter::Read(asker, _) = waiter {
                match self.refuse_service(cx) {
                    Some(refusal) => cx.answer(asker, &refusal, &[]),
                    None => cx.answer(asker, body, value),
                }
            }
        }
    }

    /// Answers those who have waited; the lease may have run out meanwhile.
    fn answer_waiters<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, waiters: Vec<Waiter>) {
        for waiter in waiters {
            match waiter {
                Waiter::Read(asker, key) => match self.refuse_service(cx) {
                    Some(refusal) => cx.answer(asker, &refusal, &[]),
                    None => cx.answer_from_store(asker, &key),
                },
                Waiter::List(list) => cx.shared.lists_released.push((self.star, list)),
            }
        }
    }

    /// What the tail of the view before was asked is asked anew.
    pub(crate) fn ask_anew(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        self.readers.extend(asked.into_values().flat_map(|asked| asked.waiters));
    }
}
