//! A machine as a snapshot holds it, taken and restored through the machine's own commands. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use star_control::{
    CasOutcome, Machine, Revision, Versioned,
    machine::{Answer, Command},
};
use star_core::{Incarnation, Time};

/// The shortest lease that a machine gives.
const TTL_MIN: Duration = Duration::from_millis(1);

/// All that a machine knows, and the time at which it knew it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    now: Time,
    documents: BTreeMap<String, Versioned>,
    leases: Vec<Held>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    name: String,
    holder: Incarnation,
    until: Time,
}

impl Image {
    /// What `machine` knows, whose time is `now` and whose documents have these keys. Changes nothing in it.
    pub(crate) fn take(machine: &mut Machine, now: Time, keys: &BTreeSet<String>) -> Self {
        let mut documents = BTreeMap::new();
        for key in keys {
            if let Answer::Document(Some(document)) = machine.apply(now, Command::Get { key: key.clone() }) {
                documents.insert(key.clone(), document);
            }
        }
        let leases = match machine.apply(now, Command::Leases) {
            Answer::Leases(leases) => leases,
            _ => Vec::new(),
        };
        let held =
            |lease: star_control::Lease| Held { name: lease.name, holder: lease.holder, until: now + lease.remaining };
        Self { now, documents, leases: leases.into_iter().map(held).collect() }
    }

    /// The machine's time.
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// The keys of its documents.
    pub(crate) fn keys(&self) -> BTreeSet<String> {
        self.documents.keys().cloned().collect()
    }

    /// A machine that answers everything as the one that the image was taken of. Both give leases of at most `ttl_max`.
    ///
    /// A revision can only be reached by counting up to it, which takes some 100 ns for each; a lease is acquired at an
    /// instant at which the machine allows it, and which gives the same end.
    pub(crate) fn restore(&self, ttl_max: Duration) -> Result<Machine, String> {
        let mut machine = Machine::new(Time::ZERO, ttl_max);
        for (key, document) in &self.documents {
            for revision in 0..document.revision.0 {
                let is_last = revision + 1 == document.revision.0;
                let value = if is_last { document.value.clone() } else { Bytes::new() };
                let expected = Revision(revision);
                let command = Command::CompareAndSet { key: key.clone(), expected, value, unleased: Vec::new() };
                expect(&machine.apply(Time::ZERO, command), &Answer::Set(CasOutcome::Done(expected.next())))?;
            }
        }
        let mut leases: Vec<_> = self.leases.iter().map(|held| (self.now.min(held.until - TTL_MIN), held)).collect();
        leases.sort_by_key(|(acquired, _)| *acquired);
        for (acquired, Held { name, holder, until }) in leases {
            let command = Command::Acquire { name: name.clone(), holder: *holder, ttl: until.since(acquired) };
            expect(&machine.apply(acquired, command), &Answer::Acquired(star_control::Acquired::Held))?;
        }
        machine.apply(self.now, Command::Leases);
        Ok(machine)
    }
}

fn expect(answer: &Answer, wanted: &Answer) -> Result<(), String> {
    if answer == wanted { Ok(()) } else { Err(format!("the snapshot cannot be restored: {answer:?}")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL_MAX: Duration = Duration::from_millis(600);

    fn command() -> impl Strategy<Value = Command> {
        let name = (0..4_u8).prop_map(|name| name.to_string());
        let holder = (1..3_u64).prop_map(Incarnation);
        let ttl = (1..=600_u64).prop_map(Duration::from_millis);
        prop_oneof![
            (name.clone(), 0..4_u64, any::<Option<u8>>()).prop_map(|(key, expected, unleased)| {
                Command::CompareAndSet {
                    key,
                    expected: Revision(expected),
                    value: Bytes::from(expected.to_string()),
                    unleased: unleased.map(|name| (name % 4).to_string()).into_iter().collect(),
                }
            }),
            (name.clone(), holder.clone(), ttl.clone()).prop_map(|(name, holder, ttl)| Command::Acquire {
                name,
                holder,
                ttl
            }),
            (name.clone(), holder.clone(), ttl).prop_map(|(name, holder, ttl)| Command::Renew { name, holder, ttl }),
            (name, holder).prop_map(|(name, holder)| Command::Release { name, holder }),
            Just(Command::Leases),
        ]
    }

    fn history() -> impl Strategy<Value = Vec<(u64, Command)>> {
        proptest::collection::vec((0..200_000_000_u64, command()), 0..60)
    }

    proptest! {
        #[test]
        fn a_restored_machine_goes_on_like_the_one_it_was_taken_of(before in history(), after in history()) {
            let (mut machine, mut now) = (Machine::new(Time::ZERO, TTL_MAX), Time::ZERO);
            for (step, command) in before {
                now = now + Duration::from_nanos(step);
                machine.apply(now, command);
            }
            let keys = (0..4_u8).map(|key| key.to_string()).collect();
            let image = Image::take(&mut machine, now, &keys);
            let mut restored = image.restore(TTL_MAX).expect("a machine");
            prop_assert_eq!(Image::take(&mut restored, now, &keys), image);
            for (step, command) in after {
                now = now + Duration::from_nanos(step);
                prop_assert_eq!(machine.apply(now, command.clone()), restored.apply(now, command));
            }
        }
    }

    #[test]
    fn an_image_that_breaks_a_limit_is_refused() {
        let held = Held { name: "s".into(), holder: Incarnation(1), until: Time::ZERO + TTL_MAX * 3 };
        let image = Image { now: Time::ZERO, documents: BTreeMap::new(), leases: vec![held] };
        assert!(image.restore(TTL_MAX).is_err());
    }
}
