//! The one document of a cluster: [`ClusterState`] as JSON, checked whenever it comes in.

use bytes::Bytes;
use star_core::ids::{Epoch, StarId};

use crate::{
    plane::Revision,
    view::{ClusterState, View},
};

/// The key of the cluster's document.
pub const CLUSTER_KEY: &str = "cluster";

impl ClusterState {
    /// A cluster without servers, of so many stars without views. `cluster` tells it from every other cluster, also from
    /// an earlier one of the same name.
    pub fn new(cluster: impl Into<String>, stars: u16) -> Self {
        let stars = (0..stars).map(|star| View { star: StarId(star), ..View::default() }).collect();
        Self { format: Self::FORMAT, cluster: cluster.into(), servers: Vec::new(), stars }
    }

    /// The document: JSON, so that people can read it where it is kept.
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("numbers, names and lists have a JSON form").into()
    }

    /// The state in a document; the error is a sentence for people.
    pub fn decode(document: &[u8]) -> Result<Self, String> {
        #[derive(serde::Deserialize)]
        struct Format {
            format: u32,
        }
        let unreadable = |error| format!("the document of the cluster cannot be read: {error}");
        let Format { format } = serde_json::from_slice(document).map_err(unreadable)?;
        if format != Self::FORMAT {
            return Err(format!(
                "the document of the cluster has format {format}, and this program knows {}: use one program everywhere",
                Self::FORMAT
            ));
        }
        let state: Self = serde_json::from_slice(document).map_err(unreadable)?;
        state.check()?;
        Ok(state)
    }

    /// Whether this state makes sense by itself; the error is a sentence for people.
    pub fn check(&self) -> Result<(), String> {
        for (place, server) in self.servers.iter().enumerate() {
            if usize::from(server.id.0) != place {
                return Err(format!("server {} stands in place {place}", server.id));
            }
            if self.servers[..place].iter().any(|other| other.name == server.name) {
                return Err(format!("two servers are called {:?}", server.name));
            }
        }
        for (place, view) in self.stars.iter().enumerate() {
            if usize::from(view.star.0) != place {
                return Err(format!("star {} stands in place {place}", view.star));
            }
            self.check_view(view).map_err(|why| format!("the view of star {}: {why}", view.star))?;
        }
        Ok(())
    }

    fn check_view(&self, view: &View) -> Result<(), String> {
        let named = || view.members.iter().chain(&view.learners).copied();
        if let Some(unknown) = named().find(|id| self.server(*id).is_none()) {
            return Err(format!("server {unknown} is not in the cluster"));
        }
        if let Some(twice) = named().find(|id| named().filter(|other| other == id).count() > 1) {
            return Err(format!("server {twice} is in it twice"));
        }
        if let Some(stray) = view.joining.iter().find(|id| !view.is_member(**id)) {
            return Err(format!("server {stray} is joining but no member"));
        }
        if let Some(stray) = view.leaving.iter().find(|id| !view.is_member(**id)) {
            return Err(format!("server {stray} is leaving but no member"));
        }
        if !view.members.is_empty() && !view.serving().any(|id| id == view.leader) {
            return Err(format!("its leader {} is not one of its serving members", view.leader));
        }
        if !view.members.is_empty() && view.epoch == Epoch(0) {
            return Err("it has members in epoch 0".into());
        }
        if view.founded > view.epoch || (!view.members.is_empty() && view.founded == Epoch(0)) {
            return Err(format!("founded in epoch {}, it cannot be in epoch {}", view.founded, view.epoch));
        }
        Ok(())
    }

    /// Whether this, which the control plane shows under `revision`, is news to a server that knows `known`. The error says
    /// that the plane has lost memory, or holds another cluster: what it shows must not be acted on.
    pub fn is_news(&self, revision: Revision, known: Option<(Revision, &Self)>) -> Result<bool, String> {
        let Some((known_revision, known)) = known else { return Ok(true) };
        // A plane that forgot may have come to any revision since, so this is looked at even where nothing is new.
        let (earlier, later) = if revision < known_revision { (self, known) } else { (known, self) };
        later.check_follows(earlier)?;
        if revision == known_revision && self != known {
            return Err(format!("it holds another state under the same revision {revision}"));
        }
        Ok(revision > known_revision)
    }

    /// Whether this may come after `earlier` in the history of one cluster. If not, the control plane has lost memory,
    /// or holds another cluster, and no server may act on it; the error is a sentence for people.
    pub fn check_follows(&self, earlier: &Self) -> Result<(), String> {
        if self.cluster != earlier.cluster {
            return Err(format!("it knows cluster {:?}, and this server is in {:?}", self.cluster, earlier.cluster));
        }
        if self.servers.len() < earlier.servers.len() || self.stars.len() != earlier.stars.len() {
            return Err("it has forgotten servers or stars".into());
        }
        for (view, before) in self.stars.iter().zip(&earlier.stars) {
            if view.epoch < before.epoch || view.founded < before.founded {
                return Err(format!(
                    "star {} was in epoch {} and would be in {} now",
                    view.star, before.epoch, view.epoch
                ));
            }
            if view.epoch == before.epoch && view != before {
                return Err(format!("star {} has another view in the same epoch {}", view.star, view.epoch));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use star_core::ids::{Incarnation, ServerId};

    use super::*;
    use crate::view::ServerRecord;

    fn server(id: u16, name: &str) -> ServerRecord {
        let (addr, incarnation) = (format!("127.0.0.1:{}", 7000 + id), Incarnation(9));
        ServerRecord {
            id: ServerId(id),
            name: name.into(),
            addr,
            incarnation,
            pid: 1,
            store: None,
            ..ServerRecord::default()
        }
    }

    fn cluster() -> ClusterState {
        let mut state = ClusterState::new("c-1", 2);
        state.servers = vec![server(0, "a"), server(1, "b")];
        let members = vec![ServerId(0), ServerId(1)];
        state.stars[1] = View {
            star: StarId(1),
            epoch: Epoch(3),
            founded: Epoch(1),
            members,
            leader: ServerId(1),
            ..View::default()
        };
        state
    }

    #[test]
    fn a_state_survives_its_document() {
        assert_eq!(ClusterState::decode(&cluster().encode()), Ok(cluster()));
    }

    #[test]
    fn documents_that_make_no_sense_are_refused_by_name() {
        type Spoil = fn(&mut ClusterState);
        let broken: [(&str, Spoil); 13] = [
            ("format 4", |state| state.format = 4),
            ("stands in place 0", |state| state.servers[0].id = ServerId(7)),
            ("are called \"a\"", |state| state.servers[1].name = "a".into()),
            ("star 5 stands", |state| state.stars[0].star = StarId(5)),
            ("server 9 is not in", |state| state.stars[1].members.push(ServerId(9))),
            ("server 1 is in it twice", |state| state.stars[1].learners.push(ServerId(1))),
            ("joining but no member", |state| state.stars[0].joining.push(ServerId(1))),
            ("leader 1 is not one", |state| state.stars[1].joining.push(ServerId(1))),
            ("leader 1 is not one", |state| state.stars[1].leaving.push(ServerId(1))),
            ("leaving but no member", |state| state.stars[0].leaving.push(ServerId(1))),
            ("founded in epoch 4", |state| state.stars[1].founded = Epoch(4)),
            ("founded in epoch 0", |state| state.stars[1].founded = Epoch(0)),
            ("members in epoch 0", |state| state.stars[1].epoch = Epoch(0)),
        ];
        for (expected, spoil) in broken {
            let mut state = cluster();
            spoil(&mut state);
            let error = ClusterState::decode(&state.encode()).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
        assert!(ClusterState::decode(b"\xff{").is_err());
    }

    #[test]
    fn what_is_news_has_a_later_revision_and_may_follow() {
        let known = cluster();
        let mut next = cluster();
        next.stars[1].epoch = Epoch(4);
        let of = |state: &ClusterState, revision| state.is_news(Revision(revision), Some((Revision(5), &known)));
        assert_eq!(known.is_news(Revision(1), None), Ok(true));
        assert_eq!(of(&next, 6), Ok(true));
        assert_eq!(of(&known, 5), Ok(false));
        assert_eq!(of(&known, 4), Ok(false));
        assert!(of(&next, 5).is_err(), "another state under the same revision");
        assert!(of(&next, 4).is_err(), "a later state under an earlier revision");
        let mut earlier = cluster();
        earlier.stars[1].epoch = Epoch(2);
        assert!(of(&earlier, 6).is_err(), "an earlier state under a later revision");
    }

    #[test]
    fn a_plane_that_lost_memory_is_noticed() {
        let earlier = cluster();
        assert_eq!(earlier.check_follows(&earlier), Ok(()));
        let mut next = cluster();
        next.servers.push(server(2, "c"));
        next.stars[1].epoch = Epoch(4);
        next.stars[1].members.pop();
        next.stars[1].leader = ServerId(0);
        assert_eq!(next.check_follows(&earlier), Ok(()));
        assert!(earlier.check_follows(&next).is_err());
        let mut other = cluster();
        other.cluster = "c-2".into();
        assert!(other.check_follows(&earlier).is_err());
        let mut same_epoch = cluster();
        same_epoch.stars[1].leader = ServerId(0);
        assert!(same_epoch.check_follows(&earlier).is_err());
    }
}
