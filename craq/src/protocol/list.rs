//! Lists of keys: every star is read at one point that is not before the list was asked for.

use std::collections::BTreeSet;

use star_core::{lists::List, protocol::Effects, store::Store};

use super::{message::Message, node::CraqNode, read::Waiter};

impl<S: Store> CraqNode<S> {
    /// Answers a list once the tails have said what is committed, where they must be asked.
    pub(crate) fn begin_list<E: Effects<Message>>(&mut self, effects: &mut E, list: List) {
        let number = self.lists.next_number();
        let mut waits_for = BTreeSet::new();
        for star in &list.stars {
            let (replica, cx) = self.parts(star.0.into(), effects);
            if replica.list_must_ask(&cx, &list.prefix) {
                replica.readers.push(Waiter::List(number));
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
        let refusal = list.stars.iter().find_map(|star| {
            let (replica, cx) = self.parts(star.0.into(), effects);
            replica.refuse_service(&cx)
        });
        if let Some(refusal) = refusal {
            return effects.reply(list.token, &refusal, &[]);
        }
        effects.reply(list.token, &list.page(&self.store), &[]);
    }
}
