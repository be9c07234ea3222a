//! How servers come into views: as learners, then as joining members, then as serving ones; and how leaders are spread
//! evenly again afterwards. Every step is an epoch of its own.

use std::collections::BTreeSet;

use star_core::ids::ServerId;

use super::{
    leaderships,
    moves::{is_moving, may_move},
    named, places,
    reach::reaches_all_that_stay,
    wanted_members,
};
use crate::view::{ClusterState, Standing};

/// Makes learners of living servers, where a star has fewer members than it should. Where that is only because members
/// are to be drained, few stars at a time: they have their copies meanwhile.
pub(super) fn add_learners(state: &mut ClusterState, replicas: Option<usize>, alive: &BTreeSet<ServerId>) {
    let wanted = wanted_members(state, replicas, alive);
    for star in 0..state.stars.len() {
        let view = &state.stars[star];
        let stops = |id: ServerId| state.server(id).is_some_and(|server| server.standing == Standing::Stopping);
        let stays = |id: &ServerId| !view.leaving.contains(id);
        let has = named(view).filter(|id| stays(id) && !stops(*id)).count();
        let has_active = named(view).filter(|id| stays(id) && state.is_active(*id)).count();
        // There is nothing to learn where nobody lives who has the objects.
        if has_active >= wanted || !view.holders().any(|id| alive.contains(&id)) {
            continue;
        }
        let room = match wanted.checked_sub(has) {
            Some(lacking) if lacking > 0 => lacking,
            _ if may_move(state, star, alive) => 1,
            _ => continue,
        };
        let held = places(state);
        let present: BTreeSet<ServerId> = named(view).collect();
        let fits = |id: &ServerId| state.is_active(*id) && reaches_all_that_stay(state, view, *id);
        let mut candidates: Vec<ServerId> = alive.difference(&present).copied().filter(fits).collect();
        candidates.sort_by_key(|id| (held.get(id).copied().unwrap_or(0), *id));
        let mut learners: Vec<ServerId> = Vec::new();
        for one in candidates {
            let reaches_learners = view.learners.iter().chain(&learners).all(|other| state.reach(*other, one));
            if reaches_learners && learners.len() < room {
                learners.push(one);
            }
        }
        if !learners.is_empty() {
            let view = &mut state.stars[star];
            view.epoch = view.epoch.next();
            view.learners.extend(learners);
            view.learners.sort();
        }
    }
}

/// Lets a server that leads few stars lead one of a server that leads at least two more; one move at a time, and only
/// while nobody is on the way into a view. Stars that wait for their members go on as they are.
pub(super) fn spread_leaders(state: &mut ClusterState, alive: &BTreeSet<ServerId>) {
    if state.stars.iter().any(|view| is_moving(view, alive)) {
        return;
    }
    let led = leaderships(state);
    let count = |id: ServerId| led.get(&id).copied().unwrap_or(0);
    for star in 0..state.stars.len() {
        let view = &state.stars[star];
        if !view.members.iter().all(|id| alive.contains(id)) {
            continue;
        }
        let least = view.serving().filter(|id| state.is_active(*id)).min_by_key(|id| (count(*id), *id));
        if let Some(least) = least.filter(|least| count(*least) + 1 < count(view.leader)) {
            let view = &mut state.stars[star];
            view.epoch = view.epoch.next();
            view.leader = least;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use star_core::ids::{Epoch, StarId};

    use super::*;
    use crate::{
        plan::{PlanConfig, advanced, plan, tests::cluster},
        view::View,
    };

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
        ClusterState { stars, ..cluster(5, 1) }
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
        let joining = advanced(&learning, ServerId(2), &ready, &alive(5)).expect("a step");
        assert_eq!(joining.stars[0].members, vec![ServerId(0), ServerId(1), ServerId(2)]);
        assert_eq!((&joining.stars[0].joining, &joining.stars[0].learners), (&vec![ServerId(2)], &vec![]));
        assert_eq!(
            advanced(&joining, ServerId(2), &ready, &alive(5)),
            None,
            "what is said of an older epoch counts no more"
        );
        let serving = advanced(&joining, ServerId(2), &[(StarId(0), Epoch(7))], &alive(5)).expect("a step");
        assert_eq!(serving.stars[0].serving().count(), 3);
        assert_eq!(serving.stars[0].epoch, Epoch(8));
        assert_eq!(advanced(&serving, ServerId(2), &[(StarId(0), Epoch(8))], &alive(5)), None);
    }

    #[test]
    fn nobody_else_can_be_advanced() {
        let start = state(vec![View { learners: vec![ServerId(2)], ..view(0, &[0, 1], 0) }]);
        for other in [0, 1, 3] {
            assert_eq!(advanced(&start, ServerId(other), &[(StarId(0), Epoch(5))], &alive(5)), None);
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
