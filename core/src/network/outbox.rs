//! Frames on their way out of one connection: small parts are joined into one buffer, large tails are not copied.

use std::io::{self, IoSlice};

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Tails from this size on are written from where they are; copying a smaller one costs less than a slice of its own.
const BYTES_IN_PLACE_MIN: usize = 64 << 10;

/// Frames that wait to be written, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// All frames but their large tails.
    joined: Vec<u8>,
    /// Large tails, each with its place in `joined`. The places never decrease.
    large: Vec<(usize, Bytes)>,
    /// The bytes in `large`.
    large_bytes: usize,
}

impl Outbox {
    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.joined.len() + self.large_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.large.is_empty()
    }

    /// Where the heads of frames are appended; each is followed by [`Self::push_tail`].
    pub(super) fn joined(&mut self) -> &mut Vec<u8> {
        &mut self.joined
    }

    /// Appends the tail of the frame whose head was appended last.
    pub(super) fn push_tail(&mut self, tail: &Bytes) {
        if tail.len() < BYTES_IN_PLACE_MIN {
            self.joined.extend_from_slice(tail);
        } else {
            self.large_bytes += tail.len();
            self.large.push((self.joined.len(), tail.clone()));
        }
    }

    /// Writes everything, in as few system calls as the socket allows, and keeps the buffer for the next batch.
    pub(super) async fn write_to(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        if self.large.is_empty() {
            stream.write_all(&self.joined).await?;
        } else {
            let mut slices = self.slices();
            let mut rest = slices.as_mut_slice();
            while !rest.is_empty() {
                let written = stream.write_vectored(rest).await?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                IoSlice::advance_slices(&mut rest, written);
            }
        }
        self.clear();
        Ok(())
    }

    fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(2 * self.large.len() + 1);
        let mut from = 0;
        for (place, tail) in &self.large {
            slices.push(IoSlice::new(&self.joined[from..*place]));
            slices.push(IoSlice::new(tail));
            from = *place;
        }
        if from < self.joined.len() {
            slices.push(IoSlice::new(&self.joined[from..]));
        }
        slices
    }

    fn clear(&mut self) {
        /// A buffer that a burst made larger than this is given back.
        const BUFFER_BYTES_KEPT: usize = 1 << 20;

        self.joined.clear();
        self.joined.shrink_to(BUFFER_BYTES_KEPT);
        self.large.clear();
        self.large_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_and_large_tails_leave_in_order() {
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for (head, tail_bytes) in
            [(b"a", 3), (b"b", BYTES_IN_PLACE_MIN), (b"c", BYTES_IN_PLACE_MIN - 1), (b"d", 200_000), (b"e", 0)]
        {
            let tail = Bytes::from(vec![head[0] ^ 0x20; tail_bytes]);
            outbox.joined().extend_from_slice(head);
            outbox.push_tail(&tail);
            expected.extend_from_slice(head);
            expected.extend_from_slice(&tail);
        }
        assert_eq!(outbox.bytes(), expected.len());
        assert_eq!(outbox.large.len(), 2, "only large tails stay in place");

        // A pipe of 1,000 bytes makes every write partial.
        let (mut near, mut far) = tokio::io::duplex(1_000);
        let mut received = Vec::new();
        let (written, read) = tokio::join!(
            async {
                let written = outbox.write_to(&mut near).await;
                drop(near);
                written
            },
            tokio::io::AsyncReadExt::read_to_end(&mut far, &mut received),
        );
        written.unwrap();
        read.unwrap();
        assert_eq!(received, expected);
        assert!(outbox.is_empty());
    }
}
