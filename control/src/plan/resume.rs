//! Stars whose holders have all ended: whether a store that one of them left holds everything that anybody was told of.
//!
//! A write is committed when every member of one view has acked it in that view's epoch, and a client is told of it, by an
//! answer or by a read, only by a server that has applied it. A server notes an epoch before its first ack in it, `ready`
//! before it acks, and `committed` before it tells anybody ([`Claim`]). So of an epoch it is certain that
//!
//! * nothing was committed in it, if a member that is known has not noted it (it is *void*); and else that
//! * nothing after the least `ready` was that a known member has noted in it, and
//! * nobody was told of anything after the highest `committed` of its members, if all of them are known and were members
//!   all the time from then until they noted what is known.
//!
//! Whatever was committed before an epoch is at or before the base with which any server took over that epoch. So one known
//! base, and such a bound for every epoch since, bound everything.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use star_core::ids::{Epoch, Seq, ServerId, StarId};

use super::{leaderships, named};
use crate::view::{Claim, ClusterState, Past, Resumed, Standing, View};

/// How many views before the present one are remembered.
const PAST_MAX: usize = 8;

/// The state after `before`, with what must be remembered of the views before, and without the claims of servers that are in
/// views. Every change of views goes through this.
pub fn chronicled(before: &ClusterState, mut after: ClusterState) -> ClusterState {
    for (view, old) in after.stars.iter_mut().zip(&before.stars) {
        if view.epoch == old.epoch {
            continue;
        }
        view.past.clear();
        if view.founded == old.founded && view.founded > Epoch(0) && view.resumed == old.resumed {
            let over = Past { epoch: old.epoch, members: old.members.clone() };
            view.past = old.past.iter().cloned().chain([over]).collect();
            let surplus = view.past.len().saturating_sub(PAST_MAX);
            view.past.drain(..surplus);
        } else if let Some(began) = began(view).filter(|began| *began < view.epoch) {
            // More than one step in one write: nobody ever acted in the epochs between.
            view.past.push(Past { epoch: began, members: Vec::new() });
        }
    }
    let ClusterState { servers, stars, .. } = &mut after;
    for server in servers {
        let is_in =
            |star: StarId| stars.get(usize::from(star.0)).is_some_and(|view| named(view).any(|id| id == server.id));
        server.claims.retain(|claim| !is_in(claim.star));
    }
    after
}

/// The first epoch of what a star has been since it was founded or went on with a store.
fn began(view: &View) -> Option<Epoch> {
    let founded = Some(view.founded).filter(|founded| *founded > Epoch(0));
    view.resumed.map(|resumed| resumed.epoch).or(founded)
}

/// Lets stars of which no holder is alive go on with what a store holds, where that is certainly all. `before`: the views
/// as they were, with `joined`, a server whose new life is entered in the same step, still in them. Such a star has one
/// member then, and everybody else learns from it.
pub(super) fn resume(
    next: &mut ClusterState,
    before: &ClusterState,
    alive: &BTreeSet<ServerId>,
    joined: Option<ServerId>,
) {
    for star in 0..before.stars.len().min(next.stars.len()) {
        let view = &before.stars[star];
        if view.holders().any(|id| Some(id) != joined && alive.contains(&id)) {
            continue;
        }
        let led = leaderships(next);
        let may = |id: ServerId| {
            let stays = next.server(id).is_some_and(|one| one.standing != Standing::Stopping);
            stays && (alive.contains(&id) || joined == Some(id))
        };
        let able = proven(next, view).into_iter().filter(|(id, _)| may(*id));
        let best = able.max_by_key(|(id, claim)| {
            (claim.epoch, claim.committed, Reverse(led.get(id).copied().unwrap_or(0)), Reverse(*id))
        });
        if let Some((id, claim)) = best {
            let (star_id, founded, epoch) = (view.star, view.founded, view.epoch.next());
            let resumed = Some(Resumed { epoch, seq: claim.committed });
            let members = vec![id];
            next.stars[star] = View { star: star_id, epoch, founded, members, leader: id, resumed, ..View::default() };
        }
    }
}

/// The servers whose stores hold everything that anybody was told of in a star, for certain.
pub(super) fn proven(state: &ClusterState, view: &View) -> Vec<(ServerId, Claim)> {
    let known = known(state, view);
    let Some(bound) = bound(view, &known).filter(|_| view.founded > Epoch(0)) else { return Vec::new() };
    known.into_iter().filter(|(_, claim)| claim.whole && claim.committed >= bound).collect()
}

/// The servers whose stores a star waits for, and cannot go on without as far as is known: those that were in its latest
/// views, have ended, and have not come back. Empty if it waits for none.
pub fn awaited(state: &ClusterState, star: usize, alive: &BTreeSet<ServerId>) -> BTreeSet<ServerId> {
    let view = &state.stars[star];
    if view.founded == Epoch(0) || view.members.is_empty() || view.holders().any(|id| alive.contains(&id)) {
        return BTreeSet::new();
    }
    view.holders().collect()
}

/// What is known of a star's stores.
fn known(state: &ClusterState, view: &View) -> BTreeMap<ServerId, Claim> {
    let of_star = |claim: &&Claim| claim.star == view.star && claim.founded == view.founded;
    let claim =
        |server: &crate::view::ServerRecord| server.claims.iter().find(of_star).map(|claim| (server.id, *claim));
    state.servers.iter().filter(|server| server.standing != Standing::Removed).filter_map(claim).collect()
}

/// The seq after which nobody was told of anything in this foundation; `None` if nothing is certain.
fn bound(view: &View, known: &BTreeMap<ServerId, Claim>) -> Option<Seq> {
    if known.values().any(|claim| claim.epoch > view.epoch) {
        return None; // The control plane has forgotten views, and epochs may have come twice.
    }
    let bases = known.values().map(|claim| (claim.epoch, claim.base));
    let resumed = view.resumed.map(|resumed| (resumed.epoch, resumed.seq));
    let starts = bases.chain(resumed).chain([(view.founded, Seq(0))]);
    starts.filter_map(|(epoch, base)| bound_from(view, known, epoch, base)).min()
}

/// The same, where everything before `start` is at or before `base`.
fn bound_from(view: &View, known: &BTreeMap<ServerId, Claim>, start: Epoch, base: Seq) -> Option<Seq> {
    let past = view.past.iter().map(|past| (past.epoch, past.members.as_slice()));
    let views: Vec<(Epoch, &[ServerId])> = past.chain([(view.epoch, view.members.as_slice())]).collect();
    if start < views[0].0 {
        return None; // What is remembered does not reach back so far.
    }
    let mut bound = base;
    for (at, (epoch, members)) in views.iter().enumerate().filter(|(_, (epoch, _))| *epoch >= start) {
        let of_members = || members.iter().map(|id| known.get(id));
        let is_void = members.is_empty() || of_members().flatten().any(|claim| claim.epoch < *epoch);
        if is_void {
            continue;
        }
        let acked = of_members().flatten().filter(|claim| claim.epoch == *epoch).map(|claim| claim.ready).min();
        let told = members.iter().map(|id| {
            let claim = known.get(id)?;
            // A server that was out of the views in between may have begun anew, and noted less than it once had.
            let until_noted = views[at..].iter().take_while(|(later, _)| *later <= claim.epoch);
            let stayed = until_noted.clone().all(|(_, members)| members.contains(id));
            (stayed && views.last().is_some_and(|last| claim.epoch <= last.0)).then_some(claim.committed)
        });
        let told = told.collect::<Option<Vec<Seq>>>().and_then(|told| told.into_iter().max());
        bound = bound.max(acked.into_iter().chain(told).min()?);
    }
    Some(bound)
}
