//! An object's bytes, as a client gives them.

use std::{fmt, num::NonZero, ops::Deref};

use bytes::Bytes;
use star_objstore::{Candidate, SHORT_BYTES};

/// An object's bytes: up to 112 of them lie in it, as a rule, without an allocation.
#[derive(Clone)]
pub struct Value(Repr);

#[derive(Clone)]
enum Repr {
    Inline(Inline),
    Shared(Bytes),
}

/// What was copied by pairs of words is moved by the same pairs: whoever loaded parts of two would have to wait until both have
/// reached memory. So the bytes come first, where a pair may begin, and nothing is in front of them, not even the mark that says
/// that these are no [`Repr::Shared`]: that is a length of zero.
#[derive(Clone)]
#[repr(C, align(16))]
struct Inline {
    bytes: [u8; SHORT_BYTES],
    /// How many of the bytes are the value, and one.
    len: NonZero<u8>,
}

const _: () = assert!(size_of::<Value>() == SHORT_BYTES + align_of::<Inline>(), "no mark beside the length");

impl Inline {
    #[inline]
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len.get() - 1)]
    }
}

impl Value {
    /// No bytes.
    #[inline]
    pub(super) const fn new() -> Self {
        Self(Repr::Inline(Inline { bytes: [0; SHORT_BYTES], len: NonZero::<u8>::MIN }))
    }

    /// Makes it a copy of what was found.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "part of the one short function that a read is")]
    pub(super) fn fill(&mut self, found: Candidate<'_>) -> Option<()> {
        if let Repr::Inline(Inline { bytes, len }) = &mut self.0
            && found.bytes() <= SHORT_BYTES
        {
            *len = NonZero::<u8>::MIN.saturating_add(found.bytes() as u8);
            return found.copy_short(bytes).then_some(());
        }
        let mut buffer = Vec::new();
        found.copy_into(&mut buffer).then(|| self.0 = Repr::Shared(buffer.into()))
    }
}

impl Deref for Value {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(inline) => inline.as_slice(),
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        Self(Repr::Shared(bytes))
    }
}

impl From<Value> for Bytes {
    fn from(value: Value) -> Self {
        match value.0 {
            Repr::Inline(inline) => Self::copy_from_slice(inline.as_slice()),
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Value {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Value {}
