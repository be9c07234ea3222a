//! What servers say of themselves, and the picture of the cluster that it gives.

mod arrivals;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use star_bench::Target;
use star_control::{ClusterState, Standing, View};
use star_core::{
    ServerId,
    message::{RequestBody, Response, ResponseBody},
    network::{ClientOptions, NetworkError, TcpClient},
    store::Usage,
};
use tokio::task::JoinSet;

pub(crate) use self::arrivals::Arrival;

/// A server's own status; fields that are not used here are left out.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ServerStatus {
    pub(crate) name: String,
    pub(crate) id: ServerId,
    /// How long its lease still runs, in milliseconds; 0 without one.
    pub(crate) lease_ms: u64,
    pub(crate) store: Usage,
    pub(crate) counters: Counters,
    pub(crate) stars: Vec<StarStatus>,
    /// The servers from which values go around slow links to it.
    #[serde(default)]
    pub(crate) slow_links_from: Vec<ServerId>,
    pub(crate) plane: Option<PlaneStatus>,
    pub(crate) cluster: Option<ClusterState>,
}

/// What a server says of its control plane.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct PlaneStatus {
    pub(crate) backend: String,
    pub(crate) role: String,
    /// The server that leads it.
    pub(crate) leader: Option<String>,
    /// What is wrong, and what to do.
    pub(crate) note: Option<String>,
}

/// What a server did since it started.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Counters {
    pub(crate) reads_clean: u64,
    pub(crate) reads_dirty: u64,
    pub(crate) stamped: u64,
    pub(crate) objects_kept: u64,
    pub(crate) objects_taken: u64,
}

impl Counters {
    /// Reads that the server answered, those from its mapped store not among them.
    pub(crate) fn reads(&self) -> u64 {
        self.reads_clean + self.reads_dirty
    }
}

/// How a server sees one star.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StarStatus {
    pub(crate) id: u16,
    pub(crate) serving: bool,
}

/// The cluster in the form of `star status --json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ClusterStatus {
    pub(crate) servers: Vec<ServerLine>,
    pub(crate) stars: Vec<StarLine>,
    /// Who copies stars from others, and how far.
    pub(crate) arriving: Vec<Arrival>,
    /// `None` if no server says anything of it.
    pub(crate) plane: Option<PlaneLine>,
}

/// The control plane, as most servers see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct PlaneLine {
    pub(crate) backend: String,
    /// The server that leads it, if it is embedded and somebody does.
    pub(crate) leader: Option<String>,
}

impl ClusterStatus {
    /// A star that some server which is up does not serve, though nobody is on the way in or out.
    pub(crate) fn unserved_somewhere(&self) -> Option<u16> {
        let up = || self.servers.iter().filter(|server| server.state == UP);
        let lacks =
            |star: &&StarLine| star.on_the_way() == 0 && up().any(|server| !star.members.contains(&server.name));
        self.stars.iter().find(lacks).map(|star| star.id)
    }

    /// For each star which of these leads it; none at all if that is not known of every star.
    pub(crate) fn leaders(&self, targets: &[Target]) -> Vec<usize> {
        let place = |star: &StarLine| {
            let leader = self.servers.iter().find(|server| Some(&server.name) == star.leader.as_ref())?;
            targets.iter().position(|target| target.addr == leader.addr)
        };
        self.stars.iter().map(place).collect::<Option<_>>().unwrap_or_default()
    }

    /// The processes of all servers; none if one is not known, or they are not all of this machine.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let local = |server: &ServerLine| server.addr.starts_with("127.").then_some(server.pid).flatten();
        self.servers.iter().map(local).collect::<Option<_>>().unwrap_or_default()
    }
}

/// One server of the cluster.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServerLine {
    pub(crate) name: String,
    pub(crate) addr: String,
    /// Its process; `None` if it does not run.
    pub(crate) pid: Option<u32>,
    pub(crate) state: &'static str,
    /// What is wrong between it and the control plane, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// All that it says of itself, if it answered.
    #[serde(skip)]
    pub(crate) own: Option<ServerStatus>,
}

/// One star: its view, with the names of servers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StarLine {
    pub(crate) id: u16,
    pub(crate) epoch: u64,
    /// `None` before the first view.
    pub(crate) leader: Option<String>,
    pub(crate) members: Vec<String>,
    pub(crate) joining: Vec<String>,
    pub(crate) leaving: Vec<String>,
    pub(crate) learners: Vec<String>,
}

impl StarLine {
    /// How many are on their way in or out.
    pub(crate) fn on_the_way(&self) -> usize {
        self.joining.len() + self.leaving.len() + self.learners.len()
    }
}

/// A server does all that it is there for.
pub(crate) const UP: &str = "up";
const DOWN: &str = "down";
const SILENT: &str = "no answer";
const STARTING: &str = "starting";
const NO_LEASE: &str = "no lease";
const JOINING: &str = "joining";

impl ServerStatus {
    /// The file of the server's mapped store, for processes on the same machine.
    pub(crate) fn store_path(&self) -> Option<&str> {
        self.cluster.as_ref()?.server_named(&self.name)?.store.as_deref()
    }

    /// One word or two for people and scripts.
    pub(crate) fn state(&self) -> &'static str {
        let Some(cluster) = &self.cluster else { return STARTING };
        if cluster.stars.is_empty() || cluster.stars.iter().any(|view| view.members.is_empty()) {
            return STARTING;
        }
        if self.lease_ms == 0 {
            return NO_LEASE;
        }
        let serves = |star: u16| self.stars.iter().any(|own| own.id == star && own.serving);
        let belongs = |view: &&View| view.is_member(self.id) || view.learners.contains(&self.id);
        if cluster.stars.iter().filter(belongs).all(|view| serves(view.star.0)) { UP } else { JOINING }
    }
}

/// Asks one server for its status.
pub(crate) async fn ask(addr: &str, timeout: Duration) -> Result<ServerStatus, NetworkError> {
    let options =
        ClientOptions { pool_size: 1, connect_timeout: timeout, request_timeout: timeout, ..ClientOptions::default() };
    let client = TcpClient::new(addr.to_owned(), options);
    ask_through(&client).await
}

/// Asks the server of this client for its status.
pub(crate) async fn ask_through(client: &TcpClient) -> Result<ServerStatus, NetworkError> {
    let unexpected = |reason: String| NetworkError::Unexpected { addr: client.addr().to_owned(), reason };
    match client.call(&RequestBody::Status.into()).await? {
        Response { body: ResponseBody::Status(text), .. } => {
            serde_json::from_str(&text).map_err(|error| unexpected(error.to_string()))
        }
        other => Err(unexpected(format!("{:?}", other.body))),
    }
}

/// Asks these servers, by name and address, and all others of their cluster. A server whose name is not known goes by
/// its address until it says its name.
pub(crate) async fn gather(known: &[(String, String)], timeout: Duration) -> ClusterStatus {
    let mut lines = ask_all(known.to_vec(), timeout).await;
    let others: Vec<_> = states(&lines)
        .flat_map(|cluster| &cluster.servers)
        .filter(|record| record.standing != Standing::Removed)
        .filter(|record| !lines.iter().any(|line| line.name == record.name || line.addr == record.addr))
        .map(|record| (record.name.clone(), record.addr.clone()))
        .collect::<BTreeMap<_, _>>()
        .into_iter()
        .collect();
    lines.extend(ask_all(others, timeout).await);
    name_silent(&mut lines);
    let (stars, plane) = (stars(&lines), plane(&lines));
    let arriving = arrivals::arriving(&lines, &stars);
    ClusterStatus { servers: lines, stars, arriving, plane }
}

/// What most servers say of the control plane: one that is cut off may take another for its leader.
fn plane(lines: &[ServerLine]) -> Option<PlaneLine> {
    let mut votes: BTreeMap<PlaneLine, usize> = BTreeMap::new();
    for plane in lines.iter().filter_map(|line| line.own.as_ref()?.plane.as_ref()) {
        *votes.entry(PlaneLine { backend: plane.backend.clone(), leader: plane.leader.clone() }).or_default() += 1;
    }
    let most = votes.into_iter().max_by_key(|(plane, votes)| (*votes, plane.leader.is_some()));
    most.map(|(plane, _)| plane)
}

/// Asks all at once; the answers come in the order of `servers`.
async fn ask_all(servers: Vec<(String, String)>, timeout: Duration) -> Vec<ServerLine> {
    let mut asked = JoinSet::new();
    for (place, (name, addr)) in servers.into_iter().enumerate() {
        asked.spawn(async move {
            let line = match ask(&addr, timeout).await {
                Ok(own) => {
                    let record = own.cluster.as_ref().and_then(|cluster| cluster.server_named(&own.name));
                    let pid = record.map(|record| record.pid);
                    let note = own.plane.as_ref().and_then(|plane| plane.note.clone());
                    ServerLine { name: own.name.clone(), addr, pid, state: own.state(), note, own: Some(own) }
                }
                Err(error) => {
                    let state = if matches!(error, NetworkError::TimedOut { .. }) { SILENT } else { DOWN };
                    ServerLine { name, addr, pid: None, state, note: None, own: None }
                }
            };
            (place, line)
        });
    }
    let mut lines = asked.join_all().await;
    lines.sort_by_key(|(place, _)| *place);
    lines.into_iter().map(|(_, line)| line).collect()
}

fn states(lines: &[ServerLine]) -> impl Iterator<Item = &ClusterState> {
    lines.iter().filter_map(|line| line.own.as_ref()?.cluster.as_ref())
}

/// Servers that did not answer and are known by their address only get the name that the others know them by.
fn name_silent(lines: &mut [ServerLine]) {
    let names: BTreeMap<String, String> = states(lines)
        .flat_map(|cluster| &cluster.servers)
        .map(|record| (record.addr.clone(), record.name.clone()))
        .collect();
    for line in lines.iter_mut().filter(|line| line.own.is_none()) {
        if let Some(name) = names.get(&line.addr) {
            line.name.clone_from(name);
        }
    }
}

/// The newest view of each star that any server knows.
fn stars(lines: &[ServerLine]) -> Vec<StarLine> {
    let mut newest: BTreeMap<u16, (&ClusterState, &View)> = BTreeMap::new();
    for cluster in states(lines) {
        for view in &cluster.stars {
            let known = newest.entry(view.star.0).or_insert((cluster, view));
            if view.epoch > known.1.epoch {
                *known = (cluster, view);
            }
        }
    }
    newest
        .into_values()
        .map(|(cluster, view)| {
            let name = |id: &ServerId| cluster.server(*id).map_or_else(|| id.to_string(), |server| server.name.clone());
            let names = |ids: &[ServerId]| {
                let mut names: Vec<String> = ids.iter().map(name).collect();
                names.sort();
                names
            };
            StarLine {
                id: view.star.0,
                epoch: view.epoch.0,
                leader: (!view.members.is_empty()).then(|| name(&view.leader)),
                members: names(&view.members),
                joining: names(&view.joining),
                leaving: names(&view.leaving),
                learners: names(&view.learners),
            }
        })
        .collect()
}

/// Which stars a server leads, as text: `0 3 6`.
pub(crate) fn led_by(stars: &[StarLine], name: &str) -> String {
    let led = stars.iter().filter(|star| star.leader.as_deref() == Some(name));
    let led: Vec<String> = led.map(|star| star.id.to_string()).collect();
    if led.is_empty() { "-".to_owned() } else { led.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_that_a_server_does_not_serve_is_found() {
        let server = |name: &str, state| ServerLine {
            name: name.to_owned(),
            addr: String::new(),
            pid: None,
            state,
            note: None,
            own: None,
        };
        let star = |id, members: &str, learners: &str| StarLine {
            id,
            epoch: 1,
            leader: None,
            members: members.chars().map(String::from).collect(),
            joining: Vec::new(),
            leaving: Vec::new(),
            learners: learners.chars().map(String::from).collect(),
        };
        let found = |states: [&'static str; 3], second: StarLine| {
            let servers = ["a", "b", "c"].into_iter().zip(states).map(|(name, state)| server(name, state)).collect();
            let stars = vec![star(0, "abc", ""), second];
            ClusterStatus { servers, stars, arriving: Vec::new(), plane: None }.unserved_somewhere()
        };
        assert_eq!(found([UP; 3], star(1, "abc", "")), None);
        assert_eq!(found([UP; 3], star(1, "ab", "")), Some(1));
        assert_eq!(found([UP; 3], star(1, "ab", "c")), None, "c is on its way");
        assert_eq!(found([UP, UP, DOWN], star(1, "ab", "")), None, "c serves nothing");
    }
}
