//! The fast check: the leader gives each write of a key a higher version than the one before, so the versions say in
//! which order the writes came, and nothing has to be searched.
//!
//! All operations of a key get a *position*: a write of version v is at 2v, a delete of version v at 2v + 1, a read at
//! the position of what it saw. The history is linearizable exactly if
//!
//! 1. positions agree with time: what returned before another was called is not behind it, and a write or delete is
//!    ahead of all that;
//! 2. nobody saw a version before the write that made it was called, or with another value;
//! 3. writes and deletes fit one another: one position each, a condition holds for what is right before it, a delete
//!    has an object right before it;
//! 4. a read that saw nothing fits between a delete (or the beginning) and the next write.
//!
//! What it cannot see are writes and deletes of unknown outcome that left no version behind. First it takes them for
//! never done: if all fits, the history is linearizable. If not, it asks whether they could explain it, and says
//! `Undecided` if so. It never calls a linearizable history a violation.

use std::collections::BTreeMap;

use star_core::collections::Map;

use super::{
    Verdict, Violation,
    register::{Event, Item, items},
};
use crate::history::{History, Name};

/// Checks every key by its versions.
pub fn check(history: &History) -> Verdict {
    let mut undecided = None;
    for group in history.by_key() {
        match check_key(history, &group) {
            Verdict::Linearizable => {}
            violation @ Verdict::Violation(_) => return violation,
            open @ Verdict::Undecided { .. } => undecided = undecided.or(Some(open)),
        }
    }
    undecided.unwrap_or(Verdict::Linearizable)
}

/// Checks the operations of one key, given by their indices.
pub fn check_key(history: &History, group: &[usize]) -> Verdict {
    let violation = |(why, operations)| Verdict::Violation(Box::new(Violation::new(history, why, operations)));
    let mut order = match Order::of(items(history, group)) {
        Ok(order) => order,
        Err(fault) => return violation(fault),
    };
    let doubt = match order.check(true) {
        Ok(()) if order.unknown_writers => "a version was seen that no answered write made",
        Ok(()) => return Verdict::Linearizable,
        Err(_) => "it fits only if writes or deletes of unknown outcome were done, if at all",
    };
    match order.check(false) {
        Ok(()) => Verdict::Undecided {
            key: history.key(history.operations()[group[0]].key).to_owned(),
            why: format!("versions alone do not tell: {doubt}"),
        },
        Err(fault) => violation(fault),
    }
}

/// What cannot be, and the operations that show it.
type Fault = (String, Vec<usize>);

/// A write or a delete that took effect, at its place in the order of versions.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// `None` for a write that was seen, but that cannot be told from others of unknown outcome.
    item: Option<Item>,
    value: Option<Name>,
    /// What the condition wanted before it: 0 for no object.
    expected: Option<u64>,
    /// An operation that shows that it took effect.
    shown_by: usize,
}

/// The operations of a key in the order of their versions.
struct Order {
    items: Vec<Item>,
    /// Writes and deletes that took effect, by position.
    changes: BTreeMap<u64, Change>,
    /// Where a stretch without an object begins, and the position of the write that ends it.
    absences: Vec<(u64, u64)>,
    /// Calls of deletes of unknown outcome, in order.
    pending_deletes: Vec<u64>,
    /// Whether there are writes of unknown outcome whose version nobody saw.
    pending_writes: bool,
    /// Whether it is not known which write made some version.
    unknown_writers: bool,
}

fn write_at(version: u64) -> u64 {
    version * 2
}

fn delete_at(version: u64) -> u64 {
    version * 2 + 1
}

impl Order {
    /// Sorts by version, and finds the writes behind versions that were only seen.
    fn of(items: Vec<Item>) -> Result<Self, Fault> {
        let mut order = Self {
            changes: BTreeMap::new(),
            absences: Vec::new(),
            pending_deletes: Vec::new(),
            pending_writes: false,
            unknown_writers: false,
            items,
        };
        let mut pending: Vec<Item> = Vec::new();
        for item in order.items.clone() {
            let (at, value, expected) = match item.event {
                Event::Wrote { version: Some(version), value, expected } => (write_at(version), Some(value), expected),
                Event::Deleted { version: Some(version), expected } => (delete_at(version), None, expected),
                Event::Wrote { version: None, .. } => {
                    pending.push(item);
                    continue;
                }
                Event::Deleted { version: None, .. } => {
                    order.pending_deletes.push(item.call);
                    continue;
                }
                Event::Absurd => {
                    return Err(("a conflict names the very version that was wanted".into(), vec![item.index]));
                }
                _ => continue,
            };
            let change = Change { item: Some(item), value, expected, shown_by: item.index };
            if let Some(other) = order.changes.insert(at, change) {
                return Err(("two changes made the same version".into(), vec![other.shown_by, item.index]));
            }
        }
        order.find_writers(pending)?;
        let mut begins = Some(0);
        for (at, change) in &order.changes {
            match (change.value.is_some() || at % 2 == 0, begins) {
                (true, Some(begin)) => {
                    order.absences.push((begin, *at));
                    begins = None;
                }
                (false, None) => begins = Some(*at),
                _ => {}
            }
        }
        order.absences.extend(begins.map(|begin| (begin, u64::MAX)));
        Ok(order)
    }

    /// Versions that were seen, but that no answered write made, come from writes of unknown outcome.
    fn find_writers(&mut self, pending: Vec<Item>) -> Result<(), Fault> {
        let mut seen: BTreeMap<u64, (Option<Name>, usize)> = BTreeMap::new();
        for item in &self.items {
            let (version, value) = match item.event {
                Event::SawValue { value, version } => (version, Some(value)),
                Event::SawVersion { version }
                | Event::Wrote { expected: Some(version @ 1..), version: Some(_), .. }
                | Event::Deleted { expected: Some(version @ 1..), version: Some(_) } => (version, None),
                _ => continue,
            };
            let written = self.changes.get(&write_at(version));
            let known = written.map(|change| (change.value, change.shown_by));
            let (known_value, shown_by) = *seen.entry(version).or_insert(known.unwrap_or((value, item.index)));
            match (known_value, value) {
                (Some(known), Some(value)) if known != value => {
                    let why = format!("version {version} has two values");
                    return Err((why, vec![shown_by, item.index]));
                }
                (None, Some(_)) => {
                    seen.insert(version, (value, item.index));
                }
                _ => {}
            }
        }
        seen.retain(|version, _| !self.changes.contains_key(&write_at(*version)));
        let mut writers: Map<Name, Vec<Item>> = Map::default();
        let (mut free, wanted) = (pending.len(), seen.len());
        for item in pending {
            if let Event::Wrote { value, .. } = item.event {
                writers.entry(value).or_default().push(item);
            }
        }
        let mut of_value: Map<Name, usize> = Map::default();
        for (value, _) in seen.values() {
            *of_value.entry(value.unwrap_or(Name(u32::MAX))).or_default() += 1;
        }
        for (version, (value, shown_by)) in seen {
            let candidates = value.map_or(free, |value| writers.get(&value).map_or(0, Vec::len));
            let rivals = value.map_or(wanted, |value| of_value[&value]);
            if candidates < rivals {
                let why = format!("version {version} was seen, but no write can have made it");
                return Err((why, vec![shown_by]));
            }
            let certain = value.filter(|_| candidates == 1 && !of_value.contains_key(&Name(u32::MAX)));
            let item = certain.map(|value| writers[&value][0]);
            let expected = match item.map(|item| item.event) {
                Some(Event::Wrote { expected, .. }) => expected,
                _ => None,
            };
            self.unknown_writers |= item.is_none();
            self.changes.insert(write_at(version), Change { item, value, expected, shown_by });
            free -= usize::from(item.is_some() && value.is_some());
        }
        self.pending_writes = free > 0;
        Ok(())
    }

    /// Checks everything. `strict`: as if writes and deletes of unknown outcome that nobody saw were never done.
    fn check(&mut self, strict: bool) -> Result<(), Fault> {
        self.check_changes(strict)?;
        self.check_time(strict)
    }

    /// Rule 3: every change fits the one right before it.
    fn check_changes(&self, strict: bool) -> Result<(), Fault> {
        let mut before: Option<(u64, &Change)> = None;
        for (at, change) in &self.changes {
            let object = before.filter(|(at, _)| at % 2 == 0).map(|(at, _)| at / 2);
            let is_delete = at % 2 == 1;
            let shown = || before.map(|(_, before)| before.shown_by).into_iter().chain([change.shown_by]).collect();
            let fault = match (change.expected, object) {
                (Some(0), Some(found)) if strict || self.pending_deletes.is_empty() => {
                    Some(format!("it was done if there was no object, but version {found} is right before it"))
                }
                (Some(wanted @ 1..), found)
                    if found != Some(wanted) && (strict || !self.may_be_before(wanted, before)) =>
                {
                    Some(format!("it was done if the version was {wanted}, but that is not right before it"))
                }
                (_, None) if is_delete && (strict || !self.pending_writes) => {
                    Some("there was nothing to delete".to_owned())
                }
                _ => None,
            };
            if let Some(why) = fault {
                return Err((why, shown()));
            }
            before = Some((*at, change));
        }
        Ok(())
    }

    /// Whether a write that nobody saw may have made `version` after the change `before`.
    fn may_be_before(&self, version: u64, before: Option<(u64, &Change)>) -> bool {
        self.pending_writes && before.is_none_or(|(at, _)| at < write_at(version))
    }

    /// Rules 1, 2 and 4, in one sweep over the calls and returns in the order of time.
    fn check_time(&self, strict: bool) -> Result<(), Fault> {
        let mut returns: Vec<usize> = (0..self.items.len()).filter(|place| !self.items[*place].is_pending()).collect();
        returns.sort_unstable_by_key(|place| self.items[*place].ret);
        let mut returns = returns.into_iter().peekable();
        let mut seen_at = self.positions_of_pending();
        // The highest position of anything that has returned, and the operation that was there.
        let mut floor: (u64, Option<usize>) = (0, None);
        let mut positions = vec![0; self.items.len()];
        for (place, item) in self.items.iter().enumerate() {
            while let Some(done) = returns.next_if(|done| self.items[*done].ret < item.call) {
                if positions[done] > floor.0 {
                    floor = (positions[done], Some(self.items[done].index));
                }
            }
            let position = self.position(item, floor.0, strict, &mut seen_at);
            positions[place] = position.map_err(|why| (why, floor.1.into_iter().chain([item.index]).collect()))?;
        }
        Ok(())
    }

    /// The positions of writes of unknown outcome that were seen, by their index in the history.
    fn positions_of_pending(&self) -> Map<usize, u64> {
        let pending =
            |(at, change): (&u64, &Change)| change.item.filter(Item::is_pending).map(|item| (item.index, *at));
        self.changes.iter().filter_map(pending).collect()
    }

    /// Where an operation is that was called when `floor` was the highest position that had returned.
    fn position(&self, item: &Item, floor: u64, strict: bool, seen: &mut Map<usize, u64>) -> Result<u64, String> {
        let change = |at: u64| if at > floor { Ok(at) } else { Err(older("made", at, floor)) };
        match item.event {
            Event::Wrote { version: Some(version), .. } => change(write_at(version)),
            Event::Deleted { version: Some(version), .. } => change(delete_at(version)),
            Event::Wrote { version: None, .. } | Event::Deleted { version: None, .. } => {
                seen.remove(&item.index).map_or(Ok(floor), change)
            }
            Event::SawValue { version, .. } | Event::SawVersion { version } => {
                let at = write_at(version);
                if at < floor {
                    return Err(older("saw", at, floor));
                }
                let writer = self.changes.get(&at).and_then(|change| change.item);
                match writer {
                    Some(writer) if writer.call > item.ret => {
                        Err(format!("it saw version {version} before the write that made it was called"))
                    }
                    _ => Ok(at),
                }
            }
            Event::SawNothing => self.absence(item, floor, strict),
            Event::Absurd => Err("a conflict names the very version that was wanted".into()),
        }
    }

    /// Rule 4: the first stretch without an object that is not over at `floor`.
    fn absence(&self, item: &Item, floor: u64, strict: bool) -> Result<u64, String> {
        // A delete of unknown outcome may have made a stretch of its own anywhere.
        if !strict && self.pending_deletes.first().is_some_and(|call| *call <= item.ret) {
            return Ok(floor);
        }
        let place = self.absences.partition_point(|(_, end)| *end <= floor);
        let Some((begin, _)) = self.absences.get(place) else {
            return Err(format!("it saw no object, but version {} was there and no delete came after it", floor / 2));
        };
        let delete = self.changes.get(begin).and_then(|change| change.item);
        match delete {
            Some(delete) if delete.call > item.ret => Err(format!(
                "it saw no object, but version {} was there and the next delete was not called yet",
                floor / 2
            )),
            _ => Ok(floor.max(*begin)),
        }
    }
}

fn older(what: &str, at: u64, floor: u64) -> String {
    let gone = if floor % 2 == 1 { "deleted" } else { "there" };
    format!("it {what} version {}, but version {} was {gone} before it was called", at / 2, floor / 2)
}
