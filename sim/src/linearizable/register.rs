//! What one key does when one operation comes after another: the specification that both checkers share in meaning.

use crate::history::{History, Name, Op, Outcome};

/// What an operation did or saw, if anybody can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Made `value` the object, under `expected` (0: no object) if there was a condition. `version` is unknown where
    /// the client had no answer.
    Wrote { value: Name, version: Option<u64>, expected: Option<u64> },
    /// Removed an object of version `version` or lower.
    Deleted { version: Option<u64>, expected: Option<u64> },
    /// Saw this object.
    SawValue { value: Name, version: u64 },
    /// Saw that the object has this version.
    SawVersion { version: u64 },
    /// Saw that there is no object.
    SawNothing,
    /// Was told what cannot be: a conflict with the very version that was wanted.
    Absurd,
}

/// An operation as the checkers see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    /// Its index in the history.
    pub(crate) index: usize,
    pub(crate) event: Event,
    pub(crate) call: u64,
    /// `u64::MAX` where the outcome is unknown: it may be left out.
    pub(crate) ret: u64,
}

impl Event {
    /// The highest version that the key may have had before it, if it says so.
    pub(crate) fn version(self) -> Option<u64> {
        match self {
            Self::Wrote { version, .. } | Self::Deleted { version, .. } => version,
            Self::SawValue { version, .. } | Self::SawVersion { version } => Some(version),
            Self::SawNothing | Self::Absurd => None,
        }
    }
}

impl Item {
    pub(crate) fn is_pending(&self) -> bool {
        self.ret == u64::MAX
    }
}

/// The operations of one key that say anything, in the order of their calls.
pub(crate) fn items(history: &History, group: &[usize]) -> Vec<Item> {
    let item = |&index: &usize| {
        let operation = &history.operations()[index];
        let event = event(operation)?;
        let ret = match operation.outcome {
            Outcome::Unknown => u64::MAX,
            // A time of u64::MAX is 584 years from the clock's start: nobody returns that late.
            outcome => outcome.ret()?.min(u64::MAX - 1),
        };
        Some(Item { index, event, call: operation.call, ret })
    };
    let mut items: Vec<Item> = group.iter().filter_map(item).collect();
    items.sort_by_key(|item| item.call);
    items
}

fn event(operation: &crate::history::Operation) -> Option<Event> {
    let expected = operation.if_version.map(|version| version.0);
    let event = match (operation.op, operation.outcome) {
        (_, Outcome::Refused { .. }) | (Op::Read, Outcome::Unknown) => return None,
        (_, Outcome::Conflict { met, .. }) if Some(met.0) == expected => Event::Absurd,
        (_, Outcome::Conflict { met, .. }) if met.0 == 0 => Event::SawNothing,
        (_, Outcome::Conflict { met, .. }) => Event::SawVersion { version: met.0 },
        (Op::Read, Outcome::Done { version, .. }) => match (version, operation.value) {
            (Some(version), Some(value)) => Event::SawValue { value, version: version.0 },
            _ => Event::SawNothing,
        },
        (Op::Write | Op::CompareAndSet, Outcome::Unknown) => {
            Event::Wrote { value: operation.value?, version: None, expected }
        }
        (Op::Write | Op::CompareAndSet, Outcome::Done { version, .. }) => {
            Event::Wrote { value: operation.value?, version: version.map(|version| version.0), expected }
        }
        (Op::Delete, Outcome::Unknown) => Event::Deleted { version: None, expected },
        (Op::Delete, Outcome::Done { version: None, .. }) => Event::SawNothing,
        (Op::Delete, Outcome::Done { version: Some(version), .. }) => {
            Event::Deleted { version: Some(version.0), expected }
        }
    };
    Some(event)
}

/// A key between two operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// The object's value; `None` for no object.
    pub(crate) value: Option<Name>,
    /// The object's version, or the highest version so far where there is no object.
    pub(crate) version: u64,
    /// False if `version` is only the least that it can be: a write whose client had no answer made it.
    pub(crate) exact: bool,
}

impl State {
    /// Before anything was written.
    pub(crate) const NEW: Self = Self { value: None, version: 0, exact: true };

    /// The state after `event`, or `None` if it cannot come next.
    pub(crate) fn after(self, event: Event) -> Option<Self> {
        match event {
            Event::Wrote { value, version, expected } => {
                let base = self.meets(expected)?;
                if version.is_some_and(|version| version <= base) {
                    return None;
                }
                let exact = version.is_some();
                Some(Self { value: Some(value), version: version.unwrap_or(base + 1), exact })
            }
            Event::Deleted { version, expected } => {
                self.value?;
                let base = self.meets(expected)?;
                let version = version.unwrap_or(base);
                (version >= base).then_some(Self { value: None, version, exact: true })
            }
            Event::SawValue { value, version } => (self.value == Some(value)).then_some(self)?.bind(version),
            Event::SawVersion { version } => self.bind(version),
            Event::SawNothing => self.value.is_none().then_some(self),
            Event::Absurd => None,
        }
    }

    /// The version that a write goes on from, if the condition holds or there is none.
    fn meets(self, expected: Option<u64>) -> Option<u64> {
        match expected {
            None => Some(self.version),
            Some(0) => self.value.is_none().then_some(self.version),
            Some(version) => self.bind(version).map(|state| state.version),
        }
    }

    /// The same state, once it is known that its object has this version.
    fn bind(self, version: u64) -> Option<Self> {
        self.value?;
        let fits = if self.exact { version == self.version } else { version >= self.version };
        fits.then_some(Self { version, exact: true, ..self })
    }
}
