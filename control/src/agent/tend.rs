//! The agent's part in the views: its server's own steps, its word about who cannot be reached, the planner's proposals,
//! and handing over before the server ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use star_core::{
    ids::{Epoch, ServerId, StarId},
    time::Time,
};
use tokio::sync::watch;

use super::{Agent, AgentError, ControlEvent, knowledge::Part};
use crate::{
    lease::LeaseConfig,
    plan::{advanced, alive, awaited, marked, plan, reported, stopped},
    plane::{CasOutcome, ControlPlane, Lease, Revision},
    reach::ReachKeeper,
    view::{ClusterState, Standing, View},
};

/// How many leases long a server may take to give way that is asked to, before its lease is let go instead.
const GIVE_WAY_LEASES: u32 = 10;

/// How many leases long handing over may take as a whole, and without an answer of the control plane.
const HAND_OVER_LEASES: u32 = 5;
const UNANSWERED_LEASES: u32 = 2;

/// How many leases long a server that nobody takes over from waits until its store says how far it is.
const NOTE_LEASES: u32 = 3;

/// For how many leases a star must have had no living holder before people are told what it waits for.
const AWAITED_LEASES: u32 = 2;

impl<P: ControlPlane> Agent<P> {
    pub(super) async fn tend_views(&self) -> AgentError {
        let mut reach = ReachKeeper::new(self.config.lease);
        let mut awaiting = Awaiting::default();
        let mut calm = None;
        loop {
            self.pause_while(calm.take(), &reach).await;
            // Who may not count on its own view of the world does not change that of others.
            if !self.knowledge.holds_lease(self.clock.now()) {
                continue;
            }
            let outcome = self.propose(&mut reach, &mut awaiting).await.map(|found| calm = found);
            if let Err(error) = self.knowledge.judge(Part::Planning, outcome) {
                return error;
            }
        }
    }

    /// Waits until it is time for another look: soon, or as long as the last one showed that all is well and nothing has
    /// changed here. So servers with nothing to do ask the plane when the first lease that they know of could be over, and
    /// not ten times as often.
    async fn pause_while(&self, calm: Option<Calm>, reach: &ReachKeeper) {
        loop {
            let left = calm.as_ref().map(|calm| calm.until.since(self.clock.now()));
            let look = self.config.lease.look_every();
            tokio::time::sleep(left.map_or(look, |left| left.min(look))).await;
            let is_calm = calm.as_ref().is_some_and(|calm| {
                self.clock.now() < calm.until
                    && self.knowledge.revision() == calm.revision
                    && *self.word.ready.borrow() == calm.ready
                    && self.word.cut.borrow().is_empty()
                    && reach.is_calm()
            });
            if !is_calm {
                return;
            }
        }
    }

    /// Looks whether the views are as they should be, and installs what is missing; until when they need no other look, if
    /// so.
    async fn propose(&self, reach: &mut ReachKeeper, awaiting: &mut Awaiting) -> Result<Option<Calm>, AgentError> {
        let asked = self.clock.now();
        let leases = self.in_time(self.plane.leases()).await?;
        let Some((revision, state)) = self.knowledge.state() else { return Ok(None) };
        let (me, alive) = (self.me.id, alive(&state, &leases));
        if awaiting.look(self.clock.now(), self.config.lease.ttl, &state, &alive) {
            self.knowledge.send(ControlEvent::Awaited(awaiting.told.clone()));
        }
        let ready = self.word.ready.borrow().clone();
        let own_step = advanced(&state, me, &ready, &alive);
        let next = own_step
            .or_else(|| reported(&state, me, reach.say(self.clock.now(), &self.word.cut.borrow(), &alive)))
            .or_else(|| plan(&state, &self.config.plan, &alive));
        let Some(next) = next else {
            let until = Calm::until(&state, &alive, &leases, asked);
            return Ok(until.map(|until| Calm { revision, ready, until }));
        };
        match self.install(revision, &state, &next).await? {
            CasOutcome::Done(revision) => tracing::info!(%revision, "new views installed"),
            // Others were faster, or a lease has not run out yet; the next look tells.
            CasOutcome::Conflict | CasOutcome::Leased(_) => {}
        }
        Ok(None)
    }

    /// Waits until the server is about to end, has others go on in its place, and says so. Bounded: what cannot be handed
    /// over in time the others take when the lease is given back.
    pub(super) async fn leave_in_order(&self) -> AgentError {
        asked_to_leave(&mut self.word.leave.clone()).await;
        let limit = self.config.lease.ttl * HAND_OVER_LEASES;
        if tokio::time::timeout(limit, self.hand_over()).await.is_err() {
            tracing::warn!(
                ?limit,
                "not everything was handed over in time; the others go on when the lease is given back"
            );
        }
        // Whoever is told of a view that others plan meanwhile acts on it, so this comes to an end.
        let limit = self.config.lease.ttl * NOTE_LEASES;
        if tokio::time::timeout(limit, self.all_noted()).await.is_err() {
            tracing::warn!(
                ?limit,
                "not everything that was under way came to an end; a start may have to wait for all servers"
            );
        }
        self.knowledge.send(ControlEvent::Left);
        std::future::pending().await
    }

    /// Waits until the server has come to rest in the latest views of the stars that it still holds, for nobody takes over from
    /// it: its store then says all that there is.
    async fn all_noted(&self) {
        let Some(mut settled) = self.word.settled.clone() else { return };
        loop {
            let is_settled = self.knowledge.state().is_none_or(|(_, state)| {
                let held = state.stars.iter().filter(|view| view.holders().any(|id| id == self.me.id));
                let settled = settled.borrow_and_update();
                held.into_iter().all(|view| settled.contains(&(view.star, view.epoch)))
            });
            if is_settled {
                return;
            }
            tokio::time::sleep(self.config.lease.look_every() / 10).await;
        }
    }

    async fn hand_over(&self) {
        let mut answered = self.clock.now();
        while self.knowledge.holds_lease(self.clock.now()) {
            match self.hand_over_more().await {
                Ok(true) => return,
                Ok(false) => answered = self.clock.now(),
                Err(error) => {
                    tracing::warn!(%error, "handing over");
                    if self.clock.now().since(answered) > self.config.lease.ttl * UNANSWERED_LEASES {
                        return;
                    }
                }
            }
            tokio::time::sleep(self.config.lease.look_every() / 10).await;
        }
    }

    /// Takes the next step out of the views; true if there is none any more.
    async fn hand_over_more(&self) -> Result<bool, AgentError> {
        if self.knowledge.state().is_none_or(|(_, state)| !has_others(&state, self.me.id)) {
            return Ok(true); // Not even the control plane need be there for that.
        }
        let leases = self.in_time(self.plane.leases()).await?;
        let Some((revision, state)) = self.knowledge.state() else { return Ok(true) };
        let alive = alive(&state, &leases);
        let (next, is_last) = handed_over(&state, self.me.id, &self.word.ready.borrow(), &alive);
        if let Some(next) = next {
            self.install(revision, &state, &next).await?;
        }
        Ok(is_last)
    }
}

/// All servers are there and nothing is to be done.
#[derive(Debug)]
struct Calm {
    /// As of this revision of the cluster's state.
    revision: Revision,
    /// And of this word of the server.
    ready: Vec<(StarId, Epoch)>,
    /// No lease is over before that, so nobody can be found to have died.
    until: Time,
}

impl Calm {
    /// Until when a look at the leases that was asked for at `asked` says all there is to see: not at all where somebody is
    /// away, who may come back without a change of the state, or is about to end.
    fn until(state: &ClusterState, alive: &BTreeSet<ServerId>, leases: &[Lease], asked: Time) -> Option<Time> {
        let mut servers = state.servers.iter().filter(|server| server.standing != Standing::Removed);
        let are_there = servers.all(|server| alive.contains(&server.id) && server.standing != Standing::Stopping);
        // Counted from before the plane looked: rather too early than too late.
        let first = leases.iter().map(|lease| lease.remaining).min()?;
        are_there.then_some(asked + first)
    }
}

/// Which stars wait for servers that have ended.
#[derive(Debug, Default)]
struct Awaiting {
    since: BTreeMap<StarId, Time>,
    /// A sentence for people; nothing if no star waits for anybody.
    told: Option<String>,
}

impl Awaiting {
    /// Looks again; true if what people are to be told is another thing now.
    fn look(&mut self, now: Time, ttl: Duration, state: &ClusterState, alive: &BTreeSet<ServerId>) -> bool {
        let waits: BTreeMap<StarId, BTreeSet<ServerId>> =
            (0..state.stars.len()).map(|star| (state.stars[star].star, awaited(state, star, alive))).collect();
        let waits = waits.into_iter().filter(|(_, whom)| !whom.is_empty());
        let waits: BTreeMap<StarId, (Time, BTreeSet<ServerId>)> =
            waits.map(|(star, whom)| (star, (self.since.get(&star).copied().unwrap_or(now), whom))).collect();
        self.since = waits.iter().map(|(star, (since, _))| (*star, *since)).collect();
        let due = || waits.iter().filter(|(_, (since, _))| now.since(*since) >= ttl * AWAITED_LEASES);
        let stars: Vec<String> = due().map(|(star, _)| star.to_string()).collect();
        let whom: BTreeSet<ServerId> = due().flat_map(|(_, (_, whom))| whom.iter().copied()).collect();
        let text = (!stars.is_empty()).then(|| {
            let names = state.names(whom.into_iter());
            format!(
                "the objects of stars {} are with servers that have not come back: {names}; start them, or give up what \
                 only they have: star server remove NAME --lose-objects",
                stars.join(" ")
            )
        });
        let is_news = self.told != text;
        self.told = text;
        is_news
    }
}

/// Waits until the server is about to end; for good if nobody is left who could say so.
pub(super) async fn asked_to_leave(leave: &mut watch::Receiver<bool>) {
    if leave.wait_for(|leave| *leave).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Whether in any view of this server somebody else could go on, as far as is known.
fn has_others(state: &ClusterState, me: ServerId) -> bool {
    let stays = |id: ServerId| id != me && state.server(id).is_some_and(|one| one.standing != Standing::Stopping);
    state.stars.iter().any(|view| view.is_member(me) && view.serving().any(stays))
}

/// The state after a server that is about to end took its next step out of the views, and whether it is done with it: it is
/// in no view any more that somebody else could go on with.
///
/// First it says so. A step that it was ready for before might be one into a view, and others that end would hand over to
/// it what it does not stay to keep.
pub fn handed_over(
    state: &ClusterState,
    me: ServerId,
    ready: &[(StarId, Epoch)],
    alive: &BTreeSet<ServerId>,
) -> (Option<ClusterState>, bool) {
    let stopping = match state.server(me) {
        Some(record) if record.standing == Standing::Active => marked(state, me, Standing::Stopping),
        _ => None,
    };
    let told = stopped(stopping.as_ref().unwrap_or(state), me, alive);
    let next = if told == *state { advanced(state, me, ready, alive) } else { Some(told) };
    let stays = |id: ServerId| {
        alive.contains(&id) && state.server(id).is_some_and(|server| server.standing != Standing::Stopping)
    };
    let is_open = |view: &View| view.leaving.contains(&me) && view.serving().any(stays);
    let is_done = next.is_none() && !state.stars.iter().any(is_open);
    (next, is_done)
}

/// Whether a server does not give way although it was asked to. Its lease is let go then, so that the others can go on
/// without its word.
#[derive(Debug, Default)]
pub struct Reluctance {
    /// The stars that it was asked to leave and still serves, as far as is known, and since when.
    asked: BTreeMap<StarId, Time>,
}

impl Reluctance {
    /// Whether the lease of `me` must not be kept any longer at `now`.
    pub fn is_overdue(
        &mut self,
        now: Time,
        lease: &LeaseConfig,
        state: &ClusterState,
        me: ServerId,
        ready: &[(StarId, Epoch)],
    ) -> bool {
        let asks = |view: &&View| view.leaving.contains(&me) && !ready.contains(&(view.star, view.epoch));
        let asked = state.stars.iter().filter(asks).map(|view| view.star);
        self.asked = asked.map(|star| (star, self.asked.get(&star).copied().unwrap_or(now))).collect();
        self.asked.values().any(|since| now.since(*since) >= lease.ttl * GIVE_WAY_LEASES)
    }
}

#[cfg(test)]
mod tests {
    use star_core::ids::Incarnation;

    use super::*;
    use crate::{plan::registered, view::ServerRecord};

    #[test]
    fn who_is_about_to_end_says_so_before_anything_else_and_takes_no_step_into_a_view() {
        let (mut state, both) = (ClusterState::new("test-1", 1), BTreeSet::from([ServerId(0), ServerId(1)]));
        for name in ["a", "b"] {
            let record = ServerRecord { name: name.into(), incarnation: Incarnation(1), ..ServerRecord::default() };
            state = registered(&state, &record, &both).0;
        }
        // a holds the star and ends; b is a learner that is ready to join, and ends as well.
        state.servers[0].standing = Standing::Stopping;
        let (members, learners) = (vec![ServerId(0)], vec![ServerId(1)]);
        state.stars[0] = View { epoch: Epoch(8), founded: Epoch(1), members, learners, ..View::default() };
        let (next, is_done) = handed_over(&state, ServerId(1), &[(StarId(0), Epoch(8))], &both);
        let next = next.expect("it says that it is about to end");
        assert!(!is_done);
        assert_eq!(next.servers[1].standing, Standing::Stopping);
        assert_eq!((&next.stars[0].members, &next.stars[0].learners), (&vec![ServerId(0)], &vec![]));
        assert_eq!(handed_over(&next, ServerId(1), &[(StarId(0), Epoch(9))], &both), (None, true));
    }

    #[test]
    fn who_is_asked_to_leave_and_does_not_lets_its_lease_go() {
        let (lease, me) = (LeaseConfig::default(), ServerId(1));
        let mut state = ClusterState::new("test-1", 2);
        for name in ["a", "b"] {
            let record = ServerRecord { name: name.into(), incarnation: Incarnation(1), ..ServerRecord::default() };
            state = registered(&state, &record, &BTreeSet::new()).0;
        }
        let at = |leases: u32| Time::ZERO + lease.ttl * leases;
        let mut reluctance = Reluctance::default();
        let mut overdue =
            |now, state: &ClusterState, ready: &[(StarId, Epoch)]| reluctance.is_overdue(now, &lease, state, me, ready);
        assert!(!overdue(at(0), &state, &[]));
        state.stars[1].epoch = Epoch(4);
        state.stars[1].leaving = vec![me];
        assert!(!overdue(at(100), &state, &[]), "it was asked just now");
        state.stars[1].epoch = Epoch(5);
        assert!(!overdue(at(109), &state, &[(StarId(1), Epoch(4))]), "it speaks of an older epoch");
        assert!(overdue(at(110), &state, &[]), "another epoch is no new beginning");
        assert!(!overdue(at(110), &state, &[(StarId(1), Epoch(5))]), "it has given way");
        assert!(!overdue(at(111), &state, &[]));
        state.stars[1].leaving.clear();
        assert!(!overdue(at(200), &state, &[]));
    }
}
