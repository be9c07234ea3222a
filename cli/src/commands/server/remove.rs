//! Forgetting a server, and giving up what only it has.

use std::collections::BTreeSet;

use serde_json::json;
use star_control::{
    ClusterState, ControlPlane, PlanConfig, Standing,
    plan::{alive, awaited, chronicled, plan, removed},
};
use star_core::{ServerId, config::Config};

use super::change;
use crate::{
    args::GlobalArgs,
    error::{CliError, CliResult, Exit},
    output,
};

/// What became of the stars of a server that was given up.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fates {
    /// They begin empty.
    lost: Vec<u16>,
    /// Of these, the ones that nobody is there to serve yet.
    waiting: Vec<u16>,
    /// They go on with what another server's store held.
    resumed: Vec<u16>,
}

pub(super) async fn run(global: &GlobalArgs, config: &Config, name: &str, loses: bool) -> CliResult {
    let plane = star::control_plane(config)?;
    let replicas = (config.cluster.replicas > 0).then_some(config.cluster.replicas.into());
    let leases = plane.leases().await?;
    let mut fates = Fates::default();
    let next = |state: &ClusterState, id| {
        let alive = alive(state, &leases);
        let Some(after) = removed(state, id, loses).map_err(|why| refused(state, id, &alive, &why))? else {
            return Ok(None);
        };
        let after = begun_again(state, after, replicas, &alive);
        fates = Fates::of(state, &after);
        Ok(Some(after))
    };
    change(&plane, name, next).await?;
    if global.json {
        let standing = Standing::Removed;
        let Fates { lost, resumed, .. } = &fates;
        let line = json!({ "status": "OK", "server": name, "standing": standing, "lost": lost, "resumed": resumed });
        output::json_line(&line)?;
    } else {
        output::line(format!("server {name} is removed"))?;
        fates.sentences().into_iter().try_for_each(output::line)?;
    }
    Ok(Exit::Done)
}

/// Why a server is not forgotten, and what to do.
fn refused(state: &ClusterState, id: ServerId, alive: &BTreeSet<ServerId>, why: &dyn std::fmt::Display) -> CliError {
    let name = state.server(id).map_or_else(|| id.to_string(), |server| server.name.clone());
    let waits = |star: &usize| awaited(state, *star, alive).contains(&id);
    let stars: Vec<u16> = (0..state.stars.len()).filter(waits).map(|star| state.stars[star].star.0).collect();
    if stars.is_empty() {
        return CliError::new(format!("server {name} cannot be removed: {why}"));
    }
    let stars = listed(&stars);
    CliError::new(format!(
        "server {name} cannot be removed: it has ended, and stars {stars} wait for the objects it had"
    ))
    .hint(format!("start it again, or give up what only it has: star server remove {name} --lose-objects"))
}

/// The state in which the stars that a removal leaves without members have some again. Planners wait with such stars until as
/// many servers are alive as are configured, for one of them may come with a store that certainly holds everything. Here
/// it is known that none will, since only the server that is given up could tell what was done at the end; and as it counts
/// among the configured ones they might wait for good.
fn begun_again(
    before: &ClusterState,
    removed: ClusterState,
    replicas: Option<usize>,
    alive: &BTreeSet<ServerId>,
) -> ClusterState {
    let wanted = PlanConfig { stars: removed.stars.len() as u16, initial_servers: 1, replicas, follow_alive: true };
    let Some(planned) = plan(&removed, &wanted, alive) else { return removed };
    let mut next = removed;
    for (star, view) in next.stars.iter_mut().enumerate() {
        if view.members.is_empty() && !before.stars[star].members.is_empty() {
            view.clone_from(&planned.stars[star]);
        }
    }
    chronicled(before, next)
}

impl Fates {
    fn of(before: &ClusterState, after: &ClusterState) -> Self {
        let mut fates = Self::default();
        for (old, new) in before.stars.iter().zip(&after.stars).filter(|(old, _)| !old.members.is_empty()) {
            if new.members.is_empty() {
                fates.waiting.push(new.star.0);
            }
            if new.members.is_empty() || new.founded > old.founded {
                fates.lost.push(new.star.0);
            } else if new.resumed > old.resumed {
                fates.resumed.push(new.star.0);
            }
        }
        fates
    }

    fn sentences(&self) -> Vec<String> {
        let say = |stars: &[u16], what: &dyn Fn(String) -> String| (!stars.is_empty()).then(|| what(listed(stars)));
        [
            say(&self.lost, &|stars| format!("the objects of stars {stars} are lost: these stars begin empty")),
            say(&self.waiting, &|stars| format!("stars {stars} have no server yet: start one")),
            say(&self.resumed, &|stars| format!("stars {stars} go on with what the store of another server held")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Numbers of stars, for people.
fn listed(stars: &[u16]) -> String {
    stars.iter().map(u16::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use star_control::{ServerRecord, View, plan::ended_lives};
    use star_core::{Epoch, StarId};

    use super::*;

    const D: ServerId = ServerId(3);

    /// Four servers, of which d has star 0 alone, star 1 with a, and a has star 2; star 3 lost its objects before.
    fn cluster() -> ClusterState {
        let mut state = ClusterState::new("test-1", 4);
        for (id, name) in (0..).zip(["a", "b", "c", "d"]) {
            state.servers.push(ServerRecord { id: ServerId(id), name: name.into(), ..ServerRecord::default() });
        }
        for (star, members) in [vec![D], vec![ServerId(0), D], vec![ServerId(0)], vec![]].into_iter().enumerate() {
            let leader = members.first().copied().unwrap_or_default();
            let (star_id, epoch, founded) = (StarId(star as u16), Epoch(5), Epoch(1));
            state.stars[star] = View { star: star_id, epoch, founded, members, leader, ..View::default() };
        }
        state
    }

    fn given_up(state: &ClusterState, alive: &[u16]) -> (ClusterState, Fates) {
        let alive = alive.iter().copied().map(ServerId).collect();
        let next = removed(state, D, true).expect("it may be removed").expect("that is a change");
        let next = begun_again(state, next, None, &alive);
        next.check().expect("a sound state");
        next.check_follows(state).expect("the history goes on");
        assert_eq!(ended_lives(state, &next, None), ["d"], "nobody else ends");
        let fates = Fates::of(state, &next);
        (next, fates)
    }

    #[test]
    fn a_star_that_the_server_had_alone_begins_again_with_whoever_lives() {
        let state = cluster();
        let (next, fates) = given_up(&state, &[0, 1]);
        assert_eq!(fates, Fates { lost: vec![0], ..Fates::default() });
        assert_eq!(next.stars[0].members, [ServerId(0), ServerId(1)], "though not all of four are there");
        assert!(next.stars[0].founded > Epoch(1));
        assert_eq!((&next.stars[1].members, next.stars[1].founded), (&vec![ServerId(0)], Epoch(1)));
        assert_eq!(next.stars[2], state.stars[2], "nothing of it is given up");
        assert_eq!(next.stars[3], state.stars[3], "somebody may come with its objects still");
        assert_eq!(fates.sentences(), ["the objects of stars 0 are lost: these stars begin empty"]);
    }

    #[test]
    fn where_nobody_lives_a_star_has_to_wait() {
        let (next, fates) = given_up(&cluster(), &[]);
        assert_eq!(next.stars[0].members, []);
        assert_eq!(fates, Fates { lost: vec![0], waiting: vec![0], ..Fates::default() });
        assert_eq!(fates.sentences().len(), 2);
    }

    #[test]
    fn a_refusal_says_how_to_give_up_only_where_something_waits_for_the_server() {
        let state = cluster();
        let hint = |alive: &[u16]| {
            let alive = alive.iter().copied().map(ServerId).collect();
            let why = removed(&state, D, false).expect_err("it is in views");
            refused(&state, D, &alive, &why).message()
        };
        assert!(hint(&[0, 1, 2, 3]).contains("drain it first"));
        assert!(hint(&[0, 1, 2]).contains("it has ended, and stars 0 wait for the objects it had"), "{}", hint(&[0]));
        assert!(hint(&[1]).contains("stars 0 1 wait"));
    }
}
