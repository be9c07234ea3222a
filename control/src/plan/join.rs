//! How servers come into views: as learners, then as joining members, then as serving ones; and how leaders are spread
//! evenly again afterwards. Every step is an epoch of its own.

use std::collections::{BTreeMap, BTreeSet};

use star_core::ids::{Epoch, ServerId, StarId};

use super::{leaderships, named};
use crate::view::{ClusterState, View};

/// Makes learners of living servers, where a star has fewer than it should.
pub(super) fn add_learners(state: &mut ClusterState, replicas: Option<usize>, alive: &BTreeSet<ServerId>) {
    for star in 0..state.stars.len() {
        let view = &state.stars[star];
        let has = named(view).count();
        let wanted = replicas.unwrap_or(alive.len()).max(1);
        if view.members.is_empty() || has >= wanted {
            continue;
        }
        let held = places(state);
        let present: BTreeSet<ServerId> = named(view).collect();
        let mut candidates: Vec<ServerId> = alive.difference(&present).copied().collect();
        candidates.sort_by_key(|id| (held.get(id).copied().unwrap_or(0), *id));
        candidates.truncate(wanted - has);
        if !candidates.is_empty() {
            let view = &mut state.stars[star];
            view.epoch = view.epoch.next();
            view.learners.extend(candidates);
            view.learners.sort();
        }
    }
}

/// Lets a server that leads few stars lead one of a server that leads at least two more; one move at a time, and only
/// while nobody is on the way into a view.
pub(super) fn spread_leaders(state: &mut ClusterState) {
    if state.stars.iter().any(|view| !view.joining.is_empty() || !view.learners.is_empty()) {
        return;
    }
    let led = leaderships(state);
    let count = |id: ServerId| led.get(&id).copied().unwrap_or(0);
    for star in 0..state.stars.len() {
        let view = &state.stars[star];
        let least = view.serving().min_by_key(|id| (count(*id), *id));
        if let Some(least) = least.filter(|least| count(*least) + 1 < count(view.leader)) {
            let view = &mut state.stars[star];
            view.epoch = view.epoch.next();
            view.leader = least;
            return;
        }
    }
}

/// The state after a server took its next step in stars where it is ready for it: a learner becomes a joining member, a
/// joining member a serving one. `ready` names the epochs that the server speaks of; other epochs stay as they are.
/// `None` if nothing changes.
pub fn advanced(state: &ClusterState, me: ServerId, ready: &[(StarId, Epoch)]) -> Option<ClusterState> {
    let mut next = state.clone();
    for (star, epoch) in ready {
        if let Some(view) = next.stars.get_mut(usize::from(star.0)).filter(|view| view.epoch == *epoch) {
            step(view, me);
        }
    }
    (next != *state).then_some(next)
}

fn step(view: &mut View, me: ServerId) {
    if view.learners.contains(&me) {
        view.learners.retain(|id| *id != me);
        view.members.push(me);
        view.members.sort();
        view.joining.push(me);
        view.joining.sort();
    } else if view.joining.contains(&me) {
        view.joining.retain(|id| *id != me);
    } else {
        return;
    }
    view.epoch = view.epoch.next();
}

/// In how many views each server is.
fn places(state: &ClusterState) -> BTreeMap<ServerId, usize> {
    let mut places = BTreeMap::new();
    for id in state.stars.iter().flat_map(named) {
        *places.entry(id).or_insert(0) += 1;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{PlanConfig, plan};

    fn view(star: u16, members: &[u16], leader: u16) -> View {
        View {
            star: StarId(star),
            epoch: Epoch(5),
            founded: Epoch(1),
            members: members.iter().copied().map(ServerId).collect(),
            leader: ServerId(leader),
            ..View::default()
        }
    }

    fn state(stars: Vec<View>) -> ClusterState {
        ClusterState { stars, ..ClusterState::new("test", 1) }
    }

    fn wanted() -> PlanConfig {
        PlanConfig { stars: 1, initial_servers: usize::MAX, replicas: None, follow_alive: true }
    }

    fn alive(count: u16) -> BTreeSet<ServerId> {
        (0..count).map(ServerId).collect()
    }

    #[test]
    fn a_server_that_is_alive_and_missing_comes_in_by_three_steps() {
        let start = state(vec![view(0, &[0, 1], 0)]);
        let learning = plan(&start, &wanted(), &alive(3)).expect("a plan");
        assert_eq!(learning.stars[0].learners, vec![ServerId(2)]);
        assert_eq!(learning.stars[0].epoch, Epoch(6));
        assert_eq!(plan(&learning, &wanted(), &alive(3)), None, "then it is the learner's turn");
        let ready = [(StarId(0), Epoch(6))];
        let joining = advanced(&learning, ServerId(2), &ready).expect("a step");
        assert_eq!(joining.stars[0].members, vec![ServerId(0), ServerId(1), ServerId(2)]);
        assert_eq!((&joining.stars[0].joining, &joining.stars[0].learners), (&vec![ServerId(2)], &vec![]));
        assert_eq!(advanced(&joining, ServerId(2), &ready), None, "what is said of an older epoch counts no more");
        let serving = advanced(&joining, ServerId(2), &[(StarId(0), Epoch(7))]).expect("a step");
        assert_eq!(serving.stars[0].serving().count(), 3);
        assert_eq!(serving.stars[0].epoch, Epoch(8));
        assert_eq!(advanced(&serving, ServerId(2), &[(StarId(0), Epoch(8))]), None);
    }

    #[test]
    fn nobody_else_can_be_advanced() {
        let start = state(vec![View { learners: vec![ServerId(2)], ..view(0, &[0, 1], 0) }]);
        for other in [0, 1, 3] {
            assert_eq!(advanced(&start, ServerId(other), &[(StarId(0), Epoch(5))]), None);
        }
    }

    #[test]
    fn leaders_spread_one_at_a_time_until_they_are_even_and_then_rest() {
        let mut state = state((0..8).map(|star| view(star, &[0, 1, 2], 0)).collect());
        let mut moves = 0;
        while let Some(next) = plan(&state, &wanted(), &alive(3)) {
            let changed = state.stars.iter().zip(&next.stars).filter(|(before, after)| before != after).count();
            assert_eq!(changed, 1);
            state = next;
            moves += 1;
            assert!(moves < 20, "it never rests");
        }
        let led = leaderships(&state);
        assert!(led.values().all(|count| (2..=3).contains(count)), "{led:?}");
    }

    #[test]
    fn leaders_stay_while_somebody_is_on_the_way_in() {
        let mut stars: Vec<View> = (0..8).map(|star| view(star, &[0, 1, 2], 0)).collect();
        stars[3].joining.push(ServerId(2));
        assert_eq!(plan(&state(stars), &wanted(), &alive(3)), None);
    }

    #[test]
    fn no_more_learners_than_the_wanted_replicas() {
        let wanted = PlanConfig { replicas: Some(3), ..wanted() };
        let start = state(vec![view(0, &[0, 1], 0), view(1, &[2, 3], 2)]);
        let next = plan(&start, &wanted, &alive(5)).expect("a plan");
        // The server that is in no view yet comes first.
        assert_eq!(next.stars[0].learners, vec![ServerId(4)]);
        assert_eq!(next.stars[1].learners.len(), 1);
    }
}
