//! Lists of keys: every star is read at one point that is not before the list was asked for.

use std::collections::{BTreeMap, BTreeSet};

use compact_str::CompactString;
use star_core::{
    admission::stars_of_list,
    error::ErrorCode,
    ids::StarId,
    message::ResponseBody,
    protocol::{Effects, Token},
    store::Store,
};

use super::{
    message::Message,
    node::StarNode,
    replica::{Replica, Waiter},
};

/// The most keys in one answer.
pub(crate) const LIST_KEYS_MAX: u32 = 1000;

/// The lists that wait for writes under way.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    last: u64,
    open: BTreeMap<u64, List>,
}

#[derive(Debug)]
struct List {
    token: Token,
    prefix: CompactString,
    after: Option<CompactString>,
    limit: u32,
    stars: BTreeSet<StarId>,
    /// Those of them whose writes under way are not committed yet.
    waits_for: BTreeSet<StarId>,
}

impl Lists {
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

impl Replica {
    /// The last change under way to a key that begins with `prefix`, if there is any; the list waits for it.
    fn last_change_under(&self, prefix: &str) -> Option<star_core::Seq> {
        self.dirty.iter().filter(|(key, _)| key.as_str().starts_with(prefix)).map(|(_, dirty)| dirty.last).max()
    }
}

impl<S: Store> StarNode<S> {
    /// A client's list.
    pub(crate) fn list<E: Effects<Message>>(
        &mut self,
        effects: &mut E,
        token: Token,
        (prefix, after): (CompactString, Option<CompactString>),
        limit: u32,
        stars: &[StarId],
    ) {
        if limit == 0 {
            let refusal = ResponseBody::error(ErrorCode::BadRequest, "`limit` must be at least 1");
            return effects.reply(token, &refusal, &[]);
        }
        let stars = match stars_of_list(stars, self.config.stars) {
            Ok(stars) => stars,
            Err(refusal) => return effects.reply(token, &refusal, &[]),
        };
        self.lists.last += 1;
        let number = self.lists.last;
        let mut waits_for = BTreeSet::new();
        for star in &stars {
            let replica = &mut self.replicas[usize::from(star.0)];
            if let Some(seq) = replica.last_change_under(&prefix) {
                replica.hurry(self.shared.now);
                replica.wait(seq, Waiter::List(number));
                waits_for.insert(replica.star);
            }
        }
        let limit = limit.min(LIST_KEYS_MAX);
        self.lists.open.insert(number, List { token, prefix, after, limit, stars, waits_for });
        self.finish_lists(effects, Some(number));
    }

    /// Answers the lists that wait for nothing any more: `asked`, and those that the last step released.
    pub(crate) fn finish_lists<E: Effects<Message>>(&mut self, effects: &mut E, asked: Option<u64>) {
        if asked.is_none() && self.shared.lists_released.is_empty() {
            return;
        }
        let released = std::mem::take(&mut self.shared.lists_released);
        for (star, number) in &released {
            if let Some(list) = self.lists.open.get_mut(number) {
                list.waits_for.remove(star);
            }
        }
        for number in released.into_iter().map(|(_, number)| number).chain(asked) {
            let is_ready = self.lists.open.get(&number).is_some_and(|list| list.waits_for.is_empty());
            if let Some(list) = is_ready.then(|| self.lists.open.remove(&number)).flatten() {
                self.answer_list(effects, &list);
            }
        }
    }

    fn answer_list<E: Effects<Message>>(&mut self, effects: &mut E, list: &List) {
        let mut refusal = list.stars.iter().find_map(|star| {
            let (replica, cx) = self.parts(star.0.into(), effects);
            replica.refuse_service(&cx)
        });
        if let Some(ResponseBody::Error(failure)) = &mut refusal
            && failure.code == ErrorCode::NotServing
        {
            failure.message.push_str(&self.say_what_can_be_listed(list));
        }
        if let Some(refusal) = refusal {
            return effects.reply(list.token, &refusal, &[]);
        }
        // The first `limit` keys of each star hold the first `limit` of all, and one more tells whether there are more.
        let wanted = list.limit as usize + 1;
        let mut keys: Vec<CompactString> = Vec::new();
        for star in &list.stars {
            let mut of_star = 0;
            self.store.list(*star, &list.prefix, list.after.as_deref(), &mut |key| {
                keys.push(key.into());
                of_star += 1;
                of_star < wanted
            });
        }
        keys.sort_unstable();
        let more = keys.len() >= wanted;
        keys.truncate(list.limit as usize);
        effects.reply(list.token, &ResponseBody::Keys { keys, more }, &[]);
    }

    /// For whoever asked for more stars than this server serves.
    fn say_what_can_be_listed(&self, list: &List) -> String {
        let served = list.stars.iter().filter(|star| self.replicas[usize::from(star.0)].serves(self.config.me));
        let served: Vec<String> = served.map(ToString::to_string).collect();
        if served.is_empty() {
            return String::new();
        }
        format!(
            ". This server can list stars {}: name them in `stars`, ask others for the rest (STATUS says who serves \
             what), and put the answers together in the order of their keys",
            served.join(", ")
        )
    }
}
