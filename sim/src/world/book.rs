//! What the clients know for sure: which writes were asked for and which were answered. Lists are judged by it, and the
//! invariants that need to know what was promised.

use std::collections::BTreeMap;

use star_core::{
    ids::{StarId, Version},
    key::Key,
    message::ResponseBody,
};

use super::workload::Asked;
use crate::history::Op;

/// All keys that were ever written or deleted.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pages: BTreeMap<Key, Page>,
    /// Grows with every new promise.
    promises: u64,
}

/// What is known of a key. Times are the world's, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    first_write_called: u64,
    first_delete_called: u64,
    first_write_answered: u64,
    /// The latest version that a server told a client of, and whether it was a delete.
    pub(crate) promised: (Version, bool),
}

const NEVER: u64 = u64::MAX;

impl Default for Page {
    fn default() -> Self {
        let promised = (Version(0), false);
        Self { first_write_called: NEVER, first_delete_called: NEVER, first_write_answered: NEVER, promised }
    }
}

impl Page {
    /// Whether anybody ever asked for a delete.
    pub(crate) fn may_be_deleted(&self) -> bool {
        self.first_delete_called != NEVER
    }
}

impl Book {
    /// The keys with what is known of each.
    pub(crate) fn pages(&self) -> impl Iterator<Item = (&Key, &Page)> {
        self.pages.iter()
    }

    /// How often a promise went beyond all before.
    pub(crate) fn promises(&self) -> u64 {
        self.promises
    }

    /// A client asks for something.
    pub(crate) fn called(&mut self, now: u64, asked: &Asked) {
        let Asked::Parts(parts) = asked else { return };
        for part in parts.iter().filter(|part| part.op != Op::Read) {
            let page = self.pages.entry(part.key.clone()).or_default();
            let first =
                if part.op == Op::Delete { &mut page.first_delete_called } else { &mut page.first_write_called };
            *first = now.min(*first);
        }
    }

    /// A star begins anew, without an object: what was promised of it is gone.
    pub(crate) fn begin_anew(&mut self, star: StarId, stars: u16) {
        for (_, page) in self.pages.iter_mut().filter(|(key, _)| key.star(stars) == star) {
            *page = Page { first_write_answered: NEVER, promised: (Version(0), false), ..*page };
        }
    }

    /// A server answers a client: from now on nobody may see anything older. `is_latest`: whether a part was answered by
    /// the latest foundation of its star.
    pub(crate) fn promise(&mut self, asked: &Asked, body: &ResponseBody, is_latest: impl Fn(usize) -> bool) {
        for (at, (part, body)) in asked.answers(body).enumerate() {
            if !is_latest(at) {
                continue;
            }
            let promised = match body {
                ResponseBody::Written { version } => (*version, part.op == Op::Delete),
                ResponseBody::Value { version, .. } => (*version, false),
                _ => continue,
            };
            let page = self.pages.entry(part.key.clone()).or_default();
            if promised > page.promised {
                page.promised = promised;
                self.promises += 1;
            }
        }
    }

    /// An answer has reached its client; the error says what is wrong with a list. `is_latest`: as above.
    pub(crate) fn answered(
        &mut self,
        asked: &Asked,
        (call, now): (u64, u64),
        body: &ResponseBody,
        is_latest: impl Fn(usize) -> bool,
    ) -> Result<(), String> {
        for (_, (part, body)) in asked.answers(body).enumerate().filter(|(at, _)| is_latest(*at)) {
            if let (Op::Write | Op::CompareAndSet, ResponseBody::Written { .. }) = (part.op, body) {
                let page = self.pages.entry(part.key.clone()).or_default();
                page.first_write_answered = now.min(page.first_write_answered);
            }
        }
        match (asked, body) {
            (Asked::List { prefix, after, limit }, ResponseBody::Keys { keys, more }) => {
                self.judge_list(call, now, (prefix, after.as_deref(), *limit), keys, *more)
            }
            (Asked::List { .. }, body) => Err(format!("a list was answered with {body:?}")),
            _ => Ok(()),
        }
    }

    fn judge_list(
        &self,
        call: u64,
        now: u64,
        (prefix, after, limit): (&str, Option<&str>, u32),
        keys: &[compact_str::CompactString],
        more: bool,
    ) -> Result<(), String> {
        let wrong = |why: String| Err(format!("a list of {prefix:?} after {after:?} has {keys:?}: {why}"));
        if !keys.is_sorted() || keys.len() > limit as usize {
            return wrong(format!("it is not in order, or longer than {limit}"));
        }
        let asked_for = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
        for key in keys {
            let page = self.pages.get(&Key::new(key.clone())).copied().unwrap_or_default();
            if !asked_for(key) || page.first_write_called > now {
                return wrong(format!("{key} was not asked for, or never written"));
            }
        }
        for (key, page) in &self.pages {
            let text = key.as_str();
            let cut_off = more && keys.last().is_none_or(|last| text > last.as_str());
            let certain = page.first_write_answered < call && page.first_delete_called > now;
            if asked_for(text) && !cut_off && certain && !keys.iter().any(|listed| listed == text) {
                return wrong(format!("{key} was written before and never deleted, and is not in it"));
            }
        }
        Ok(())
    }
}
