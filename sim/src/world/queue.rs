//! What is to happen, in the order of time; at equal times in the order in which it was planned.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Events by time. They are large, so the heap orders small notes of them.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    /// When, in which order of planning, and where in `events`.
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    events: Vec<Option<E>>,
    /// The places in `events` that are free.
    free: Vec<u32>,
    planned: u64,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), planned: 0 }
    }

    pub(crate) fn plan(&mut self, at: u64, event: E) {
        self.planned += 1;
        let place = self.free.pop().unwrap_or(self.events.len() as u32);
        match self.events.get_mut(place as usize) {
            Some(free) => *free = Some(event),
            None => self.events.push(Some(event)),
        }
        self.heap.push(Reverse((at, self.planned, place)));
    }

    pub(crate) fn next(&mut self) -> Option<(u64, E)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        self.events[place as usize].take().map(|event| (at, event))
    }
}
