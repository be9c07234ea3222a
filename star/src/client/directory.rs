//! What a client knows of a cluster: its servers, and which of them serve which star. It may be old; then servers refuse,
//! and it is asked for anew.

use std::sync::Arc;

use star_control::{ClusterState, ServerRecord};
use star_core::{Key, StarId, network::TcpClient};

use super::Options;

/// A server as clients see it.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) client: TcpClient,
    /// The path of its mapped store.
    pub(super) store: Option<String>,
}

/// Which attempt of an operation it is: the first server it may go to, drawn once, and how many it has asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) first: usize,
    pub(super) number: usize,
    /// Whether whoever leads the star is asked before all others.
    pub(super) leader_first: bool,
}

/// The servers, and who serves which star.
#[derive(Debug)]
pub(super) struct Directory {
    /// At least one.
    all: Vec<Arc<Server>>,
    /// For each star the places in `all` of the servers that serve it; no stars at all before the first view.
    serving: Vec<Vec<usize>>,
    /// For each star the place of the server that leads it, if that is known.
    leaders: Vec<Option<usize>>,
    /// Of all views together: grows with each change of any of them.
    epochs: u64,
}

impl Directory {
    /// What the cluster's state says of these servers, or of all that it knows. Servers that were known `before` keep
    /// their connections.
    pub(super) fn new(
        given: &[String],
        cluster: Option<&ClusterState>,
        options: &Options,
        before: &[Arc<Server>],
    ) -> Self {
        let known = cluster.map(|cluster| cluster.servers.as_slice()).unwrap_or_default();
        let server = |name: &str, addr: &str, store: Option<&String>| {
            let same = before.iter().find(|one| one.client.addr() == addr && one.store.as_ref() == store);
            same.filter(|one| one.name == name).cloned().unwrap_or_else(|| {
                let client = before.iter().find(|one| one.client.addr() == addr).map(|one| one.client.clone());
                let client = client.unwrap_or_else(|| TcpClient::new(addr.to_owned(), options.network.clone()));
                Arc::new(Server { name: name.to_owned(), client, store: store.cloned() })
            })
        };
        let record = |one: &ServerRecord| server(&one.name, &one.addr, one.store.as_ref());
        let all: Vec<_> = if known.is_empty() || options.only_given {
            let named = |addr: &String| known.iter().find(|one| one.addr == *addr);
            given.iter().map(|addr| named(addr).map_or_else(|| server(addr, addr, None), record)).collect()
        } else {
            known.iter().map(record).collect()
        };
        let views = cluster.map(|cluster| cluster.stars.as_slice()).unwrap_or_default();
        let place = |id| {
            let addr = &cluster?.server(id)?.addr;
            all.iter().position(|one: &Arc<Server>| one.client.addr() == addr)
        };
        let serving = views.iter().map(|view| view.serving().filter_map(place).collect()).collect();
        let leaders = views.iter().map(|view| view.exists().then(|| place(view.leader)).flatten()).collect();
        let epochs = views.iter().map(|view| view.epoch.0).sum();
        Self { all, serving, leaders, epochs }
    }

    /// The servers, at least one.
    pub(super) fn all(&self) -> &[Arc<Server>] {
        &self.all
    }

    /// Of all views together: grows with each change of any of them.
    pub(super) fn epochs(&self) -> u64 {
        self.epochs
    }

    /// All stars; none if they are not known.
    pub(super) fn stars(&self) -> impl Iterator<Item = StarId> {
        (0..self.serving.len() as u16).map(StarId)
    }

    /// The star of a key, if stars are known.
    pub(super) fn star_of(&self, key: &Key) -> Option<StarId> {
        (!self.serving.is_empty()).then(|| key.star(self.serving.len() as u16))
    }

    /// The server to ask: the leader, if it is to be first; then those that serve the star, as far as is known, one after
    /// another; then all, since what is known may be old; and so on.
    pub(super) fn choose(&self, star: Option<StarId>, attempt: Attempt) -> &Arc<Server> {
        if let (true, 0, Some(leader)) = (attempt.leader_first, attempt.number, self.leader(star)) {
            return &self.all[leader];
        }
        let serving = star.map(|star| self.serving(star)).unwrap_or_default();
        let round = attempt.number % (serving.len() + self.all.len());
        let place = attempt.first.wrapping_add(round);
        if round < serving.len() {
            &self.all[serving[place % serving.len()]]
        } else {
            &self.all[place % self.all.len()]
        }
    }

    /// Splits stars among servers that serve them, among as few as is simple to find. `tried`: the addresses of servers that
    /// are to be left out where others serve the same.
    pub(super) fn cover(
        &self,
        stars: &[StarId],
        tried: &[String],
        attempt: Attempt,
    ) -> Vec<(Arc<Server>, Vec<StarId>)> {
        let count = self.all.len();
        let fresh = |place: usize| !tried.iter().any(|addr| addr == self.all[place].client.addr());
        let mut open = stars.to_vec();
        let mut groups = Vec::new();
        while !open.is_empty() {
            let share = |place: usize| open.iter().filter(|star| self.serving(**star).contains(&place)).count();
            let places = (0..count).map(|turn| (attempt.first.wrapping_add(attempt.number) + turn) % count);
            // The first of those with the greatest share; `max_by_key` would take the last.
            let best =
                places.filter(|place| fresh(*place)).map(|place| (share(place), place)).rev().max_by_key(|one| one.0);
            let Some((1.., place)) = best else {
                // Nobody who was not tried is known to serve the rest: whoever comes next may know better.
                let server = self.choose(open.first().copied(), attempt);
                groups.push((Arc::clone(server), open));
                break;
            };
            let (group, rest) = open.into_iter().partition(|star| self.serving(*star).contains(&place));
            groups.push((Arc::clone(&self.all[place]), group));
            open = rest;
        }
        groups
    }

    fn leader(&self, star: Option<StarId>) -> Option<usize> {
        *self.leaders.get(usize::from(star?.0))?
    }

    fn serving(&self, star: StarId) -> &[usize] {
        self.serving.get(usize::from(star.0)).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use star_control::View;
    use star_core::{Epoch, ServerId};

    use super::*;

    /// Servers a, b, c …, and for each star who serves it.
    fn directory(servers: u16, serving: &[&[u16]]) -> Directory {
        let record = |id: u16| ServerRecord {
            id: ServerId(id),
            name: char::from(b'a' + id as u8).to_string(),
            addr: format!("127.0.0.1:{}", 7000 + id),
            ..ServerRecord::default()
        };
        let view = |members: &&[u16]| View {
            epoch: Epoch(1),
            members: members.iter().copied().map(ServerId).collect(),
            leader: ServerId(members[members.len() - 1]),
            ..View::default()
        };
        let cluster = ClusterState {
            servers: (0..servers).map(record).collect(),
            stars: serving.iter().map(view).collect(),
            ..ClusterState::default()
        };
        Directory::new(&[], Some(&cluster), &Options::default(), &[])
    }

    fn at(first: usize, number: usize) -> Attempt {
        Attempt { first, number, leader_first: false }
    }

    fn groups(directory: &Directory, stars: &[u16], tried: &[&str], attempt: Attempt) -> Vec<(String, Vec<u16>)> {
        let stars: Vec<_> = stars.iter().copied().map(StarId).collect();
        let addr = |name: &&str| directory.all.iter().find(|one| one.name == **name).unwrap().client.addr().to_owned();
        let tried: Vec<String> = tried.iter().map(addr).collect();
        let cover = directory.cover(&stars, &tried, attempt);
        cover.into_iter().map(|(one, stars)| (one.name.clone(), stars.iter().map(|star| star.0).collect())).collect()
    }

    #[test]
    fn a_star_is_asked_for_where_it_is_served_and_then_everywhere() {
        let directory = directory(4, &[&[1, 3], &[0, 2]]);
        let names = |first| -> String {
            (0..6).map(|number| directory.choose(Some(StarId(0)), at(first, number)).name.as_str()).collect()
        };
        assert_eq!(names(0), "bdcdab", "first b and d, then each of all");
        assert_eq!(names(usize::MAX)[..1], *"d", "however large the number drawn is");
        assert_eq!(directory.choose(None, at(2, 0)).name, "c", "without a star any will do");
    }

    #[test]
    fn the_leader_comes_first_where_it_is_known() {
        let directory = directory(4, &[&[1, 3], &[0, 2]]);
        let name = |star, first, number| {
            directory.choose(star, Attempt { leader_first: true, ..at(first, number) }).name.as_str()
        };
        assert_eq!((0..3).map(|first| name(Some(StarId(0)), first, 0)).collect::<String>(), "ddd");
        assert_eq!(
            (1..7).map(|number| name(Some(StarId(0)), 0, number)).collect::<String>(),
            "dcdabb",
            "then as always"
        );
        assert_eq!(name(None, 1, 0), "b");
    }

    #[test]
    fn one_server_that_serves_all_stars_is_enough() {
        let directory = directory(3, &[&[0, 1, 2], &[0, 1, 2], &[0, 2, 1]]);
        for (first, name) in [(0, "a"), (1, "b"), (5, "c")] {
            assert_eq!(groups(&directory, &[0, 1, 2], &[], at(first, 0)), [(name.to_owned(), vec![0, 1, 2])]);
        }
    }

    #[test]
    fn every_star_is_in_one_group_at_a_server_that_serves_it() {
        let serving: [&[u16]; 8] =
            [&[0, 1, 2], &[1, 2, 3], &[2, 3, 4], &[3, 4, 0], &[4, 0, 1], &[0, 2, 4], &[1, 3, 0], &[2, 4, 1]];
        let directory = directory(5, &serving);
        for first in 0..10 {
            for tried in [&[][..], &["a"], &["b", "d"]] {
                let groups = groups(&directory, &[0, 1, 2, 3, 4, 5, 6, 7], tried, at(first, 0));
                let mut seen: Vec<u16> = groups.iter().flat_map(|(_, stars)| stars.clone()).collect();
                seen.sort_unstable();
                assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7], "{groups:?}");
                for (name, stars) in groups {
                    let place = u16::from(name.as_bytes()[0] - b'a');
                    assert!(stars.iter().all(|star| serving[usize::from(*star)].contains(&place)));
                    assert!(!tried.contains(&name.as_str()));
                }
            }
        }
    }

    #[test]
    fn a_star_whose_servers_were_all_tried_is_asked_for_at_them_again_and_elsewhere() {
        let directory = directory(3, &[&[0, 1]]);
        let name = |number| groups(&directory, &[0], &["a", "b"], at(0, number))[0].0.clone();
        assert_eq!((0..5).map(name).collect::<String>(), "abcab");
        assert_eq!(groups(&directory, &[0], &["a"], at(0, 0)), [("b".to_owned(), vec![0])]);
    }
}
