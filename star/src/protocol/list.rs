//! Lists of keys: every star is read at one point that is not before the list was asked for.

use std::collections::BTreeSet;

use star_core::{error::ErrorCode, lists::List, message::ResponseBody, protocol::Effects, store::Store};

use super::{
    message::Message,
    node::StarNode,
    replica::{Replica, Waiter},
};

impl Replica {
    /// The last change under way to a key that begins with `prefix`, if there is any; the list waits for it.
    fn last_change_under(&self, prefix: &str) -> Option<star_core::Seq> {
        self.dirty.iter().filter(|(key, _)| key.as_str().starts_with(prefix)).map(|(_, dirty)| dirty.last).max()
    }
}

impl<S: Store> StarNode<S> {
    /// Answers a list once the writes that are under way now are committed.
    pub(crate) fn begin_list<E: Effects<Message>>(&mut self, effects: &mut E, list: List) {
        let number = self.lists.next_number();
        let mut waits_for = BTreeSet::new();
        for star in &list.stars {
            let replica = &mut self.replicas[usize::from(star.0)];
            if let Some(seq) = replica.last_change_under(&list.prefix) {
                replica.hurry(self.shared.now);
                replica.wait(seq, Waiter::List(number));
                waits_for.insert(replica.star);
            }
        }
        self.lists.open(number, list, waits_for);
        self.finish_lists(effects, Some(number));
    }

    /// Answers the lists that wait for nothing any more: `asked`, and those that the last step released.
    pub(crate) fn finish_lists<E: Effects<Message>>(&mut self, effects: &mut E, asked: Option<u64>) {
        if asked.is_none() && self.shared.lists_released.is_empty() {
            return;
        }
        let released = std::mem::take(&mut self.shared.lists_released);
        for list in self.lists.take_ready(&released, asked) {
            self.answer_list(effects, &list);
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
        effects.reply(list.token, &list.page(&self.store), &[]);
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
