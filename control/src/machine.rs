//! The state machine of the embedded backend. Pure: the same commands at the same times give the same answers, so a log
//! of `(time, command)` can be replicated and replayed.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use star_core::{ids::Incarnation, time::Time};

use crate::plane::{Acquired, CasOutcome, Lease, Renewed, Revision, Versioned, check_name, check_ttl, check_value};

/// The most documents, and the most leases, that a machine keeps; more are refused, so its memory is bounded.
pub const ENTRIES_MAX: usize = 4096;

/// What a machine can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// See [`crate::ControlPlane::get`].
    Get {
        /// The document.
        key: String,
    },
    /// See [`crate::ControlPlane::compare_and_set`].
    CompareAndSet {
        /// The document.
        key: String,
        /// The revision it must have; 0: it must not exist.
        expected: Revision,
        /// What it is to hold.
        value: Bytes,
        /// The leases that must not be held.
        unleased: Vec<String>,
    },
    /// See [`crate::ControlPlane::acquire`].
    Acquire {
        /// The lease.
        name: String,
        /// Who wants it.
        holder: Incarnation,
        /// For how long.
        ttl: Duration,
    },
    /// See [`crate::ControlPlane::renew`].
    Renew {
        /// The lease.
        name: String,
        /// Who has it.
        holder: Incarnation,
        /// For how long, from now.
        ttl: Duration,
    },
    /// See [`crate::ControlPlane::release`].
    Release {
        /// The lease.
        name: String,
        /// Who gives it back.
        holder: Incarnation,
    },
    /// See [`crate::ControlPlane::leases`].
    Leases,
}

/// What a machine answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Command::Get`].
    Document(Option<Versioned>),
    /// To [`Command::CompareAndSet`].
    Set(CasOutcome),
    /// To [`Command::Acquire`].
    Acquired(Acquired),
    /// To [`Command::Renew`].
    Renewed(Renewed),
    /// To [`Command::Release`].
    Released,
    /// To [`Command::Leases`].
    Leases(Vec<Lease>),
    /// The command breaks a rule; the sentence says which one.
    Refused(String),
    /// The host has too much under way; try again.
    Busy,
}

/// Documents under revisions, and leases that run out by the time that comes with the commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Never goes backwards, whatever comes in.
    now: Time,
    ttl_max: Duration,
    /// Until then, leases may run that this machine does not know of, given by one that lost its memory.
    grace_until: Time,
    /// Nothing is ever taken out, so a revision is never used twice.
    documents: BTreeMap<String, Versioned>,
    /// Only leases that run at `now`.
    leases: BTreeMap<String, Held>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    holder: Incarnation,
    /// Held before this instant, free at it.
    until: Time,
}

impl Machine {
    /// An empty machine that starts at `now` and gives leases of at most `ttl_max`.
    ///
    /// It may stand in for an earlier one whose memory is lost. So for the first `ttl_max` it takes every lease that it
    /// does not know for held where that matters: in a compare-and-set that demands a free lease.
    pub fn new(now: Time, ttl_max: Duration) -> Self {
        Self { now, ttl_max, grace_until: now + ttl_max, documents: BTreeMap::new(), leases: BTreeMap::new() }
    }

    /// Takes one command. A `now` before an earlier one counts as that one.
    pub fn apply(&mut self, now: Time, command: Command) -> Answer {
        self.now = self.now.max(now);
        self.leases.retain(|_, held| held.until > self.now);
        match self.answer(command) {
            Ok(answer) => answer,
            Err(why) => Answer::Refused(why),
        }
    }

    fn answer(&mut self, command: Command) -> Result<Answer, String> {
        Ok(match command {
            Command::Get { key } => Answer::Document(self.documents.get(&key).cloned()),
            Command::CompareAndSet { key, expected, value, unleased } => {
                check_name(&key)?;
                check_value(&value)?;
                Answer::Set(self.compare_and_set(key, expected, &value, unleased)?)
            }
            Command::Acquire { name, holder, ttl } => {
                check_name(&name)?;
                check_ttl(ttl, self.ttl_max)?;
                Answer::Acquired(self.acquire(name, holder, ttl)?)
            }
            Command::Renew { name, holder, ttl } => {
                check_ttl(ttl, self.ttl_max)?;
                Answer::Renewed(self.renew(&name, holder, ttl))
            }
            Command::Release { name, holder } => {
                if self.leases.get(&name).is_some_and(|held| held.holder == holder) {
                    self.leases.remove(&name);
                }
                Answer::Released
            }
            Command::Leases => Answer::Leases(self.leases()),
        })
    }

    fn compare_and_set(
        &mut self,
        key: String,
        expected: Revision,
        value: &[u8],
        unleased: Vec<String>,
    ) -> Result<CasOutcome, String> {
        let found = self.documents.get(&key).map_or(Revision::ABSENT, |document| document.revision);
        if found != expected {
            return Ok(CasOutcome::Conflict);
        }
        let in_grace = self.now < self.grace_until;
        if let Some(name) = unleased.into_iter().find(|name| in_grace || self.leases.contains_key(name)) {
            return Ok(CasOutcome::Leased(name));
        }
        if found == Revision::ABSENT && self.documents.len() >= ENTRIES_MAX {
            return Err(format!("there are {ENTRIES_MAX} documents already, and no room for {key:?}"));
        }
        // Copied, because the bytes that came in may be a small part of a large buffer.
        let value = Bytes::copy_from_slice(value);
        self.documents.insert(key, Versioned { revision: found.next(), value });
        Ok(CasOutcome::Done(found.next()))
    }

    fn acquire(&mut self, name: String, holder: Incarnation, ttl: Duration) -> Result<Acquired, String> {
        match self.leases.get(&name) {
            Some(held) if held.holder != holder => {
                return Ok(Acquired::Refused { holder: held.holder, remaining: held.until.since(self.now) });
            }
            None if self.leases.len() >= ENTRIES_MAX => {
                return Err(format!("{ENTRIES_MAX} leases are held already, and there is no room for {name:?}"));
            }
            _ => {}
        }
        // Never cut short: an older answer may have promised more.
        let until = self.leases.get(&name).map_or(Time::ZERO, |held| held.until).max(self.now + ttl);
        self.leases.insert(name, Held { holder, until });
        Ok(Acquired::Held)
    }

    fn renew(&mut self, name: &str, holder: Incarnation, ttl: Duration) -> Renewed {
        match self.leases.get_mut(name) {
            Some(held) if held.holder == holder => {
                held.until = held.until.max(self.now + ttl);
                Renewed::Held
            }
            _ => Renewed::Lost,
        }
    }

    fn leases(&self) -> Vec<Lease> {
        let lease = |(name, held): (&String, &Held)| Lease {
            name: name.clone(),
            holder: held.holder,
            remaining: held.until.since(self.now),
        };
        self.leases.iter().map(lease).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_millis(600);
    const A: Incarnation = Incarnation(1);
    const B: Incarnation = Incarnation(2);

    fn at(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    /// A machine whose time of grace is over at 600 ms.
    fn machine() -> Machine {
        Machine::new(Time::ZERO, TTL)
    }

    fn set(machine: &mut Machine, now: Time, expected: u64, unleased: &[&str]) -> Answer {
        let unleased = unleased.iter().map(ToString::to_string).collect();
        let value = Bytes::from_static(b"v");
        machine.apply(now, Command::CompareAndSet { key: "k".into(), expected: Revision(expected), value, unleased })
    }

    fn acquire(machine: &mut Machine, now: Time, holder: Incarnation) -> Answer {
        machine.apply(now, Command::Acquire { name: "s".into(), holder, ttl: TTL })
    }

    fn renew(machine: &mut Machine, now: Time, holder: Incarnation) -> Answer {
        machine.apply(now, Command::Renew { name: "s".into(), holder, ttl: TTL })
    }

    #[test]
    fn revisions_count_up_and_a_wrong_one_is_a_conflict() {
        let mut machine = machine();
        assert_eq!(machine.apply(at(0), Command::Get { key: "k".into() }), Answer::Document(None));
        assert_eq!(set(&mut machine, at(0), 1, &[]), Answer::Set(CasOutcome::Conflict));
        assert_eq!(set(&mut machine, at(0), 0, &[]), Answer::Set(CasOutcome::Done(Revision(1))));
        assert_eq!(set(&mut machine, at(0), 0, &[]), Answer::Set(CasOutcome::Conflict));
        assert_eq!(set(&mut machine, at(0), 1, &[]), Answer::Set(CasOutcome::Done(Revision(2))));
    }

    #[test]
    fn a_lease_has_one_holder_and_runs_out_to_the_nanosecond() {
        let mut machine = machine();
        assert_eq!(acquire(&mut machine, at(0), A), Answer::Acquired(Acquired::Held));
        let refused = Answer::Acquired(Acquired::Refused { holder: A, remaining: Duration::from_millis(500) });
        assert_eq!(acquire(&mut machine, at(100), B), refused);
        assert_eq!(renew(&mut machine, at(400), A), Answer::Renewed(Renewed::Held));
        assert_eq!(renew(&mut machine, at(999), B), Answer::Renewed(Renewed::Lost));
        assert!(matches!(acquire(&mut machine, Time(at(1000).0 - 1), B), Answer::Acquired(Acquired::Refused { .. })));
        assert_eq!(acquire(&mut machine, at(1000), B), Answer::Acquired(Acquired::Held));
    }

    #[test]
    fn a_lease_that_ran_out_is_acquired_again_but_never_renewed() {
        let mut machine = machine();
        acquire(&mut machine, at(0), A);
        assert_eq!(renew(&mut machine, at(600), A), Answer::Renewed(Renewed::Lost));
        assert_eq!(acquire(&mut machine, at(600), A), Answer::Acquired(Acquired::Held));
        assert_eq!(renew(&mut machine, at(700), A), Answer::Renewed(Renewed::Held));
    }

    #[test]
    fn a_shorter_renewal_does_not_cut_a_lease_short() {
        let mut machine = machine();
        acquire(&mut machine, at(0), A);
        let short = Duration::from_millis(10);
        machine.apply(at(100), Command::Renew { name: "s".into(), holder: A, ttl: short });
        machine.apply(at(100), Command::Acquire { name: "s".into(), holder: A, ttl: short });
        assert!(matches!(acquire(&mut machine, at(599), B), Answer::Acquired(Acquired::Refused { .. })));
    }

    #[test]
    fn release_frees_at_once_but_only_ones_own() {
        let mut machine = machine();
        acquire(&mut machine, at(0), A);
        machine.apply(at(1), Command::Release { name: "s".into(), holder: B });
        assert!(matches!(acquire(&mut machine, at(2), B), Answer::Acquired(Acquired::Refused { .. })));
        machine.apply(at(3), Command::Release { name: "s".into(), holder: A });
        assert_eq!(acquire(&mut machine, at(3), B), Answer::Acquired(Acquired::Held));
    }

    #[test]
    fn a_write_waits_for_the_leases_it_names() {
        let mut machine = machine();
        acquire(&mut machine, at(300), A);
        assert_eq!(set(&mut machine, at(700), 0, &["other", "s"]), Answer::Set(CasOutcome::Leased("s".into())));
        assert_eq!(set(&mut machine, at(700), 3, &["s"]), Answer::Set(CasOutcome::Conflict));
        assert_eq!(set(&mut machine, at(899), 0, &["s"]), Answer::Set(CasOutcome::Leased("s".into())));
        assert_eq!(set(&mut machine, at(900), 0, &["s"]), Answer::Set(CasOutcome::Done(Revision(1))));
    }

    #[test]
    fn nobody_counts_as_unleased_until_the_longest_lease_has_run_out_after_a_start() {
        let mut machine = Machine::new(at(5000), TTL);
        assert_eq!(set(&mut machine, at(5000), 0, &[]), Answer::Set(CasOutcome::Done(Revision(1))));
        assert_eq!(set(&mut machine, at(5599), 1, &["s"]), Answer::Set(CasOutcome::Leased("s".into())));
        assert_eq!(set(&mut machine, at(5600), 1, &["s"]), Answer::Set(CasOutcome::Done(Revision(2))));
    }

    #[test]
    fn time_that_goes_backwards_revives_nothing() {
        let mut machine = machine();
        acquire(&mut machine, at(0), A);
        assert_eq!(renew(&mut machine, at(700), A), Answer::Renewed(Renewed::Lost));
        assert_eq!(renew(&mut machine, at(100), A), Answer::Renewed(Renewed::Lost));
        assert_eq!(machine.apply(at(100), Command::Leases), Answer::Leases(vec![]));
    }

    #[test]
    fn what_breaks_a_limit_is_refused_and_changes_nothing() {
        let mut machine = machine();
        let too_long = TTL + Duration::from_nanos(1);
        for command in [
            Command::Acquire { name: "s".into(), holder: A, ttl: too_long },
            Command::Acquire { name: "s".into(), holder: A, ttl: Duration::ZERO },
            Command::Acquire { name: String::new(), holder: A, ttl: TTL },
            Command::CompareAndSet {
                key: "k".into(),
                expected: Revision(0),
                value: Bytes::from(vec![0; crate::plane::VALUE_BYTES_MAX + 1]),
                unleased: vec![],
            },
        ] {
            assert!(matches!(machine.apply(at(0), command), Answer::Refused(_)));
        }
        for number in 0..ENTRIES_MAX {
            let name = number.to_string();
            machine.apply(at(0), Command::Acquire { name, holder: A, ttl: TTL });
        }
        assert!(matches!(acquire(&mut machine, at(0), A), Answer::Refused(_)));
        assert_eq!(acquire(&mut machine, at(600), A), Answer::Acquired(Acquired::Held));
    }
}
