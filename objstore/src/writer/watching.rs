//! What those who watch a store are told.

use star_core::message::Position;

use super::MappedStore;
use crate::notices::Changes;

impl MappedStore {
    /// Says whether somebody watches: changes are only remembered while this is so.
    pub fn watch(&mut self, is_watched: bool) {
        self.journal.watch(is_watched);
    }

    /// The point after the latest change.
    pub fn position(&self) -> Position {
        self.journal.now()
    }

    /// The changes of keys with this prefix after a position, at most `limit` of them, in their order. They are those of
    /// this store: what is new here was committed, and may be old at another member, or not there yet.
    pub fn changes(&self, after: Position, prefix: &str, limit: usize) -> Changes {
        self.journal.after(after, prefix, limit)
    }
}
