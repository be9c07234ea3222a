//! The links between servers: one for each direction, each in order, with delays of their own.

use star_core::ids::ServerId;

use crate::random::Random;

/// All links.
#[derive(Debug)]
pub(crate) struct Network {
    servers: usize,
    links: Vec<Link>,
    random: Random,
    delay: (u64, u64),
    loss: u64,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
}

/// One direction between two servers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    /// How many faults keep it cut.
    cuts: u32,
    /// Whether the sender has been told that it is up, and not cut since.
    open: bool,
    /// Grows with every cut: what was sent in an older generation never arrives.
    pub(crate) generation: u64,
    /// When the last message arrives; later ones do not overtake it.
    busy_until: u64,
    /// What is added to the delay.
    slow_by: u64,
}

impl Network {
    pub(crate) fn new(servers: u16, delay: (u64, u64), loss: u64, random: Random) -> Self {
        let servers = usize::from(servers);
        Self { servers, links: vec![Link::default(); servers * servers], random, delay, loss, sent: 0, lost: 0 }
    }

    pub(crate) fn link(&mut self, from: ServerId, to: ServerId) -> &mut Link {
        &mut self.links[usize::from(from.0) * self.servers + usize::from(to.0)]
    }

    /// When a message sent now arrives, and in which generation of its link; `None` if it is lost.
    pub(crate) fn send(&mut self, now: u64, from: ServerId, to: ServerId) -> Option<(u64, u64)> {
        self.sent += 1;
        let (low, high) = self.delay;
        let delay = self.random.between(low, high.max(low));
        let lost = self.loss > 0 && self.random.chance(self.loss);
        let link = self.link(from, to);
        if !link.open || lost {
            self.lost += 1;
            return None;
        }
        link.busy_until = (now + delay + link.slow_by).max(link.busy_until);
        Some((link.busy_until, link.generation))
    }

    /// How long a message between a client, or the control plane, and a server is under way.
    pub(crate) fn other_delay(&mut self) -> u64 {
        self.random.between(self.delay.0, self.delay.1.max(self.delay.0))
    }

    /// Whether a message between a server and the control plane is lost.
    pub(crate) fn loses(&mut self) -> bool {
        self.loss > 0 && self.random.chance(self.loss)
    }

    /// Cuts a link; true if it was not cut before.
    pub(crate) fn cut(&mut self, from: ServerId, to: ServerId) -> bool {
        let link = self.link(from, to);
        link.cuts += 1;
        if link.cuts == 1 {
            link.generation += 1;
            link.open = false;
        }
        link.cuts == 1
    }

    /// Takes one cut back; true if the link can go up.
    pub(crate) fn mend(&mut self, from: ServerId, to: ServerId) -> bool {
        let link = self.link(from, to);
        link.cuts -= 1;
        link.cuts == 0
    }

    /// The sender is told that the link is up; false if it was cut again meanwhile.
    pub(crate) fn open(&mut self, from: ServerId, to: ServerId, generation: u64) -> bool {
        let link = self.link(from, to);
        let whole = link.cuts == 0 && link.generation == generation;
        link.open |= whole;
        whole
    }

    pub(crate) fn slow_by(&mut self, from: ServerId, to: ServerId, slow_by: u64) {
        self.link(from, to).slow_by = slow_by;
    }

    pub(crate) fn lose_nothing(&mut self) {
        self.loss = 0;
    }

    /// Breaks all links of a server that is gone: what is under way from or to it never arrives.
    pub(crate) fn forget(&mut self, server: ServerId) {
        for other in 0..self.servers as u16 {
            for (from, to) in [(server, ServerId(other)), (ServerId(other), server)] {
                let link = self.link(from, to);
                link.generation += 1;
                link.open = false;
            }
        }
    }

    /// Whether the link could carry messages once its sender knows.
    pub(crate) fn is_whole(&mut self, from: ServerId, to: ServerId) -> bool {
        self.link(from, to).cuts == 0
    }
}
