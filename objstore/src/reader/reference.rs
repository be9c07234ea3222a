//! An object in place.

use std::{fmt, ops::Deref, sync::Arc};

use star_core::{Version, store::Encoding};

use super::Reader;

/// An object in the mapped file, pinned: its bytes stay where and as they are until this is dropped, also after the
/// object was replaced or removed. They are aligned to 8 bytes, from 4 KiB on to 64.
///
/// What is pinned takes room of the store that it cannot use again. Neither a `Ref` nor its reader may be used in a
/// process that was forked from the one that made them.
pub struct Ref {
    reader: Arc<Reader>,
    /// Where the value begins in the file, and its bytes.
    value_at: usize,
    value_bytes: usize,
    version: Version,
    encoding: Encoding,
    /// The word of the pin table.
    pin: usize,
}

impl Ref {
    pub(super) fn new(
        reader: Arc<Reader>,
        (value_at, value_bytes): (usize, usize),
        (version, encoding): (Version, Encoding),
        pin: usize,
    ) -> Self {
        Self { reader, value_at, value_bytes, version, encoding, pin }
    }

    /// The object's version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// How the bytes came in.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }
}

impl Deref for Ref {
    type Target = [u8];

    #[inline]
    #[allow(unsafe_code, reason = "a pin is what makes bytes in place sound")]
    fn deref(&self) -> &[u8] {
        // SAFETY: the writer of the file stores to a block only before its publishing and after no pin names it. This
        // pin was found standing while the block was published, and stands until `self`, which the slice borrows, is
        // dropped.
        unsafe { self.reader.memory.bytes(self.value_at, self.value_bytes) }
    }
}

impl AsRef<[u8]> for Ref {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Ref {
    #[inline]
    fn drop(&mut self) {
        if let Some(holder) = &self.reader.holder {
            holder.unpin(self.pin);
        }
    }
}

impl fmt::Debug for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ref").field("version", &self.version).field("bytes", &self.value_bytes).finish_non_exhaustive()
    }
}
