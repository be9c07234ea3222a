//! An object's bytes, as a client gives them.

use std::{fmt, ops::Deref};

use bytes::Bytes;
use star_objstore::Candidate;

/// The longest value that lies in a [`Value`] itself.
const INLINE_BYTES: usize = 112;

/// An object's bytes: up to 112 of them lie in it, without an allocation.
#[derive(Clone)]
pub struct Value(Repr);

#[derive(Clone)]
enum Repr {
    Inline { bytes: Inline, len: u8 },
    Shared(Bytes),
}

/// Where words begin, so that what was copied word by word can be moved so as well.
#[derive(Clone)]
#[repr(align(8))]
struct Inline([u8; INLINE_BYTES]);

impl Value {
    /// No bytes.
    #[inline]
    pub(super) const fn new() -> Self {
        Self(Repr::Inline { bytes: Inline([0; INLINE_BYTES]), len: 0 })
    }

    /// Makes it a copy of what was found.
    #[inline]
    pub(super) fn fill(&mut self, found: Candidate<'_>) -> Option<()> {
        if let Repr::Inline { bytes, len } = &mut self.0
            && found.bytes() <= INLINE_BYTES
        {
            *len = found.bytes() as u8;
            return found.copy_to(&mut bytes.0).then_some(());
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
            Repr::Inline { bytes, len } => &bytes.0[..usize::from(*len)],
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
            Repr::Inline { bytes, len } => Self::copy_from_slice(&bytes.0[..usize::from(len)]),
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
