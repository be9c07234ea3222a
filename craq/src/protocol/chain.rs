//! The order of a chain, as it follows from a view: every server finds the same one by itself.

use star_control::View;
use star_core::ids::ServerId;

/// The members of a view from the head to the tail.
///
/// The leader is the head. The other members that hold all objects follow on the ring of numbers, so that the heads,
/// middles and tails of many chains are spread evenly when the leaders are. Joining members come last: a server enters a chain at
/// its tail (§5.3), where it can hold up writes but can put nothing wrong between two others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    order: Vec<ServerId>,
}

impl Chain {
    /// The chain of a view; empty if the view has no members.
    pub fn of(view: &View) -> Self {
        let mut order: Vec<ServerId> = view.holders().collect();
        order.sort_unstable();
        if let Some(head) = order.iter().position(|member| *member == view.leader) {
            order.rotate_left(head);
        }
        let mut joining: Vec<ServerId> =
            view.members.iter().copied().filter(|member| view.joining.contains(member)).collect();
        joining.sort_unstable();
        order.extend(joining);
        Self { order }
    }

    /// From the head to the tail.
    pub fn order(&self) -> &[ServerId] {
        &self.order
    }

    /// The first: it orders the writes.
    pub fn head(&self) -> Option<ServerId> {
        self.order.first().copied()
    }

    /// The last: what it has is committed.
    pub fn tail(&self) -> Option<ServerId> {
        self.order.last().copied()
    }

    /// The one before `server`.
    pub fn predecessor(&self, server: ServerId) -> Option<ServerId> {
        self.place(server)?.checked_sub(1).map(|place| self.order[place])
    }

    /// The one after `server`.
    pub fn successor(&self, server: ServerId) -> Option<ServerId> {
        self.order.get(self.place(server)? + 1).copied()
    }

    fn place(&self, server: ServerId) -> Option<usize> {
        self.order.iter().position(|member| *member == server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_is_first_the_ring_follows_and_joining_members_are_last() {
        let ids = |ids: &[u16]| ids.iter().copied().map(ServerId).collect::<Vec<_>>();
        let view = View { members: ids(&[0, 1, 2, 3, 4]), leader: ServerId(2), joining: ids(&[3]), ..View::default() };
        let chain = Chain::of(&view);
        assert_eq!(chain.order(), ids(&[2, 4, 0, 1, 3]));
        assert_eq!((chain.head(), chain.tail()), (Some(ServerId(2)), Some(ServerId(3))));
        assert_eq!((chain.predecessor(ServerId(2)), chain.successor(ServerId(3))), (None, None));
        assert_eq!(chain.predecessor(ServerId(0)), Some(ServerId(4)));
        assert_eq!(chain.successor(ServerId(0)), Some(ServerId(1)));
        assert_eq!(chain.successor(ServerId(9)), None);
        assert_eq!(Chain::of(&View::default()), Chain::default());
    }
}
