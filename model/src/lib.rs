//! A model of views and leases: three servers, each in an epoch of its own, a control plane, and one star with few
//! writes. A checker goes through *every* state that can be reached within the bounds, so what the properties say is
//! proved for them, where the simulator only meets it by chance.
//!
//! The model is written by hand, from the rules and not from the code, and leaves out what it does not need:
//!
//! * Time is gone. What is left of it is one rule: the control plane gives a lease up only after its holder has, because
//!   the holder counts from its sending, less the margin. An answer that comes later than that is worthless.
//! * A message is a fact that stays true ("server 1 acked 2 in epoch 3"). Whoever may act on it does so at any time, or
//!   never: that is every delay, order, loss and repetition.
//! * A server hears of the latest view, or late, or never. Of one that is not the latest any more it might as well have
//!   heard in time, because what it did meanwhile depends on nothing that came of the later view.
//! * A write is a number. It becomes ready and acked in one step; whoever has committed it may have told a client.
//!
//! [`Mistake`] breaks one rule; the tests show that each is found.

mod properties;
mod state;
mod step;

pub use self::{
    state::{Lease, Log, SERVERS, Server, Servers, State, View},
    step::Action,
};
use stateright::{Model, Property};

/// How far the model goes, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Epochs, the first one included; 1 to 6.
    pub epochs: u8,
    /// Writes that clients ask for; at most 3.
    pub writes: u8,
    /// How many servers may lose their memory.
    pub crashes: u8,
    /// How many leases may lapse while their holders live.
    pub lapses: u8,
    /// A rule that is broken on purpose.
    pub mistake: Option<Mistake>,
}

/// Rules that can be broken, each of which a property must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A view without a server is installed while that server holds a lease.
    RemovedWhileLeased,
    /// A lease that ran out counts again before the views are read.
    LeaseRevived,
    /// The answer to a request for a lease counts, however late it comes.
    LateGrantCounts,
    /// Acks of any epoch are counted.
    AcksOfOtherEpochs,
    /// A new leader's order is what it has committed, not what it is ready for.
    OrderIsWhatIsCommitted,
    /// A joining member answers reads.
    JoiningServes,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::RemovedWhileLeased,
        Self::LeaseRevived,
        Self::LateGrantCounts,
        Self::AcksOfOtherEpochs,
        Self::OrderIsWhatIsCommitted,
        Self::JoiningServes,
    ];
}

impl Bounds {
    pub(crate) fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        step::actions(self, state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        Some(step::after(self, state, action))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("lease exclusion", |bounds: &Self, state: &State| {
                properties::leases_exclude(bounds, state)
            }),
            Property::always("no stale read", |bounds: &Self, state: &State| {
                properties::reads_are_latest(bounds, state)
            }),
            Property::always("committed survives takeover", |_, state: &State| properties::committed_survives(state)),
            Property::sometimes("a write is told in the last epoch", |bounds: &Self, state: &State| {
                properties::works_to_the_end(bounds, state)
            }),
            Property::sometimes("a server that lost its memory serves again", |_, state: &State| {
                properties::comes_back(state)
            }),
        ]
    }
}
