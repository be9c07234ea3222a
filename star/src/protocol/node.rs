//! One server: a replica of each star, the store, and the lease.

use std::sync::Arc;

use compact_str::CompactString;
use star_control::{Claim, ClusterState};
use star_core::{
    gather::Gathers,
    ids::{Epoch, Incarnation, ServerId, StarId},
    key::Key,
    lists::{List, Lists},
    message::{RequestBody, ResponseBody},
    note::cluster_mark,
    protocol::{Effects, Input, Protocol, Token},
    requests::{Asker, NewWrite, RequestLimits, Requests},
    store::Store,
    time::Time,
};

use super::{
    config::{Bug, NodeConfig},
    context::{Context, Shared},
    message::{Body, Message},
    replica::Replica,
    status::PlaneStatus,
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
    /// What people should know of the control plane.
    Plane(PlaneStatus),
}

/// One server of a Star cluster, as pure code.
#[derive(Debug)]
pub struct StarNode<S> {
    pub(crate) config: NodeConfig,
    pub(crate) shared: Shared,
    pub(crate) store: S,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) lists: Lists,
    pub(crate) plane: Option<PlaneStatus>,
}

impl<S: Store> StarNode<S> {
    /// A server that knows nothing yet but what is noted in its store: it waits for a view and a lease.
    pub fn new(config: NodeConfig, store: S) -> Self {
        let recalled = |star| {
            let mut replica = Replica::new(star);
            replica.recall(store.noted(star));
            replica
        };
        let replicas = (0..config.stars).map(|star| recalled(StarId(star))).collect();
        let mut shared = Shared { last_write: first_number(config.incarnation), ..Shared::default() };
        shared.slow.last_sounding = first_number(config.incarnation);
        Self { config, shared, store, replicas, lists: Lists::default(), plane: None }
    }

    /// This server's settings.
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The store, for what a server does with it beside the protocol: nothing that the trait [`Store`] is for.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
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
        let hasty = self.config.has_bug(Bug::BaseIgnored);
        let may = |one: &&Replica| one.may_advance(me) || (hasty && one.installed);
        self.replicas.iter().filter(may).map(|one| (one.star, one.epoch())).collect()
    }

    /// What the store held of each star when this life began, as the control plane is to know it.
    pub fn claims(&self) -> Vec<Claim> {
        claims(&self.store, self.config.stars)
    }

    /// The stars of which this server has noted all that it can, in their epochs: nothing is under way.
    pub fn settled(&self) -> Vec<(StarId, Epoch)> {
        let is_settled = |one: &&Replica| one.installed && one.committed == one.log.last();
        self.replicas.iter().filter(is_settled).map(|one| (one.star, one.epoch())).collect()
    }

    /// The stars that this server holds as far as it knows: nobody has taken it out of their views.
    pub fn held(&self) -> Vec<StarId> {
        let holds = |one: &&Replica| one.view.holders().any(|id| id == self.config.me);
        self.replicas.iter().filter(holds).map(|one| one.star).collect()
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
                    self.shared.cluster_mark = cluster_mark(&cluster.cluster);
                    for (star, view) in cluster.stars.iter().enumerate().take(self.replicas.len()) {
                        let (replica, mut cx) = self.parts(star, effects);
                        replica.adopt(&mut cx, view);
                    }
                    self.shared.cluster = Some(cluster);
                }
            }
            Control::Joined { id, incarnation } => {
                (self.config.me, self.config.incarnation) = (id, incarnation);
                self.shared.last_write = first_number(incarnation);
                self.shared.slow.last_sounding = first_number(incarnation);
            }
            Control::Plane(plane) => self.plane = Some(plane),
            Control::Lease { until } => {
                self.shared.lease_until = until;
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

    pub(crate) fn each_replica<E: Effects<Message>>(
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

impl<S: Store> Requests<Message> for StarNode<S> {
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

impl<S: Store> Protocol for StarNode<S> {
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
            Input::Tick => {
                self.each_replica(effects, |replica, cx| replica.on_tick(cx));
                self.watch_links(effects);
            }
        }
        self.finish_lists(effects, None);
    }

    fn expect(&self, inputs: &[Input<Message, Control>]) {
        self.store.expect(inputs.iter().filter_map(key_of));
    }

    fn end_turn<E: Effects<Message>>(&mut self, now: Time, effects: &mut E) {
        self.shared.now = now;
        self.each_replica(effects, |replica, cx| replica.end_turn(cx));
    }
}

/// The key whose object an input is about, if it is one.
fn key_of(input: &Input<Message, Control>) -> Option<&Key> {
    match input {
        Input::Message { message: Message { body: Body::Write(head), .. }, .. } => Some(&head.key),
        Input::Request { request, .. } => match &request.body {
            RequestBody::Get { key } | RequestBody::Set { key, .. } | RequestBody::Delete { key, .. } => Some(key),
            _ => None,
        },
        _ => None,
    }
}

/// What is noted in a store, as the control plane is to know it.
pub fn claims(store: &impl Store, stars: u16) -> Vec<Claim> {
    let stars = (0..stars).map(StarId);
    stars.filter_map(|star| store.noted(star).map(|note| Claim::new(star, &note))).collect()
}

/// Before the first number of a write in this life of a server. No later life gives a number again, as long as this one
/// gives less than 2^20 in a millisecond.
fn first_number(incarnation: Incarnation) -> u64 {
    incarnation.0 << 20
}
