//! What a server notes of a star in its store, and how it goes on with what a life before has left there.
//!
//! Notes are for the control plane, which decides by them whether a store holds everything that anybody was told of
//! (`star_control`'s planner). Its argument rests on when they are written: the epoch and `ready` before an ack of them
//! leaves, `committed` after what is committed is published and before a client is told. Acks and answers leave at the end
//! of a turn, after [`Replica::note_turn`]. Only who reads the store by himself may see a write before: so the epoch is noted
//! when it is installed, and each write right before it is applied ([`Store::note_applying`]).

use star_control::View;
use star_core::{
    ids::{ClientId, Epoch, Seq},
    note::Note,
    protocol::Effects,
    store::Store,
};

use super::{
    config::Bug,
    context::Context,
    log::Log,
    message::{Evicted, Message},
    recent::Recent,
    replica::Replica,
    sessions::Sessions,
};

/// What is noted of a star, and whether that counts.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// The same as in the store.
    note: Option<Note>,
    /// The store is as a life before left it, whole: the star may go on with it.
    may_resume: bool,
    /// The store holds exactly what the order makes. From when this server is one of those that hold everything until it
    /// learns from others.
    is_whole: bool,
    /// The epoch and `ready` at the end of the turn before; only a planted bug needs it.
    last_turn: (Epoch, Seq),
}

impl Replica {
    /// What a life before has noted.
    pub(crate) fn recall(&mut self, note: Option<Note>) {
        self.noted =
            Noted { note, may_resume: note.is_some_and(|note| note.whole), is_whole: false, ..Noted::default() };
    }

    /// Whether this view has the star go on with what is in this server's store.
    pub(crate) fn is_to_resume<S: Store, E: Effects<Message>>(&self, cx: &Context<'_, S, E>, view: &View) -> bool {
        let fits = |note: Note| {
            let is_this = note.cluster == cx.shared.cluster_mark && note.founded == view.founded;
            is_this && view.resumed.is_some_and(|from| from.seq == note.committed && from.epoch > note.epoch)
        };
        // A view without members names somebody as its leader, too.
        let is_mine = view.leader == cx.me() && view.is_member(cx.me());
        self.noted.may_resume && is_mine && self.noted.note.is_some_and(fits)
    }

    /// Goes on with what is in the store: it is the order up to what is noted as committed. Which requests made it is
    /// forgotten, so whatever a client of that time sends again is refused.
    pub(crate) fn resume<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        let Some(note) = self.noted.note else { return };
        self.committed = note.committed;
        self.ready = note.committed;
        self.log = Log::after(note.committed);
        self.recent = Recent::after(note.committed);
        self.version_floor = note.version_floor;
        if !cx.config.has_bug(Bug::ResumedSessionsNew) {
            let youngest = ClientId { born: note.youngest, draw: u32::MAX };
            self.sessions = Sessions::after(Evicted { youngest, last: note.committed });
        }
        (self.noted.may_resume, self.noted.is_whole) = (false, true);
        cx.shared.counters.resumed += 1;
    }

    /// The star goes on with what another server's store held: what this one has of the order may be of a time after that.
    pub(crate) fn forget_what_was_not_resumed<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        self.leave(cx);
        self.forget_order(cx);
    }

    /// A new view, about which nothing was done yet. Who learns from others has no whole store from now on.
    pub(crate) fn note_view<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if !self.view.learners.contains(&cx.me()) {
            return;
        }
        (self.noted.may_resume, self.noted.is_whole) = (false, false);
        let is_other = |note: &&mut Note| note.whole || note.life != cx.config.incarnation;
        if let Some(note) = self.noted.note.as_mut().filter(is_other) {
            (note.whole, note.life) = (false, cx.config.incarnation);
            cx.store.note(self.star, note);
        }
    }

    /// The planted bug: what a source has is noted as what is here before all of it is.
    pub(crate) fn note_source<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>, committed: Seq) {
        if cx.config.has_bug(Bug::WholeIgnored) {
            let (cluster, life) = (cx.shared.cluster_mark, cx.config.incarnation);
            let (founded, epoch) = (self.view.founded, self.view.epoch);
            let (base, ready, whole) = (committed, committed, true);
            let note = Note { cluster, life, founded, epoch, base, ready, committed, whole, ..Note::default() };
            cx.store.note(self.star, &note);
            self.noted.note = Some(note);
        }
    }

    /// Nothing is left of what was noted: the star begins anew.
    pub(crate) fn forget_note<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if self.noted.note.take().is_some() {
            cx.store.note(self.star, &Note::default());
        }
        self.noted = Noted::default();
    }

    /// Notes an epoch as soon as something may be committed in it: readers of the store by themselves do not wait for the end of
    /// the turn.
    pub(crate) fn note_install<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if !cx.config.has_bug(Bug::EpochNotedLate) {
            self.note_turn(cx);
        }
    }

    /// Notes how far this server is, before anybody hears of it.
    pub(crate) fn note_turn<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        if !self.installed {
            return;
        }
        let is_holder = self.view.is_member(cx.me()) && !self.view.joining.contains(&cx.me());
        self.noted.is_whole |= is_holder && self.committed >= self.base;
        let whole = self.noted.is_whole;
        let (epoch, founded, cluster) = (self.view.epoch, self.view.founded, cx.shared.cluster_mark);
        let before = std::mem::replace(&mut self.noted.last_turn, (epoch, self.ready));
        let is_late = cx.config.has_bug(Bug::ReadyNotedLate) && before.0 == epoch;
        let ready = if is_late { before.1 } else { self.ready };
        let is_same = |note: &&mut Note| {
            note.epoch == epoch && note.founded == founded && note.cluster == cluster && note.whole == whole
        };
        if let Some(note) = self.noted.note.as_mut().filter(is_same) {
            if (note.ready, note.committed) != (ready, self.committed) {
                (note.ready, note.committed) = (ready, self.committed);
                cx.store.note_progress(self.star, ready, self.committed);
            }
            return;
        }
        if cx.config.has_bug(Bug::EpochNotedLate) && before.0 != epoch {
            return;
        }
        let (version_floor, youngest) = (self.version_floor, self.sessions.youngest());
        let (life, base, committed) = (cx.config.incarnation, self.base, self.committed);
        let note = Note { cluster, life, founded, epoch, base, ready, committed, version_floor, youngest, whole };
        cx.store.note(self.star, &note);
        self.noted.note = Some(note);
    }

    /// Notes, before a write is applied, what must be known with it.
    pub(crate) fn note_bounds<S: Store, E: Effects<Message>>(&mut self, cx: &mut Context<'_, S, E>) {
        let (version_floor, youngest) = (self.version_floor, self.sessions.youngest());
        if let Some(note) = &mut self.noted.note
            && (note.version_floor < version_floor || note.youngest < youngest)
        {
            note.version_floor = note.version_floor.max(version_floor);
            note.youngest = note.youngest.max(youngest);
            cx.store.note_bounds(self.star, note.version_floor, note.youngest);
        }
    }
}
