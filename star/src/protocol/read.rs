//! Reads: answered here, without a message, unless the key has a write under way.
//!
//! Why this is linearizable: a write is answered only after every member has marked its key dirty or has applied it. A
//! read that starts after that answer therefore meets the write here, as dirty (and waits for it) or as applied. The
//! lease makes sure that this server is still one of those members.

use star_core::{
    ids::{Seq, ServerId},
    key::Key,
    protocol::Effects,
    requests::Asker,
    store::Store,
};

use super::{
    config::{Bug, DirtyReads},
    context::Context,
    message::{Body, Message},
    replica::{Replica, Waiter},
};

impl Replica {
    /// A client's read.
    pub(crate) fn get<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, asker: Asker, key: &Key) {
        if let Some(refusal) = self.refuse_service(cx) {
            cx.answer(asker, &refusal, &[]);
            return;
        }
        let answers_dirty = cx.config.has_bug(Bug::DirtyReadAtOnce);
        if cx.answer_if(asker, key, |entry| !entry.dirty || answers_dirty) {
            cx.shared.counters.reads_clean += 1;
            return;
        }
        cx.shared.counters.reads_dirty += 1;
        self.read_dirty(cx, asker, key);
    }

    fn read_dirty<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, asker: Asker, key: &Key) {
        if cx.config.dirty_reads == DirtyReads::Leader && !self.leads(cx.me()) {
            self.last_asked += 1;
            self.asked.insert(self.last_asked, (asker, key.clone(), cx.now));
            self.send(cx, self.view.leader, Body::Read { read: self.last_asked, key: key.clone() });
            return;
        }
        self.hurry(cx.now);
        self.wait(self.last_change(key), Waiter::Read(asker, key.clone()));
    }

    /// The last seq here that changes the key, if it is not committed; else what is committed.
    pub(crate) fn last_change(&self, key: &Key) -> Seq {
        self.dirty.get(key).map_or(self.committed, |dirty| dirty.last)
    }

    pub(crate) fn wait(&mut self, seq: Seq, waiter: Waiter) {
        self.waiting.entry(seq).or_default().push(waiter);
    }

    /// Serves those who waited for what is committed now.
    pub(crate) fn release_waiters<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        while let Some(entry) = self.waiting.first_entry() {
            if *entry.key() > self.committed {
                break;
            }
            let (seq, waiters) = entry.remove_entry();
            for waiter in waiters {
                match waiter {
                    Waiter::Read(asker, key) => self.answer_read(cx, asker, &key),
                    Waiter::List(list) => cx.shared.lists_released.push((self.star, list)),
                    Waiter::Remote { from, read } => self.send(cx, from, Body::ReadAnswer { read, seq }),
                }
            }
        }
    }

    /// Answers a read that has waited; the lease may have run out meanwhile.
    fn answer_read<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, asker: Asker, key: &Key) {
        match self.refuse_service(cx) {
            Some(refusal) => cx.answer(asker, &refusal, &[]),
            None => cx.answer_from_store(asker, key),
        }
    }

    /// At the leader: another server asks which write to a key is the latest.
    pub(crate) fn on_read<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        from: ServerId,
        read: u64,
        key: &Key,
    ) {
        if !self.installed || !self.leads(cx.me()) {
            return; // The asker asks again.
        }
        let seq = self.last_change(key);
        if seq <= self.committed {
            self.send(cx, from, Body::ReadAnswer { read, seq });
        } else {
            self.wait(seq, Waiter::Remote { from, read });
        }
    }

    /// The leader says that everything up to `seq` is committed: this server has acked it, so it holds it.
    pub(crate) fn on_read_answer<S: Store, E: Effects<Message>>(
        &mut self,
        cx: &mut Context<'_, S, E>,
        read: u64,
        seq: Seq,
    ) {
        let Some((asker, key, _)) = self.asked.remove(&read) else { return };
        self.commit_to(cx, seq);
        self.answer_read(cx, asker, &key);
    }
}
