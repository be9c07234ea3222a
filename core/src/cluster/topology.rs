//! Who may send to whom.

use std::collections::{BTreeMap, BTreeSet};

use super::{ServerInfo, check_addr, check_name};

/// For each server, the servers that it may send messages to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    links: BTreeMap<ServerInfo, BTreeSet<ServerInfo>>,
}

/// Why servers and links are no topology.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// There are no servers.
    #[error("a topology has at least one server")]
    Empty,
    /// A server's name or address cannot be used.
    #[error("{0}")]
    BadServer(String),
    /// Two servers have the same name, or the same address.
    #[error("servers {0} and {1} share a name or an address: each server needs its own")]
    Duplicate(String, String),
    /// A link begins or ends at a server that is not there.
    #[error("a link leads from {from} to {to}, and {to} is not one of the servers")]
    UnknownServer {
        /// Where the link begins.
        from: String,
        /// Where it would end.
        to: String,
    },
    /// A link leads from a server to itself.
    #[error("a link leads from {0} to itself; a server needs no link to reach itself")]
    SelfLink(String),
    /// The leader is not one of the servers.
    #[error("the leader {leader:?} is not one of the servers ({servers})")]
    UnknownLeader {
        /// The name that was given.
        leader: String,
        /// The names there are.
        servers: String,
    },
}

impl Topology {
    /// The topology of these links; every server is a key, also one that may send to nobody.
    pub fn new(links: BTreeMap<ServerInfo, BTreeSet<ServerInfo>>) -> Result<Self, TopologyError> {
        check_servers(links.keys())?;
        for (from, peers) in &links {
            for to in peers {
                if to == from {
                    return Err(TopologyError::SelfLink(from.name.clone()));
                }
                if !links.contains_key(to) {
                    return Err(TopologyError::UnknownServer { from: from.name.clone(), to: to.name.clone() });
                }
            }
        }
        Ok(Self { links })
    }

    /// Everyone may send to everyone: what Star uses.
    pub fn full_mesh(servers: &[ServerInfo]) -> Result<Self, TopologyError> {
        check_servers(servers)?;
        let others = |server: &ServerInfo| servers.iter().filter(|other| *other != server).cloned().collect();
        Self::new(servers.iter().map(|server| (server.clone(), others(server))).collect())
    }

    /// Each server may send to its neighbours: writes go down the chain, acks come back up.
    pub fn chain(servers: &[ServerInfo]) -> Result<Self, TopologyError> {
        check_servers(servers)?;
        let mut links: BTreeMap<_, BTreeSet<_>> =
            servers.iter().map(|server| (server.clone(), BTreeSet::new())).collect();
        for pair in servers.windows(2) {
            for (from, to) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
                links.entry(from.clone()).or_default().insert(to.clone());
            }
        }
        Self::new(links)
    }

    /// The servers, in the order of their names.
    pub fn servers(&self) -> impl Iterator<Item = &ServerInfo> {
        self.links.keys()
    }

    /// The server of this name.
    pub fn server(&self, name: &str) -> Option<&ServerInfo> {
        self.servers().find(|server| server.name == name)
    }

    /// The servers that the server of this name may send to, in the order of their names; none for a name unknown.
    pub fn peers(&self, name: &str) -> impl Iterator<Item = &ServerInfo> {
        self.server(name).and_then(|server| self.links.get(server)).into_iter().flatten()
    }

    /// Whether `from` may send to `to`.
    pub fn may_send(&self, from: &str, to: &str) -> bool {
        self.peers(from).any(|peer| peer.name == to)
    }
}

fn check_servers<'a>(servers: impl IntoIterator<Item = &'a ServerInfo>) -> Result<(), TopologyError> {
    let (mut names, mut addrs) = (BTreeMap::new(), BTreeMap::new());
    for server in servers {
        check_name(&server.name).and_then(|()| check_addr(&server.addr)).map_err(TopologyError::BadServer)?;
        if let Some(other) = names.insert(&server.name, server).or(addrs.insert(&server.addr, server)) {
            let shown = |server: &ServerInfo| format!("{} ({})", server.name, server.addr);
            return Err(TopologyError::Duplicate(shown(other), shown(server)));
        }
    }
    if names.is_empty() { Err(TopologyError::Empty) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(names: &[&str]) -> Vec<ServerInfo> {
        names.iter().zip(7000..).map(|(name, port)| ServerInfo::new(*name, format!("127.0.0.1:{port}"))).collect()
    }

    fn peers(topology: &Topology, name: &str) -> String {
        topology.peers(name).map(|peer| peer.name.as_str()).collect()
    }

    #[test]
    fn everyone_sends_to_everyone_in_a_full_mesh() {
        let mesh = Topology::full_mesh(&servers(&["a", "b", "c"])).unwrap();
        assert_eq!(["a", "b", "c", "x"].map(|name| peers(&mesh, name)), ["bc", "ac", "ab", ""]);
        assert!(mesh.may_send("a", "b") && !mesh.may_send("a", "a") && !mesh.may_send("a", "x"));
    }

    #[test]
    fn only_neighbours_send_to_each_other_in_a_chain() {
        let chain = Topology::chain(&servers(&["c", "a", "b"])).unwrap();
        assert_eq!(["c", "a", "b"].map(|name| peers(&chain, name)), ["a", "bc", "a"]);
        let alone = Topology::chain(&servers(&["a"])).unwrap();
        assert_eq!(peers(&alone, "a"), "");
    }

    #[test]
    fn what_is_no_topology_is_refused() {
        assert_eq!(Topology::full_mesh(&[]), Err(TopologyError::Empty));
        let duplicate = |servers: &[ServerInfo]| matches!(Topology::chain(servers), Err(TopologyError::Duplicate(..)));
        let a = ServerInfo::new("a", "127.0.0.1:7000");
        assert!(duplicate(&[a.clone(), ServerInfo::new("a", "127.0.0.1:7001")]));
        assert!(duplicate(&[a.clone(), ServerInfo::new("b", "127.0.0.1:7000")]));
        assert!(duplicate(&[a.clone(), a.clone()]));
        let bad = |name, addr| Topology::full_mesh(&[ServerInfo::new(name, addr)]);
        for (name, addr) in [("", "h:1"), ("a b", "h:1"), ("a", "h"), ("a", ":1"), ("a", "h:0"), ("a", "h:99999")] {
            assert!(matches!(bad(name, addr), Err(TopologyError::BadServer(_))), "{name:?} {addr:?}");
        }
        let b = ServerInfo::new("b", "127.0.0.1:7001");
        let links = |to: &ServerInfo| Topology::new(BTreeMap::from([(a.clone(), BTreeSet::from([to.clone()]))]));
        assert_eq!(links(&a), Err(TopologyError::SelfLink("a".to_owned())));
        assert_eq!(links(&b), Err(TopologyError::UnknownServer { from: "a".to_owned(), to: "b".to_owned() }));
    }
}
