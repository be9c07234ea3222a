//! What can happen next, and what comes of it.

use crate::{
    Bounds, Mistake,
    state::{Epoch, Lease, Log, SERVERS, Server, State, View},
};

/// One thing that can happen. Servers are numbers from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The control plane installs the next view.
    View(View),
    /// A server hears of the latest view.
    Adopt(usize),
    /// The leader has all reports: its log is the order.
    Lead(usize),
    /// A member takes over the order of its epoch.
    Install(usize),
    /// The leader gives a write the next place.
    Stamp(usize, u8),
    /// A member becomes ready for the next place of the order, and acks.
    Ready(usize),
    /// A member sees that all have acked the next place.
    Commit(usize),
    /// The control plane gives a lease; its answer is under way.
    Grant(usize),
    /// The answer arrives.
    Granted(usize),
    /// A server reads the views after it was given a lease, and counts on the lease from then on.
    ReadViews(usize),
    /// A server's lease is over by its own clock.
    Lapse(usize),
    /// A lease is over by the control plane's clock.
    Expire(usize),
    /// A mistake: a lease that lapsed counts at once when it is renewed.
    Revive(usize),
    /// A server loses its memory.
    Crash(usize),
    /// It comes back as a new incarnation.
    Restart(usize),
}

/// All that can happen next.
pub(crate) fn actions(bounds: &Bounds, state: &State, actions: &mut Vec<Action>) {
    if state.latest < bounds.epochs {
        views(bounds, state, actions);
    }
    for id in 0..SERVERS {
        let server = &state.servers[id];
        if state.leased.has(id) && server.lease == Lease::None {
            actions.push(Action::Expire(id));
        }
        if server.down {
            if !state.leased.has(id) && !state.epoch(state.latest).view.members.has(id) {
                actions.push(Action::Restart(id));
            }
            continue;
        }
        if state.crashes < bounds.crashes {
            actions.push(Action::Crash(id));
        }
        if server.epoch < state.latest {
            actions.push(Action::Adopt(id));
        }
        leases(bounds, state, id, actions);
        replication(bounds, state, id, actions);
    }
}

/// The next view: one member less, another leader, one member more, or one that has joined.
fn views(bounds: &Bounds, state: &State, actions: &mut Vec<Action>) {
    let Epoch { view, base, .. } = *state.epoch(state.latest);
    for id in 0..SERVERS {
        if view.members.has(id) {
            let next = View { members: view.members.without(id), joining: view.joining.without(id), ..view };
            if !state.leased.has(id) || bounds.has(Mistake::RemovedWhileLeased) {
                let leaders = next.serving();
                let stays = leaders.has(usize::from(view.leader));
                let leaders = leaders.iter().filter(|leader| !stays || *leader == usize::from(view.leader));
                leaders.for_each(|leader| actions.push(Action::View(View { leader: leader as u8, ..next })));
            }
        } else if !state.servers[id].down {
            let next = View { members: view.members.with(id), joining: view.joining.with(id), ..view };
            actions.push(Action::View(next));
        }
        if view.serving().has(id) && id != usize::from(view.leader) {
            actions.push(Action::View(View { leader: id as u8, ..view }));
        }
        let Server { epoch, installed, log, .. } = state.servers[id];
        if view.joining.has(id) && epoch == state.latest && installed && log.last() >= base {
            actions.push(Action::View(View { joining: view.joining.without(id), ..view }));
        }
    }
}

fn leases(bounds: &Bounds, state: &State, id: usize, actions: &mut Vec<Action>) {
    let lease = state.servers[id].lease;
    if lease == Lease::None {
        if !state.leased.has(id) && !state.granted.has(id) {
            actions.push(Action::Grant(id));
        }
        if bounds.has(Mistake::LeaseRevived) {
            actions.push(Action::Revive(id));
        }
    } else if state.lapses < bounds.lapses {
        actions.push(Action::Lapse(id));
    }
    if state.granted.has(id) {
        actions.push(Action::Granted(id));
    }
    if lease == Lease::NeedsViews {
        actions.push(Action::ReadViews(id));
    }
}

fn replication(bounds: &Bounds, state: &State, id: usize, actions: &mut Vec<Action>) {
    let Server { epoch: number, installed, log, committed, .. } = state.servers[id];
    let epoch = state.epoch(number);
    if !epoch.view.members.has(id) {
        return;
    }
    let leads = usize::from(epoch.view.leader) == id;
    match epoch.order {
        None if leads && epoch.reported == epoch.view.members => actions.push(Action::Lead(id)),
        Some(_) if !installed && !leads => actions.push(Action::Install(id)),
        Some(order) if installed => {
            let new = (1..=bounds.writes).filter(|write| leads && !order.holds(*write));
            new.for_each(|write| actions.push(Action::Stamp(id, write)));
            if log.last() < order.last() {
                actions.push(Action::Ready(id));
            }
            if committed < log.last() && committed < all_acked(bounds, state, id) {
                actions.push(Action::Commit(id));
            }
        }
        _ => {}
    }
}

/// Up to where a member sees acks of all members of its view.
fn all_acked(bounds: &Bounds, state: &State, id: usize) -> u8 {
    let number = state.servers[id].epoch;
    let acked = |member: usize| {
        let earlier = if bounds.has(Mistake::AcksOfOtherEpochs) { 1 } else { number };
        (earlier..=number).map(|epoch| state.epoch(epoch).acked[member]).max().unwrap_or(0)
    };
    state.epoch(number).view.members.iter().map(acked).min().unwrap_or(0)
}

/// The state after an action that can happen.
pub(crate) fn after(bounds: &Bounds, state: &State, action: Action) -> State {
    let mut next = state.clone();
    match action {
        Action::View(view) => {
            next.latest += 1;
            next.epoch_mut(state.latest + 1).view = view;
        }
        Action::Adopt(id) => adopt(&mut next, id, state.latest),
        Action::Lead(id) => lead(bounds, &mut next, id),
        Action::Install(id) => install(&mut next, id),
        Action::Stamp(id, write) => {
            let epoch = next.epoch_mut(state.servers[id].epoch);
            epoch.order = epoch.order.map(|order| order.with(write));
            ready(&mut next, id);
        }
        Action::Ready(id) => ready(&mut next, id),
        Action::Commit(id) => commit(&mut next, id, state.servers[id].committed + 1),
        Action::Grant(id) => (next.leased, next.granted) = (state.leased.with(id), state.granted.with(id)),
        Action::Granted(id) => {
            next.granted = state.granted.without(id);
            let late = !state.leased.has(id);
            // An answer that comes late is worthless: the lease that it tells of is over.
            if state.servers[id].lease == Lease::None && (!late || bounds.has(Mistake::LateGrantCounts)) {
                next.servers[id].lease = Lease::NeedsViews;
            }
        }
        Action::ReadViews(id) => {
            if state.servers[id].epoch < state.latest {
                adopt(&mut next, id, state.latest);
            }
            next.servers[id].lease = Lease::Counts;
        }
        Action::Lapse(id) => (next.servers[id].lease, next.lapses) = (Lease::None, state.lapses + 1),
        Action::Expire(id) => {
            next.leased = state.leased.without(id);
            if !bounds.has(Mistake::LateGrantCounts) {
                next.granted = state.granted.without(id);
            }
        }
        Action::Revive(id) => (next.leased, next.servers[id].lease) = (state.leased.with(id), Lease::Counts),
        Action::Crash(id) => {
            next.servers[id] = Server { down: true, was_down: true, ..Server::default() };
            next.granted = state.granted.without(id);
            next.crashes += 1;
        }
        Action::Restart(id) => next.servers[id].down = false,
    }
    if !bounds.has(Mistake::AcksOfOtherEpochs) {
        next.forget_the_past();
    }
    next
}

fn adopt(next: &mut State, id: usize, epoch: u8) {
    let is_member = next.epoch(epoch).view.members.has(id);
    let server = &mut next.servers[id];
    (server.epoch, server.installed) = (epoch, false);
    if is_member {
        let said = next.epoch_mut(epoch);
        said.reported = said.reported.with(id);
    } else {
        server.log = server.log.up_to(server.committed);
    }
}

fn lead(bounds: &Bounds, next: &mut State, id: usize) {
    let Server { epoch, log, committed, .. } = next.servers[id];
    let order = if bounds.has(Mistake::OrderIsWhatIsCommitted) { log.up_to(committed) } else { log };
    let said = next.epoch_mut(epoch);
    (said.order, said.from, said.base) = (Some(order), committed, order.last());
    said.acked[id] = order.last();
    let server = &mut next.servers[id];
    (server.installed, server.log) = (true, order);
}

/// A member keeps what is committed and is ready for what it holds of the rest. One that is behind `from` is given the
/// objects first; only a joining member ever is.
fn install(next: &mut State, id: usize) {
    let Server { epoch, log, committed, .. } = next.servers[id];
    let Epoch { order, from, .. } = *next.epoch(epoch);
    let order = order.unwrap_or_default();
    let same = (0..=log.last().min(order.last())).rev().find(|seq| log.up_to(*seq) == order.up_to(*seq)).unwrap_or(0);
    let kept: Log = order.up_to(same.max(from));
    let kept = if committed > kept.last() { log.up_to(committed) } else { kept };
    let server = &mut next.servers[id];
    (server.installed, server.log) = (true, kept);
    next.epoch_mut(epoch).acked[id] = kept.last();
    if from > committed {
        commit(next, id, from);
    }
}

/// The next write of the order is here: it is ready, and acked.
fn ready(next: &mut State, id: usize) {
    let server = &mut next.servers[id];
    let (epoch, seq) = (server.epoch, server.log.last() + 1);
    let Some(order) = next.epochs[usize::from(epoch)].order.filter(|order| order.last() >= seq) else { return };
    server.log = server.log.with(order.at(seq));
    next.epoch_mut(epoch).acked[id] = seq;
}

/// A server applies what is committed; from now on a client may have been told.
fn commit(next: &mut State, id: usize, seq: u8) {
    let server = &mut next.servers[id];
    server.committed = seq;
    let Server { log, epoch, .. } = *server;
    if seq > next.told.last() {
        (next.told, next.told_in) = (log.up_to(seq), epoch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Servers;

    #[test]
    fn a_member_cannot_be_removed_while_it_is_leased() {
        let bounds = Bounds { epochs: 2, writes: 1, crashes: 0, lapses: 0, mistake: None };
        let mut found = Vec::new();
        actions(&bounds, &State::first(), &mut found);
        let fewer = |action: &Action| matches!(action, Action::View(view) if view.members != Servers(0b111));
        assert!(!found.iter().any(fewer));
    }
}
