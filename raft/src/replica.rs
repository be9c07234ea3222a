//! The replicated machine and its time. Pure: the member's own clock is an argument, and the machine never sees it.
//!
//! The plane's time is carried by the log, for members' clocks have nothing in common. A member reads it as "the time of
//! an entry that I applied, and as long as has passed on my clock since I did". `DESIGN/raft.md` shows that no lease ends
//! early by it; the rules of [`Replica::apply`] and [`Replica::settle`] are what that rests on.

use std::{collections::BTreeSet, time::Duration};

use openraft::EntryPayload;
use serde::{Deserialize, Serialize};
use star_control::{
    CasOutcome, Machine,
    machine::{Answer, Command},
};
use star_core::Time;

use crate::{
    image::Image,
    types::{Entry, LogId, Membership, Stamp},
};

/// A machine, how far in the log it is, and what the plane's time was there.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    ttl_max: Duration,
    machine: Machine,
    /// The documents that the machine holds.
    keys: BTreeSet<String>,
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
    image: Image,
    applied: Option<LogId>,
    membership: Membership,
}

impl Replica {
    /// A replica of a plane that knows nothing. Its time is 0 at the first entry.
    pub(crate) fn new(ttl_max: Duration, own_now: Time) -> Self {
        Self {
            ttl_max,
            machine: Machine::new(Time::ZERO, ttl_max),
            keys: BTreeSet::new(),
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
    /// have none.
    pub(crate) fn apply(&mut self, own_now: Time, entry: Entry) -> Option<Answer> {
        let reign = entry.log_id.leader_id;
        let is_new_reign = self.applied.is_none_or(|applied| applied.leader_id != reign);
        self.applied = Some(entry.log_id);
        let answer = match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Membership(membership) => {
                self.membership = Membership::new(Some(entry.log_id), membership);
                None
            }
            EntryPayload::Normal(proposal) => {
                // A stamp counts only under the reign in which it was read: then its reader was the one leader, and had
                // applied all that earlier leaders decided.
                if proposal.stamp.reign == Some(reign) {
                    self.time = self.time.max(proposal.stamp.at);
                }
                Some(self.command(proposal.command))
            }
        };
        self.settle(own_now, is_new_reign);
        answer
    }

    /// From where the plane's time is read on, now that an entry is applied.
    ///
    /// When another reign begins all members have only the log to go by: whoever leads may have guessed ahead of what
    /// others decided meanwhile, so it starts from the log's time. Within a reign its leader reads one clock from beginning
    /// to end, or the time that entries take to be committed would be lost with each of them; only one that
    /// started anew has to catch up with what it wrote before.
    fn settle(&mut self, own_now: Time, is_new_reign: bool) {
        if is_new_reign || self.time > self.reading(own_now) {
            self.since = (self.time, own_now);
        }
    }

    fn command(&mut self, command: Command) -> Answer {
        let key = match &command {
            Command::CompareAndSet { key, .. } => Some(key.clone()),
            _ => None,
        };
        let answer = self.machine.apply(self.time, command);
        if matches!(answer, Answer::Set(CasOutcome::Done(_))) {
            self.keys.extend(key);
        }
        answer
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
    pub(crate) fn content(&mut self) -> Content {
        let image = Image::take(&mut self.machine, self.time, &self.keys);
        Content { image, applied: self.applied, membership: self.membership.clone() }
    }

    /// Becomes what a snapshot holds, or stays as it is if that cannot be.
    pub(crate) fn restore(&mut self, own_now: Time, content: &Content) -> Result<(), String> {
        let machine = content.image.restore(self.ttl_max)?;
        *self = Self {
            ttl_max: self.ttl_max,
            machine,
            keys: content.image.keys(),
            time: content.image.now(),
            since: (content.image.now(), own_now),
            applied: content.applied,
            membership: content.membership.clone(),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
