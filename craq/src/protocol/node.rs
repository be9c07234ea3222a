//! One server: a replica of each star, the store, and the lease.

use std::sync::Arc;

use compact_str::CompactString;
use star_control::ClusterState;
use star_core::{
    gather::Gathers,
    ids::{Epoch, Incarnation, ServerId, StarId},
    key::Key,
    lists::{List, Lists},
    message::ResponseBody,
    protocol::{Effects, Input, Protocol, Token},
    requests::{Asker, NewWrite, RequestLimits, Requests},
    store::Store,
    time::Time,
};

use super::{
    config::NodeConfig,
    context::{Context, Shared},
    message::Message,
    replica::Replica,
};

/// What the control plane tells a server.
#[derive(Clone, Debug)]
pub enum Control {
    /// What the cluster's state says of this server; comes before the first state of the cluster. Only a server whose
    /// settings say something else has to hear it.
    Joined {
        /// Its number, which it has for life.
        id: ServerId,
        /// The name of this life.
        incarnation: Incarnation,
    },
    /// The cluster's latest state, with the view of every star.
    Cluster(Arc<ClusterState>),
    /// Until when this server may answer reads. [`Time::ZERO`]: not at all.
    Lease {
        /// The first moment at which it may not any more.
        until: Time,
    },
}

/// One server of a CRAQ cluster, as pure code.
#[derive(Debug)]
pub struct CraqNode<S> {
    pub(crate) config: NodeConfig,
    pub(crate) shared: Shared,
    pub(crate) store: S,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) lists: Lists,
    pub(crate) cluster: Option<Arc<ClusterState>>,
}

impl<S: Store> CraqNode<S> {
    /// A server that knows nothing yet: it waits for a view and a lease.
    pub fn new(config: NodeConfig, store: S) -> Self {
        let first_own = first_number(config.incarnation);
        let replicas = (0..config.stars).map(|star| Replica::new(StarId(star), first_own)).collect();
        Self { config, shared: Shared::default(), store, replicas, lists: Lists::default(), cluster: None }
    }

    /// This server's settings.
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The store, to close it in the end.
    pub fn into_store(self) -> S {
        self.store
    }

    /// The stars at this server.
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// The stars in which this server has come as far as it must for its next step, in their epochs: a learner that holds
    /// the objects, a joining member that holds the base of its view, or a leaving one that answers nothing any more.
    pub fn may_advance(&self) -> Vec<(StarId, Epoch)> {
        let me = self.config.me;
        self.replicas.iter().filter(|one| one.may_advance(me)).map(|one| (one.star, one.epoch())).collect()
    }

    /// A replica, and the rest of the server around it.
    pub(crate) fn parts<'a, E>(&'a mut self, star: usize, effects: &'a mut E) -> (&'a mut Replica, Context<'a, S, E>) {
        let Self { config, shared, store, replicas, .. } = self;
        let now = shared.now;
        (&mut replicas[star], Context { now, config, store, effects, shared })
    }

    fn on_control<E: Effects<Message>>(&mut self, effects: &mut E, control: Control) {
        match control {
            Control::Cluster(cluster) => {
                // A state in which this server's place is taken by another life of it is not about this one.
                let me = cluster.server(self.config.me);
                if me.is_some_and(|record| record.incarnation == self.config.incarnation) {
                    for (star, view) in cluster.stars.iter().enumerate().take(self.replicas.len()) {
                        let (replica, mut cx) = self.parts(star, effects);
                        replica.adopt(&mut cx, view);
                    }
                    self.cluster = Some(cluster);
                }
            }
            Control::Joined { id, incarnation } => {
                (self.config.me, self.config.incarnation) = (id, incarnation);
                self.replicas.iter_mut().for_each(|replica| replica.last_own = first_number(incarnation));
            }
            Control::Lease { until } => {
                self.shared.lease_until = until;
                let certain_until = self.shared.certain_until;
                // Without a lease nothing is certain from now on.
                self.shared.certain_until =
                    if until == Time::ZERO { certain_until.min(self.shared.now) } else { certain_until.max(until) };
                self.store.set_lease(until);
            }
        }
    }

    fn on_peer<E: Effects<Message>>(&mut self, effects: &mut E, from: ServerId, message: Message) {
        let star = usize::from(message.star.0);
        if star < self.replicas.len() && message.epoch > Epoch(0) {
            let (replica, mut cx) = self.parts(star, effects);
            replica.on_message(&mut cx, from, message);
        }
    }

    fn each_replica<E: Effects<Message>>(
        &mut self,
        effects: &mut E,
        mut act: impl FnMut(&mut Replica, &mut Context<'_, S, E>),
    ) {
        for star in 0..self.replicas.len() {
            let (replica, mut cx) = self.parts(star, effects);
            act(replica, &mut cx);
        }
    }
}

impl<S: Store> Requests<Message> for CraqNode<S> {
    fn limits(&self) -> RequestLimits {
        let NodeConfig { key_bytes_max, value_bytes_max, .. } = self.config;
        RequestLimits { key_bytes_max, value_bytes_max }
    }

    fn gathers(&mut self) -> &mut Gathers {
        &mut self.shared.gathers
    }

    fn refuse_overload(&self, charged: u64) -> Option<ResponseBody> {
        self.shared.refuse_overload(&self.config, charged)
    }

    fn read<E: Effects<Message>>(&mut self, effects: &mut E, asker: Asker, key: &Key) {
        let (replica, mut cx) = self.parts(key.star(self.config.stars).0.into(), effects);
        replica.get(&mut cx, asker, key);
    }

    fn begin<E: Effects<Message>>(&mut self, effects: &mut E, asker: Asker, write: NewWrite) {
        let (replica, mut cx) = self.parts(write.key.star(self.config.stars).0.into(), effects);
        replica.begin(&mut cx, asker, write);
    }

    fn list<E: Effects<Message>>(
        &mut self,
        effects: &mut E,
        token: Token,
        range: (CompactString, Option<CompactString>),
        limit: u32,
        stars: &[StarId],
    ) {
        match List::new(token, range, limit, stars, self.config.stars) {
            Ok(list) => self.begin_list(effects, list),
            Err(refusal) => effects.reply(token, &refusal, &[]),
        }
    }

    fn status(&self) -> String {
        self.status()
    }
}

impl<S: Store> Protocol for CraqNode<S> {
    type Message = Message;
    type Control = Control;

    fn step<E: Effects<Message>>(&mut self, now: Time, input: Input<Message, Control>, effects: &mut E) {
        self.shared.now = now;
        match input {
            Input::Request { token, request } => self.on_request(effects, token, request),
            Input::Message { from, message } => self.on_peer(effects, from, message),
            Input::Control(control) => self.on_control(effects, control),
            Input::LinkUp(peer) => self.each_replica(effects, |replica, cx| replica.on_link_up(cx, peer)),
            Input::LinkDown(_) => {}
            Input::Tick => self.each_replica(effects, |replica, cx| replica.on_tick(cx)),
        }
        self.finish_lists(effects, None);
    }

    fn end_turn<E: Effects<Message>>(&mut self, now: Time, effects: &mut E) {
        self.shared.now = now;
        self.each_replica(effects, |replica, cx| replica.end_turn(cx));
        self.finish_lists(effects, None);
    }
}

/// Before the first number of a write in this life of a server. No later life gives a number again, as long as this one
/// gives less than 2^20 in a millisecond.
fn first_number(incarnation: Incarnation) -> u64 {
    incarnation.0 << 20
}
