//! The search of Wing and Gong (1993) with Lowe's memory (2017): take an operation that may come next, go on from there,
//! come back if that leads nowhere, and never try the same set of operations in the same state twice.
//!
//! An operation may come next if no other returned before it was called. One whose outcome is unknown may come at any
//! time after its call, or never; those are tried last, because mostly they are not needed.
//!
//! What was tried is remembered as 128-bit fingerprints, so that a set of a hundred thousand operations takes 16 bytes:
//! after 2^40 states the odds that two were mixed up are below 2^-48.

use star_core::collections::Set;

use super::{
    Verdict, Violation,
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
    let mut search = Search::new(useful(items), states_max);
    match search.run() {
        End::Found => Verdict::Linearizable,
        End::TooLong => {
            let key = history.key(history.operations()[group[0]].key).to_owned();
            let why = format!("the search was given up after {states_max} states; allow more");
            Verdict::Undecided { key, why }
        }
        End::None => Verdict::Violation(search.witness(history)),
    }
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

/// The calls and returns of finished operations as a doubly linked list in the order of time. Node 0 is the head;
/// finished operation `i` has its call at node `2i + 1` and its return at `2i + 2`.
struct Search {
    finished: Vec<Item>,
    pending: Vec<Item>,
    used: Vec<bool>,
    next: Vec<u32>,
    prev: Vec<u32>,
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

const END: u32 = u32::MAX;

impl Search {
    fn new(items: Vec<Item>, states_max: usize) -> Self {
        let (pending, finished): (Vec<Item>, Vec<Item>) = items.into_iter().partition(Item::is_pending);
        let mut order: Vec<(u64, bool, u32)> = Vec::with_capacity(finished.len() * 2);
        for (place, item) in finished.iter().enumerate() {
            order.push((item.call, false, place as u32 * 2 + 1));
            order.push((item.ret, true, place as u32 * 2 + 2));
        }
        order.sort_unstable();
        let (mut next, mut prev) = (vec![END; order.len() + 1], vec![END; order.len() + 1]);
        let mut last = 0;
        for (_, _, node) in order {
            next[last as usize] = node;
            prev[node as usize] = last;
            last = node;
        }
        let used = vec![false; pending.len()];
        Self {
            finished,
            pending,
            used,
            next,
            prev,
            seen: Set::default(),
            states_max,
            path: Vec::new(),
            depth: 0,
            deepest: None,
        }
    }

    fn run(&mut self) -> End {
        let mut place = Place { state: State::NEW, set: 0, unseen: false };
        let mut cursor = Cursor::Node(self.next[0]);
        while self.next[0] != END {
            if let Some((number, item)) = self.candidate(&mut cursor) {
                match self.take(place, number, &item) {
                    Some(_) if self.seen.len() > self.states_max => return End::TooLong,
                    Some(after) => {
                        self.lift(cursor);
                        self.path.push(Step { at: cursor, before: place });
                        place = after;
                        cursor = Cursor::Node(self.next[0]);
                    }
                    None => cursor = self.following(cursor),
                }
            } else {
                self.note(place.state);
                let Some(step) = self.path.pop() else { return End::None };
                self.unlift(step.at);
                place = step.before;
                cursor = self.following(step.at);
            }
        }
        End::Found
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
            Cursor::Node(node) => Cursor::Node(self.next[node as usize]),
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
        let set = from.set ^ fingerprint(number as u64);
        let unseen = item.is_pending();
        let value = state.value.map_or(u64::from(u32::MAX), |value| u64::from(value.0));
        let flags = u64::from(state.exact) * 2 + u64::from(unseen);
        // Numbers of operations, values and versions are kept apart by their two highest bits.
        let memory = set ^ fingerprint(value | 1 << 62) ^ fingerprint((state.version << 2 | flags) | 1 << 63);
        self.seen.insert(memory).then_some(Place { state, set, unseen })
    }

    fn lift(&mut self, at: Cursor) {
        match at {
            Cursor::Node(call) => {
                self.depth += 1;
                [call, call + 1].into_iter().for_each(|node| self.unlink(node));
            }
            Cursor::Pending(place, _) => self.used[place] = true,
        }
    }

    fn unlift(&mut self, at: Cursor) {
        match at {
            Cursor::Node(call) => {
                self.depth -= 1;
                [call + 1, call].into_iter().for_each(|node| self.link(node));
            }
            Cursor::Pending(place, _) => self.used[place] = false,
        }
    }

    fn unlink(&mut self, node: u32) {
        let (before, after) = (self.prev[node as usize], self.next[node as usize]);
        self.next[before as usize] = after;
        if after != END {
            self.prev[after as usize] = before;
        }
    }

    fn link(&mut self, node: u32) {
        let (before, after) = (self.prev[node as usize], self.next[node as usize]);
        self.next[before as usize] = node;
        if after != END {
            self.prev[after as usize] = node;
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
        let mut node = self.next[0];
        while node != END && node % 2 == 1 {
            stuck.push(self.finished[(node / 2) as usize].index);
            node = self.next[node as usize];
        }
        self.deepest = Some(Deepest { finished, state, before, stuck });
    }

    fn witness(&self, history: &History) -> Box<Violation> {
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
            "after {} of {} operations the key has {found}, and none of the {} operations that could come next fits",
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
