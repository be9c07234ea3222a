//! Everything there is at one moment.

/// How many servers there are.
pub const SERVERS: usize = 3;

/// The most epochs.
pub(crate) const EPOCHS_MAX: usize = 6;

/// The most writes.
pub(crate) const WRITES_MAX: usize = 3;

/// A set of servers, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Servers(pub u8);

impl Servers {
    /// Whether a server is in it.
    pub fn has(self, server: usize) -> bool {
        self.0 >> server & 1 == 1
    }

    /// The same with a server.
    #[must_use]
    pub fn with(self, server: usize) -> Self {
        Self(self.0 | 1 << server)
    }

    /// The same without a server.
    #[must_use]
    pub fn without(self, server: usize) -> Self {
        Self(self.0 & !(1 << server))
    }

    /// Its servers, in order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..SERVERS).filter(move |server| self.has(*server))
    }
}

/// Writes in the order of their seqs, from 1 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Log {
    len: u8,
    writes: [u8; WRITES_MAX],
}

impl Log {
    /// The last seq.
    pub fn last(self) -> u8 {
        self.len
    }

    /// The write at a seq that it holds.
    pub fn at(self, seq: u8) -> u8 {
        self.writes[usize::from(seq) - 1]
    }

    /// Whether a write is in it.
    pub fn holds(self, write: u8) -> bool {
        self.writes[..usize::from(self.len)].contains(&write)
    }

    /// The same with a write at the next seq.
    #[must_use]
    pub fn with(mut self, write: u8) -> Self {
        self.writes[usize::from(self.len)] = write;
        self.len += 1;
        self
    }

    /// The same up to a seq.
    #[must_use]
    pub fn up_to(mut self, seq: u8) -> Self {
        self.len = self.len.min(seq);
        self.writes[usize::from(self.len)..].fill(0);
        self
    }

    /// Whether it begins with the other.
    pub fn begins_with(self, other: Self) -> bool {
        self.up_to(other.len) == other
    }
}

/// Who replicates in one epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct View {
    /// Who must ack, joining members among them.
    pub members: Servers,
    /// Those that answer no reads yet.
    pub joining: Servers,
    /// Who gives the order.
    pub leader: u8,
}

impl View {
    /// The members that answer reads.
    pub fn serving(self) -> Servers {
        Servers(self.members.0 & !self.joining.0)
    }
}

/// What was said in one epoch. It stays said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// The view, once the control plane has installed it.
    pub view: View,
    /// Who has adopted it and said so.
    pub reported: Servers,
    /// The order that its leader gives, once it has installed it.
    pub order: Option<Log>,
    /// What the leader had committed when it installed.
    pub from: u8,
    /// The last seq of the order at that time.
    pub base: u8,
    /// The highest seq that each server has acked.
    pub acked: [u8; SERVERS],
}

/// A lease as its holder sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lease {
    /// It has none.
    #[default]
    None,
    /// It was given one, and must read the views first.
    NeedsViews,
    /// It counts on it.
    Counts,
}

/// One server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Server {
    /// Whether it has lost its memory and not come back yet.
    pub down: bool,
    /// Whether it has ever lost its memory.
    pub was_down: bool,
    /// The epoch that it acts in; 0 before it knows any.
    pub epoch: u8,
    /// Whether it has taken over the order of that epoch.
    pub installed: bool,
    /// What it is ready for.
    pub log: Log,
    /// How much of it it has applied.
    pub committed: u8,
    /// Its lease, as it sees it.
    pub lease: Lease,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The latest epoch that the control plane has installed.
    pub latest: u8,
    /// By epoch; epoch 0 is nobody's.
    pub epochs: [Epoch; EPOCHS_MAX + 1],
    /// The servers.
    pub servers: [Server; SERVERS],
    /// Who holds a lease, as the control plane sees it.
    pub leased: Servers,
    /// To whom an answer that grants a lease is under way.
    pub granted: Servers,
    /// What clients may have been told is done: the longest order that any server has committed.
    pub told: Log,
    /// The epoch in which the last of that was committed.
    pub told_in: u8,
    /// How many servers have lost their memory.
    pub crashes: u8,
    /// How many leases have lapsed.
    pub lapses: u8,
}

impl State {
    /// All servers serve in epoch 1 and hold leases; nothing is written.
    pub fn first() -> Self {
        let all = Servers((1 << SERVERS) - 1);
        let mut epochs = [Epoch::default(); EPOCHS_MAX + 1];
        let view = View { members: all, joining: Servers(0), leader: 0 };
        epochs[1] = Epoch { view, reported: all, order: Some(Log::default()), ..Epoch::default() };
        let server = Server { epoch: 1, installed: true, lease: Lease::Counts, ..Server::default() };
        Self {
            latest: 1,
            epochs,
            servers: [server; SERVERS],
            leased: all,
            granted: Servers(0),
            told: Log::default(),
            told_in: 1,
            crashes: 0,
            lapses: 0,
        }
    }

    /// Forgets what was said in epochs that nobody is in and nobody comes to any more, so that states that differ in
    /// nothing else are one.
    pub(crate) fn forget_the_past(&mut self) {
        for epoch in 1..self.latest {
            if !self.servers.iter().any(|server| server.epoch == epoch) {
                *self.epoch_mut(epoch) = Epoch::default();
            }
        }
    }

    /// What was said in an epoch.
    pub fn epoch(&self, epoch: u8) -> &Epoch {
        &self.epochs[usize::from(epoch)]
    }

    pub(crate) fn epoch_mut(&mut self, epoch: u8) -> &mut Epoch {
        &mut self.epochs[usize::from(epoch)]
    }

    /// The view that a server acts on.
    pub fn view_of(&self, server: usize) -> View {
        self.epoch(self.servers[server].epoch).view
    }
}
