//! Lists of keys that wait until each star that they are about can be read at one point not before they were asked for.

use std::collections::{BTreeMap, BTreeSet};

use compact_str::CompactString;

use crate::{
    admission::stars_of_list, error::ErrorCode, ids::StarId, message::ResponseBody, protocol::Token, store::Store,
};

/// The most keys in one answer.
pub const LIST_KEYS_MAX: u32 = 1000;

/// The lists of a server that wait.
#[derive(Debug, Default)]
pub struct Lists {
    last: u64,
    open: BTreeMap<u64, List>,
}

/// A client's list.
#[derive(Debug)]
pub struct List {
    /// Whom to answer.
    pub token: Token,
    /// What each key begins with.
    pub prefix: CompactString,
    /// The keys come after this one.
    pub after: Option<CompactString>,
    /// So many at most.
    pub limit: u32,
    /// The stars whose keys are listed.
    pub stars: BTreeSet<StarId>,
    /// Those of them that cannot be read yet.
    waits_for: BTreeSet<StarId>,
}

impl List {
    /// The list that a client asks for of `count` stars, or why there is none.
    pub fn new(
        token: Token,
        (prefix, after): (CompactString, Option<CompactString>),
        limit: u32,
        stars: &[StarId],
        count: u16,
    ) -> Result<Self, ResponseBody> {
        if limit == 0 {
            return Err(ResponseBody::error(ErrorCode::BadRequest, "`limit` must be at least 1"));
        }
        let stars = stars_of_list(stars, count)?;
        Ok(Self { token, prefix, after, limit: limit.min(LIST_KEYS_MAX), stars, waits_for: BTreeSet::new() })
    }

    /// The answer, from a store in which every star of it can be read.
    pub fn page(&self, store: &impl Store) -> ResponseBody {
        // The first `limit` keys of each star hold the first `limit` of all, and one more tells whether there are more.
        let wanted = self.limit as usize + 1;
        let mut keys: Vec<CompactString> = Vec::new();
        for star in &self.stars {
            let mut of_star = 0;
            store.list(*star, &self.prefix, self.after.as_deref(), &mut |key| {
                keys.push(key.into());
                of_star += 1;
                of_star < wanted
            });
        }
        keys.sort_unstable();
        let more = keys.len() >= wanted;
        keys.truncate(self.limit as usize);
        ResponseBody::Keys { keys, more }
    }
}

impl Lists {
    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The number of the next list.
    pub fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Keeps a list until none of these stars has to be waited for.
    pub fn open(&mut self, number: u64, list: List, waits_for: BTreeSet<StarId>) {
        self.open.insert(number, List { waits_for, ..list });
    }

    /// These lists need not wait for these stars any more. Takes out those that wait for nothing, and `asked` if it does not.
    pub fn take_ready(&mut self, released: &[(StarId, u64)], asked: Option<u64>) -> Vec<List> {
        for (star, number) in released {
            if let Some(list) = self.open.get_mut(number) {
                list.waits_for.remove(star);
            }
        }
        let numbers = released.iter().map(|(_, number)| *number).chain(asked);
        let ready = numbers.filter_map(|number| {
            let is_ready = self.open.get(&number).is_some_and(|list| list.waits_for.is_empty());
            is_ready.then(|| self.open.remove(&number)).flatten()
        });
        ready.collect()
    }
}
