//! Texts that come again and again, kept once.

use star_core::collections::Map;
use xxhash_rust::xxh3::xxh3_128;

/// A text that is kept once: equal texts have equal names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub(crate) u32);

/// Texts, each kept once, one after another in one string.
///
/// Two texts count as equal if their XXH3-128 is: among 2^32 texts the odds of a mistake are about 2^-65.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interner {
    names: Map<u128, Name>,
    ends: Vec<usize>,
    text: String,
}

impl Interner {
    pub(crate) fn intern(&mut self, text: &str) -> Name {
        let next = Name(u32::try_from(self.ends.len()).expect("fewer than 2^32 different texts"));
        let name = *self.names.entry(xxh3_128(text.as_bytes())).or_insert(next);
        if name == next {
            self.text.push_str(text);
            self.ends.push(self.text.len());
        }
        name
    }

    pub(crate) fn text(&self, name: Name) -> &str {
        let at = name.0 as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.text[start..self.ends[at]]
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }
}
