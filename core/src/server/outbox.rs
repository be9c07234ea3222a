//! What waits to be written to one connection: small messages in one buffer, large tails by reference.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};

/// Tails of at least this many bytes are queued by reference instead of being copied.
pub(crate) const SHARED_TAIL_BYTES_MIN: usize = 16 << 10;

/// A buffer that has grown beyond this is given back once it is empty.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// The most slices in one write.
const SLICES_MAX: usize = 16;

/// Bytes on their way out of one connection, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// What comes first.
    queue: VecDeque<Bytes>,
    queue_bytes: usize,
    /// What comes after the queue, still growing.
    open: Vec<u8>,
    /// How much of `open` is written already (only while the queue is empty).
    written: usize,
}

impl Outbox {
    pub(crate) fn len(&self) -> usize {
        self.queue_bytes + self.open.len() - self.written
    }

    /// The buffer to append small messages to.
    pub(crate) fn open(&mut self) -> &mut Vec<u8> {
        &mut self.open
    }

    /// Appends a tail: copied if it is small, else by reference.
    pub(crate) fn push(&mut self, tail: &Bytes) {
        if tail.len() < SHARED_TAIL_BYTES_MIN {
            self.open.extend_from_slice(tail);
            return;
        }
        let mut open = Bytes::from(std::mem::take(&mut self.open));
        open.advance(std::mem::take(&mut self.written));
        for bytes in [open, tail.clone()] {
            if !bytes.is_empty() {
                self.queue_bytes += bytes.len();
                self.queue.push_back(bytes);
            }
        }
    }

    /// The next bytes to write.
    pub(crate) fn slices<'a>(&'a self, out: &mut Vec<IoSlice<'a>>) {
        out.extend(self.queue.iter().take(SLICES_MAX).map(|bytes| IoSlice::new(bytes)));
        if self.queue.len() < SLICES_MAX && self.written < self.open.len() {
            out.push(IoSlice::new(&self.open[self.written..]));
        }
    }

    /// The next bytes to write, where they are all in one piece.
    pub(crate) fn only_slice(&self) -> Option<&[u8]> {
        self.queue.is_empty().then(|| &self.open[self.written..])
    }

    /// `count` bytes were written.
    pub(crate) fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.queue.front_mut() {
            if count < front.len() {
                front.advance(count);
                self.queue_bytes -= count;
                return;
            }
            count -= front.len();
            self.queue_bytes -= front.len();
            self.queue.pop_front();
        }
        self.written += count;
        if self.written == self.open.len() {
            self.written = 0;
            self.open.clear();
            if self.open.capacity() > KEPT_BYTES_MAX {
                self.open = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(outbox: &mut Outbox, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while outbox.len() > 0 {
            let mut slices = Vec::new();
            outbox.slices(&mut slices);
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(step).collect();
            drop(slices);
            outbox.advance(bytes.len());
            out.extend(bytes);
        }
        out
    }

    #[test]
    fn bytes_leave_in_the_order_they_came_whatever_the_size_of_the_writes() {
        for step in [1, 7, 1000, 1 << 20] {
            let mut outbox = Outbox::default();
            let mut all = Vec::new();
            for round in 0..5_u8 {
                outbox.open().extend_from_slice(&[round; 10]);
                all.extend([round; 10]);
                for tail_bytes in [0, 100, SHARED_TAIL_BYTES_MIN, SHARED_TAIL_BYTES_MIN + 5] {
                    let tail = Bytes::from(vec![round + 100; tail_bytes]);
                    outbox.push(&tail);
                    all.extend_from_slice(&tail);
                }
            }
            assert_eq!(outbox.len(), all.len());
            assert!(drain(&mut outbox, step) == all, "writes of {step} bytes");
        }
    }

    #[test]
    fn a_tail_queued_in_the_middle_of_a_written_buffer_keeps_the_order() {
        let mut outbox = Outbox::default();
        outbox.open().extend_from_slice(b"abcdef");
        outbox.advance(3);
        outbox.push(&Bytes::from(vec![b'x'; SHARED_TAIL_BYTES_MIN]));
        outbox.open().extend_from_slice(b"end");
        let out = drain(&mut outbox, 1000);
        assert!(out.starts_with(b"defxxx") && out.ends_with(b"xxend"));
        assert_eq!(out.len(), 3 + SHARED_TAIL_BYTES_MIN + 3);
    }
}
