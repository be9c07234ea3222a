//! The search of Wing and Gong (1993) with Lowe's memory (2017): take an operation that may come next, go on from there,
//! come back if that leads nowhere, and never try the same set of operations in the same state twice.
//!
//! An operation may come next if no other returned before it was called. One whose outcome is unknown may come at any
//! time after its call, or never; those are tried last, because mostly they are not needed.
//!
//! What keeps the search short, none of it at the cost of an order that it could have found:
//!
//! * Versions never fall, so an operation that leads past a version which another one still needs is not tried at all.
//! * An operation that may come next, fits, and changes nothing is taken at once, and nothing else is tried in its place:
//!   in any order that goes on from here it can be moved to the front.
//! * A write of unknown outcome whose value only it can have written, and which somebody saw, was done, and made the
//!   version that was seen.
//!
//! What was tried is remembered as 128-bit fingerprints, so that a set of a hundred thousand operations takes 16 bytes:
//! after 2^40 states the odds that two were mixed up are below 2^-48.

use star_core::collections::{Map, Set};

use super::{
    Verdict, Violation,
    chain::{Chain, END},
    register::{Event, Item, State, items},
};
use crate::{
    history::{History, Name},
    random::mix,
};

/// A bound for one key that takes a few seconds to reach.
pub const STATES_MAX: usize = 5_000_000;

/// How many of the operations before the dead end a violation shows.
const SHOWN_BEFORE: usize = 4;

/// Checks every key by search; `states_max` bounds the search of one key.
pub fn check(history: &History, states_max: usize) -> Verdict {
    let verdicts = history.by_key().into_iter().map(|group| check_key(history, &group, states_max));
    let mut undecided = None;
    for verdict in verdicts {
        match verdict {
            Verdict::Linearizable => {}
            Verdict::Violation(_) => return verdict,
            Verdict::Undecided { .. } => undecided = undecided.or(Some(verdict)),
        }
    }
    undecided.unwrap_or(Verdict::Linearizable)
}

/// Checks the operations of one key, given by their indices.
pub fn check_key(history: &History, group: &[usize], states_max: usize) -> Verdict {
    let items = items(history, group);
    let mut search = Search::new(useful(settled(items)), states_max);
    match search.run() {
        End::Found => Verdict::Linearizable,
        End::TooLong => {
            let key = history.key(history.operations()[group[0]].key).to_owned();
            let why = format!("the search was given up after {states_max} states; allow more");
            Verdict::Undecided { key, why }
        }
        End::None => Verdict::Violation(Box::new(search.witness(history))),
    }
}

/// Gives writes of unknown outcome that were certainly done their version. They stay without an end: nothing needs to
/// come after them but those who saw them.
fn settled(mut items: Vec<Item>) -> Vec<Item> {
    let mut writers: Map<Name, u32> = Map::default();
    let mut seen: Map<Name, u64> = Map::default();
    for item in &items {
        match item.event {
            Event::Wrote { value, .. } => *writers.entry(value).or_default() += 1,
            Event::SawValue { value, version } => {
                seen.insert(value, version);
            }
            _ => {}
        }
    }
    for item in items.iter_mut().filter(|item| item.is_pending()) {
        if let Event::Wrote { value, version, .. } = &mut item.event
            && writers.get(value) == Some(&1)
            && let Some(made) = seen.get(value)
        {
            *version = Some(*made);
            item.ret = u64::MAX - 1;
        }
    }
    items
}

/// Leaves out writes of unknown outcome that could explain nothing: nobody saw their value, and nobody saw anything
/// else that such a write could have brought about.
fn useful(mut items: Vec<Item>) -> Vec<Item> {
    let mut values: Set<Name> = Set::default();
    let mut others = false;
    for item in &items {
        match item.event {
            Event::SawValue { value, .. } => {
                values.insert(value);
            }
            Event::Wrote { expected: None, .. } | Event::SawNothing => {}
            Event::Wrote { expected: Some(0), .. } | Event::Deleted { expected: None, .. } if item.is_pending() => {}
            _ => others = true,
        }
    }
    items.retain(|item| match item.event {
        Event::Wrote { value, .. } if item.is_pending() => others || values.contains(&value),
        _ => true,
    });
    items
}

enum End {
    Found,
    None,
    TooLong,
}

struct Search {
    finished: Vec<Item>,
    pending: Vec<Item>,
    used: Vec<bool>,
    /// Calls and returns of the finished operations that are not in the order yet, by time: the call of operation `i` is
    /// number `2i + 1`, its return `2i + 2`.
    times: Chain,
    /// The same operations by the version that they name, those that name one: operation `i` is number `i + 1`.
    versions: Chain,
    seen: Set<u128>,
    states_max: usize,
    path: Vec<Step>,
    /// How many operations of `path` are finished ones.
    depth: usize,
    deepest: Option<Deepest>,
}

/// Where the search looks for the next operation.
#[derive(Clone, Copy)]
enum Cursor {
    /// At a node of the list.
    Node(u32),
    /// At a pending operation; it may be tried if it was called before the given time.
    Pending(usize, u64),
}

/// One operation of the order that is being tried, and what was the case before it.
struct Step {
    at: Cursor,
    before: Place,
    /// It changes nothing, so nothing else needs to be tried in its place.
    sure: bool,
}

/// A state, with the set of operations that led to it.
#[derive(Clone, Copy)]
struct Place {
    state: State,
    /// The exclusive or of the fingerprints of all operations so far.
    set: u128,
    /// Whether the last one is of unknown outcome and nobody has seen yet what it did.
    unseen: bool,
}

/// The furthest that any order came.
struct Deepest {
    finished: usize,
    state: State,
    before: Vec<usize>,
    stuck: Vec<usize>,
}

impl Search {
    fn new(items: Vec<Item>, states_max: usize) -> Self {
        let (pending, finished): (Vec<Item>, Vec<Item>) = items.into_iter().partition(Item::is_pending);
        let mut order: Vec<(u64, bool, u32)> = Vec::with_capacity(finished.len() * 2);
        for (place, item) in finished.iter().enumerate() {
            order.push((item.call, false, place as u32 * 2 + 1));
            order.push((item.ret, true, place as u32 * 2 + 2));
        }
        order.sort_unstable();
        let times = Chain::new(order.len(), order.into_iter().map(|(_, _, node)| node));
        let named =
            finished.iter().enumerate().filter_map(|(place, item)| Some((item.event.version()?, place as u32 + 1)));
        let mut named: Vec<(u64, u32)> = named.collect();
        named.sort_unstable();
        let versions = Chain::new(finished.len(), named.into_iter().map(|(_, number)| number));
        Self {
            used: vec![false; pending.len()],
            finished,
            pending,
            times,
            versions,
            seen: Set::default(),
            states_max,
            path: Vec::new(),
            depth: 0,
            deepest: None,
        }
    }

    fn run(&mut self) -> End {
        let mut place = Place { state: State::NEW, set: 0, unseen: false };
        let mut cursor = Cursor::Node(self.times.first());
        // Whether this place was just reached, and nothing tried from it yet.
        let mut fresh = true;
        while self.times.first() != END {
            if let Some(node) = self.observer(place.state).filter(|_| fresh) {
                let at = Cursor::Node(node);
                self.lift(at);
                self.path.push(Step { at, before: place, sure: true });
                place = Place { set: place.set ^ fingerprint(u64::from(node / 2)), unseen: false, ..place };
                cursor = Cursor::Node(self.times.first());
                continue;
            }
            fresh = false;
            if let Some((number, item)) = self.candidate(&mut cursor) {
                match self.take(place, number, &item) {
                    Some(_) if self.seen.len() > self.states_max => return End::TooLong,
                    Some(after) => {
                        self.lift(cursor);
                        self.path.push(Step { at: cursor, before: place, sure: false });
                        place = after;
                        cursor = Cursor::Node(self.times.first());
                        fresh = true;
                    }
                    None => cursor = self.following(cursor),
                }
            } else {
                self.note(place.state);
                loop {
                    let Some(step) = self.path.pop() else { return End::None };
                    self.unlift(step.at);
                    place = step.before;
                    cursor = self.following(step.at);
                    if !step.sure {
                        break;
                    }
                }
            }
        }
        End::Found
    }

    /// The call of an operation that may come next, fits, and changes nothing.
    fn observer(&self, state: State) -> Option<u32> {
        let mut node = self.times.first();
        while node != END && node % 2 == 1 {
            let event = self.finished[(node / 2) as usize].event;
            let sees = matches!(event, Event::SawValue { .. } | Event::SawVersion { .. } | Event::SawNothing);
            if sees && state.after(event) == Some(state) {
                return Some(node);
            }
            node = self.times.after(node);
        }
        None
    }

    /// The operation at the cursor, moving it on to the pending ones at the first return; `None` at the end of both.
    fn candidate(&self, cursor: &mut Cursor) -> Option<(usize, Item)> {
        if let Cursor::Node(node) = *cursor {
            if node % 2 == 1 {
                let place = (node / 2) as usize;
                return Some((place, self.finished[place]));
            }
            *cursor = Cursor::Pending(0, self.finished[(node / 2 - 1) as usize].ret);
        }
        let Cursor::Pending(mut place, limit) = *cursor else { return None };
        while self.used.get(place) == Some(&true) {
            place += 1;
        }
        *cursor = Cursor::Pending(place, limit);
        let item = self.pending.get(place).filter(|item| item.call <= limit)?;
        Some((self.finished.len() + place, *item))
    }

    fn following(&self, cursor: Cursor) -> Cursor {
        match cursor {
            Cursor::Node(node) => Cursor::Node(self.times.after(node)),
            Cursor::Pending(place, limit) => Cursor::Pending(place + 1, limit),
        }
    }

    /// Where the operation leads, unless it cannot come next or that was tried before.
    fn take(&mut self, from: Place, number: usize, item: &Item) -> Option<Place> {
        // A write that overwrites what nobody saw makes the one before it useless: an order without that one is as good.
        if from.unseen && matches!(item.event, Event::Wrote { expected: None, .. }) {
            return None;
        }
        let state = from.state.after(item.event)?;
        if self.lowest_version_but(number).is_some_and(|lowest| lowest < state.version) {
            return None;
        }
        let set = from.set ^ fingerprint(number as u64);
        let unseen = item.is_pending();
        let value = state.value.map_or(u64::from(u32::MAX), |value| u64::from(value.0));
        let flags = u64::from(state.exact) * 2 + u64::from(unseen);
        // Numbers of operations, values and versions are kept apart by their two highest bits.
        let memory = set ^ fingerprint(value | 1 << 62) ^ fingerprint((state.version << 2 | flags) | 1 << 63);
        self.seen.insert(memory).then_some(Place { state, set, unseen })
    }

    /// The lowest version that an operation outside of the order names, without operation `number`.
    fn lowest_version_but(&self, number: usize) -> Option<u64> {
        let mut first = self.versions.first();
        if first as usize == number + 1 {
            first = self.versions.after(first);
        }
        if first == END { None } else { self.finished[first as usize - 1].event.version() }
    }

    fn lift(&mut self, at: Cursor) {
        match at {
            Cursor::Node(call) => {
                self.depth += 1;
                self.times.take_out(call);
                self.times.take_out(call + 1);
                let place = call / 2;
                if self.finished[place as usize].event.version().is_some() {
                    self.versions.take_out(place + 1);
                }
            }
            Cursor::Pending(place, _) => self.used[place] = true,
        }
    }

    fn unlift(&mut self, at: Cursor) {
        match at {
            Cursor::Node(call) => {
                self.depth -= 1;
                let place = call / 2;
                if self.finished[place as usize].event.version().is_some() {
                    self.versions.put_back(place + 1);
                }
                self.times.put_back(call + 1);
                self.times.put_back(call);
            }
            Cursor::Pending(place, _) => self.used[place] = false,
        }
    }

    /// Remembers the dead end if no other order came as far.
    fn note(&mut self, state: State) {
        let finished = self.depth;
        if self.deepest.as_ref().is_some_and(|deepest| deepest.finished >= finished) {
            return;
        }
        let index = |step: &Step| match step.at {
            Cursor::Node(node) => self.finished[(node / 2) as usize].index,
            Cursor::Pending(place, _) => self.pending[place].index,
        };
        let before = self.path.iter().rev().take(SHOWN_BEFORE).map(index).collect();
        let mut stuck = Vec::new();
        let mut node = self.times.first();
        while node != END && node % 2 == 1 {
            stuck.push(self.finished[(node / 2) as usize].index);
            node = self.times.after(node);
        }
        // Whoever needs the lowest version may be what keeps the others from going on.
        let lowest = self.versions.first();
        if lowest != END {
            stuck.push(self.finished[lowest as usize - 1].index);
        }
        stuck.sort_unstable();
        stuck.dedup();
        self.deepest = Some(Deepest { finished, state, before, stuck });
    }

    fn witness(&self, history: &History) -> Violation {
        let deepest = self.deepest.as_ref().expect("a search that ends without an order met a dead end");
        let found = match deepest.state.value {
            Some(value) => {
                let least = if deepest.state.exact { "" } else { " or higher" };
                let value: String = history.value(value).chars().take(40).collect();
                format!("version {}{least}, {value:?}", deepest.state.version)
            }
            None => "no object".to_owned(),
        };
        let why = format!(
            "after {} of {} operations the key has {found}, and none of the {} operations that are next fits before the others",
            deepest.finished,
            self.finished.len(),
            deepest.stuck.len()
        );
        Violation::new(history, why, deepest.before.iter().chain(&deepest.stuck).copied().collect())
    }
}

/// 128 bits that stand for a number.
fn fingerprint(number: u64) -> u128 {
    let low = mix(number.wrapping_add(0x9e37_79b9_7f4a_7c15));
    let high = mix(number ^ 0xd6e8_feb8_6659_fd93).wrapping_mul(0xff51_afd7_ed55_8ccd);
    u128::from(mix(high)) << 64 | u128::from(low)
}
