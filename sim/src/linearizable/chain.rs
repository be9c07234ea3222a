//! A doubly linked list of numbers from which any can be taken out and put back, the last one out first, at the cost of
//! a few stores (Knuth's "dancing links").

/// Marks the end.
pub(crate) const END: u32 = u32::MAX;

/// The list; number 0 is its head and always there.
#[derive(Debug)]
pub(crate) struct Chain {
    next: Vec<u32>,
    prev: Vec<u32>,
}

impl Chain {
    /// The list of these numbers, in this order: each at least 1, at most `highest`, and there once.
    pub(crate) fn new(highest: usize, order: impl IntoIterator<Item = u32>) -> Self {
        let (mut next, mut prev) = (vec![END; highest + 1], vec![END; highest + 1]);
        let mut last = 0;
        for number in order {
            next[last as usize] = number;
            prev[number as usize] = last;
            last = number;
        }
        Self { next, prev }
    }

    /// The number after this one, or [`END`].
    pub(crate) fn after(&self, number: u32) -> u32 {
        self.next[number as usize]
    }

    /// The first number, or [`END`].
    pub(crate) fn first(&self) -> u32 {
        self.next[0]
    }

    /// Takes a number out; it keeps its neighbours in mind.
    pub(crate) fn take_out(&mut self, number: u32) {
        let (before, after) = (self.prev[number as usize], self.next[number as usize]);
        self.next[before as usize] = after;
        if after != END {
            self.prev[after as usize] = before;
        }
    }

    /// Puts the number that was taken out last back to its place.
    pub(crate) fn put_back(&mut self, number: u32) {
        let (before, after) = (self.prev[number as usize], self.next[number as usize]);
        self.next[before as usize] = number;
        if after != END {
            self.prev[after as usize] = number;
        }
    }
}
