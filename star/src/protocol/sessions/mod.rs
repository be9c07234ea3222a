//! Which requests were done, and with which result: so that a repeated request takes effect once.
//!
//! Typed clients say with every request which of their numbers they may still send again, so their results need not be
//! remembered by number or age, at whatever speed others write ([`clients`]). Requests that are named by a text are
//! remembered for a bounded time and number ([`texts`]). A write that its client did not name is named by its origin,
//! which is a client like others here, but never forgotten.
//!
//! A result is known from the moment a member is ready for its write, and is *settled* when the write is committed.
//! Only settling forgets anything of a typed client, so what is settled follows from the order alone and is the same at
//! every member; what is not can be taken back.

mod clients;
mod texts;

use std::time::Duration;

use clients::Clients;
use star_core::{
    ids::{ClientId, RequestId, Seq},
    time::Time,
};
use texts::Texts;

use super::{
    config::Bug,
    message::{DoneText, Evicted, Outcome, Remembered, WriteHead},
};

/// The results of the writes of one star.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    clients: Clients,
    texts: Texts,
}

/// What the table says about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It was not done.
    New,
    /// It was done, or is about to be, with this result.
    Done(Outcome),
    /// Nobody knows any more; it must not be done.
    Forgotten,
}

/// A write as a counted client's.
#[derive(Clone, Copy, Debug)]
struct Counted {
    client: ClientId,
    number: u64,
    /// The lowest number that the client may still send again.
    lowest: u64,
}

enum Name<'a> {
    Counted(Counted),
    Text(&'a str),
}

fn name(head: &WriteHead) -> Name<'_> {
    let counted = |client, number: u64, behind| Counted { client, number, lowest: number.saturating_sub(behind) };
    match &head.request_id {
        RequestId::Counted { client, number, behind } => Name::Counted(counted(*client, *number, *behind)),
        RequestId::Text(text) => Name::Text(text),
        RequestId::Unnamed => Name::Counted(counted(clients::origin(head.id.origin), head.id.number, head.behind)),
    }
}

impl Sessions {
    /// A table that has forgotten everything up to a seq, and everybody who was born by then.
    pub(crate) fn after(evicted: Evicted) -> Self {
        Self { clients: Clients::after(evicted), ..Self::default() }
    }

    /// No typed client that is known here, or was, is younger than this.
    pub(crate) fn youngest(&self) -> u64 {
        self.clients.youngest()
    }

    /// What is known of a request.
    pub(crate) fn judge(&self, head: &WriteHead, bug: Option<Bug>) -> Standing {
        match name(head) {
            _ if bug == Some(Bug::RequestIdForgotten) => Standing::New,
            Name::Counted(counted) => match self.clients.judge(counted) {
                Standing::Forgotten if bug == Some(Bug::FloorIgnored) => Standing::New,
                standing => standing,
            },
            Name::Text(text) => self.texts.get(text).map_or(Standing::New, Standing::Done),
        }
    }

    /// Remembers the result of the write at `seq`, which is ready here.
    pub(crate) fn insert(&mut self, now: Time, seq: Seq, head: &WriteHead, outcome: Outcome, max: usize) {
        match name(head) {
            Name::Counted(counted) => self.clients.insert(counted, seq, outcome),
            Name::Text(text) => self.texts.insert(now, DoneText { seq, request_id: text.into(), outcome }, max),
        }
    }

    /// The write at `seq` is not in the order after all.
    pub(crate) fn take_back(&mut self, seq: Seq, head: &WriteHead) {
        match name(head) {
            Name::Counted(counted) => self.clients.take_back(counted, seq),
            Name::Text(_) => self.texts.cut_after(Seq(seq.0 - 1)),
        }
    }

    /// The write at `seq` is committed: forgets what its client says it may, and who has been silent longest, as long as
    /// there are more than `max` results.
    pub(crate) fn settle(&mut self, seq: Seq, head: &WriteHead, outcome: Outcome, max: usize) {
        if let Name::Counted(counted) = name(head) {
            self.clients.settle(counted, seq, outcome, max);
        }
    }

    /// Forgets results of requests named by texts that are older than `age_max`.
    pub(crate) fn expire(&mut self, now: Time, age_max: Duration) {
        self.texts.expire(now, age_max);
    }

    /// How many results are remembered.
    pub(crate) fn len(&self) -> usize {
        self.clients.len() + self.texts.len()
    }

    /// Which clients were forgotten.
    pub(crate) fn evicted(&self) -> Evicted {
        self.clients.evicted()
    }

    /// What has changed in `(after, committed]`, by the seq of its last change; all as settled at `committed`.
    pub(crate) fn changes(&self, after: Seq, committed: Seq) -> Vec<(Seq, Change<'_>)> {
        let texts = self.texts.after_seq(after).take_while(|done| done.seq <= committed);
        let texts = texts.map(|done| (done.seq, Change::Text(done)));
        let mut changes: Vec<_> = texts.chain(self.clients.changed_after(after)).collect();
        changes.sort_unstable_by_key(|(seq, _)| *seq);
        changes
    }

    /// Takes over what another member has settled.
    pub(crate) fn take(&mut self, now: Time, remembered: Vec<Remembered>, evicted: Evicted, max: usize) {
        for one in remembered {
            match one {
                Remembered::Client(window) => self.clients.take(window),
                Remembered::Text(done) => self.texts.insert(now, done, max),
            }
        }
        self.clients.take_evicted(evicted);
    }

    /// What is settled of typed clients, in an order that is the same everywhere.
    pub(crate) fn settled(&self) -> Vec<Remembered> {
        self.clients.settled()
    }
}

/// A part of the table that has changed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'a> {
    Client(ClientId, &'a clients::Window),
    Text(&'a DoneText),
}

impl Change<'_> {
    /// For another server.
    pub(crate) fn to_remembered(self) -> Remembered {
        match self {
            Self::Client(client, window) => Remembered::Client(window.settled(client)),
            Self::Text(done) => Remembered::Text(done.clone()),
        }
    }
}
