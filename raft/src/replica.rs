//! The replicated machine and its time. Pure: the member's own clock is an argument, and the machine never sees it.
//!
//! The plane's time is carried by the log, for members' clocks have nothing in common. A member reads it as "the time of
//! an entry that I applied, and as long as has passed on my clock since I did". `DESIGN/raft.md` shows that no lease ends
//! early by it; the rules of [`Replica::apply`] and [`Replica::advance`] are what that rests on.

use std::time::Duration;

use openraft::EntryPayload;
use serde::{Deserialize, Serialize};
use star_control::{
    Machine,
    machine::{Answer, Command},
};
use star_core::Time;

use crate::types::{Entry, LogId, Membership, Proposal, Reign, Stamp, StoreId};

/// A machine, how far in the log it is, and what the plane's time was there.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    me: StoreId,
    machine: Machine,
    /// The plane's time: that of the last entry applied. Never goes back.
    time: Time,
    /// The plane's time and this member's own at one and the same instant, from which the plane's time is read on.
    since: (Time, Time),
    applied: Option<LogId>,
    membership: Membership,
}

/// What a snapshot holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Content {
    machine: Machine,
    time: Time,
    applied: Option<LogId>,
    membership: Membership,
}

impl Replica {
    /// A replica of a plane that knows nothing. Its time is 0 at the first entry.
    pub(crate) fn new(me: StoreId, ttl_max: Duration, own_now: Time) -> Self {
        Self {
            me,
            machine: Machine::new(Time::ZERO, ttl_max),
            time: Time::ZERO,
            since: (Time::ZERO, own_now),
            applied: None,
            membership: Membership::default(),
        }
    }

    /// The last entry applied.
    pub(crate) fn applied(&self) -> Option<LogId> {
        self.applied
    }

    /// The members, as of the last entry applied.
    pub(crate) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The plane's time as this member reads it.
    pub(crate) fn stamp(&self, own_now: Time) -> Stamp {
        Stamp { reign: self.applied.map(|applied| applied.leader_id), at: self.reading(own_now) }
    }

    fn reading(&self, own_now: Time) -> Time {
        let (plane, own) = self.since;
        plane + own_now.since(own)
    }

    /// Applies a committed entry. The answer is that of its command; blank entries and those that change the members
    /// have none, nor has one that asks for a lease under a stamp that does not count: it changes nothing.
    pub(crate) fn apply(&mut self, own_now: Time, entry: Entry) -> Option<Answer> {
        self.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Membership(membership) => {
                self.membership = Membership::new(Some(entry.log_id), membership);
                None
            }
            EntryPayload::Normal(Proposal { stamp, command }) => {
                // A stamp counts only under the reign in which it was read: then its reader was the one leader, and had
                // applied all that earlier leaders decided.
                let reign = entry.log_id.leader_id;
                if stamp.reign == Some(reign) {
                    self.advance(own_now, reign, stamp.at);
                } else if matches!(command, Command::Acquire { .. } | Command::Renew { .. }) {
                    // The lease would run from a time that was over when it was asked for.
                    return None;
                }
                Some(self.machine.apply(self.time, command))
            }
        }
    }

    /// The plane's time is now at least `at`, which was read under this reign; and from where it is read on.
    ///
    /// It is read on from what a leader read last, for another leader may know less than this member did. What this member
    /// read itself, it reads on as before: one clock from beginning to end, or the time that entries take to be committed
    /// would be lost with each of them; only if it has started anew since does it have to catch up with itself.
    fn advance(&mut self, own_now: Time, reign: Reign, at: Time) {
        self.time = self.time.max(at);
        if reign.node_id != self.me || self.time > self.reading(own_now) {
            self.since = (self.time, own_now);
        }
    }

    /// Answers a command that only reads, from what is applied; `None` if it has to go through the log: it would change
    /// something, or a lease has run out since, which others may not know yet.
    pub(crate) fn read(&mut self, own_now: Time, command: Command) -> Option<Answer> {
        let since = self.stamp(own_now).at.since(self.time);
        match command {
            Command::Get { .. } => Some(self.machine.apply(self.time, command)),
            Command::Leases => match self.machine.apply(self.time, command) {
                Answer::Leases(leases) if leases.iter().any(|lease| lease.remaining <= since) => None,
                Answer::Leases(mut leases) => {
                    leases.iter_mut().for_each(|lease| lease.remaining -= since);
                    Some(Answer::Leases(leases))
                }
                other => Some(other),
            },
            _ => None,
        }
    }

    /// What a snapshot of this replica holds.
    pub(crate) fn content(&self) -> Content {
        let (machine, membership) = (self.machine.clone(), self.membership.clone());
        Content { machine, time: self.time, applied: self.applied, membership }
    }

    /// The replica of this member that a snapshot holds.
    pub(crate) fn restored(me: StoreId, own_now: Time, content: Content) -> Self {
        let Content { machine, time, applied, membership } = content;
        Self { me, machine, time, since: (time, own_now), applied, membership }
    }
}

#[cfg(test)]
mod tests;
