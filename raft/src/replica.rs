//! The replicated machine and its time. Pure: the member's own clock is an argument, and the machine never sees it.
//!
//! The plane's time is carried by the log, for members' clocks have nothing in common. A member reads it as "the time of
//! the last entry that I applied, and as long as has passed on my clock since I did". `DESIGN/raft.md` shows that no
//! lease ends early by it; the two rules of [`Replica::apply`] are what that rests on.

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
    /// When that entry was applied, on this member's own clock.
    applied_at: Time,
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
    /// A replica of a plane that knows nothing: its time is 0 and stands still until the first command.
    pub(crate) fn new(ttl_max: Duration, own_now: Time) -> Self {
        Self {
            ttl_max,
            machine: Machine::new(Time::ZERO, ttl_max),
            keys: BTreeSet::new(),
            time: Time::ZERO,
            applied_at: own_now,
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
        Stamp { reign: self.applied.map(|applied| applied.leader_id), at: self.time + own_now.since(self.applied_at) }
    }

    /// Applies a committed entry. The answer is that of its command; blank entries and those that change the members
    /// have none.
    pub(crate) fn apply(&mut self, own_now: Time, entry: Entry) -> Option<Answer> {
        let reign = entry.log_id.leader_id;
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
        // Whatever the entry was: until here the plane's time is known, and only from here on it is this member's guess.
        self.applied_at = own_now;
        answer
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
            applied_at: own_now,
            applied: content.applied,
            membership: content.membership.clone(),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
