//! [`ClusterManager`] with real servers behind it.

use std::{cell::RefCell, rc::Rc};

use star_core::{
    Key,
    cluster::{ClusterError, ClusterManager, Running, ServerInfo, Topology, TopologyError},
    message::{Request, RequestBody, ResponseBody},
    network::{ClientOptions, NetworkError},
};

use crate::support::{TestServer, echo};

/// A server that notes its end.
#[derive(Debug)]
struct Noted {
    name: String,
    server: TestServer,
    ends: Rc<RefCell<Vec<String>>>,
}

impl Running for Noted {
    async fn stop(self) -> Result<(), String> {
        self.server.stop().await;
        self.ends.borrow_mut().push(self.name.clone());
        if self.name == "stubborn" { Err("it had to be forced".to_owned()) } else { Ok(()) }
    }
}

/// Servers at addresses that are free.
async fn servers(names: &[&str]) -> Vec<ServerInfo> {
    let mut infos = Vec::new();
    let mut held = Vec::new();
    for name in names {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        infos.push(ServerInfo::new(*name, listener.local_addr().unwrap().to_string()));
        held.push(listener);
    }
    infos
}

fn manager(topology: Topology) -> ClusterManager<Noted> {
    let leader = topology.servers().next().unwrap().name.clone();
    ClusterManager::new(topology, &leader, &ClientOptions::default()).unwrap()
}

async fn start(manager: &mut ClusterManager<Noted>, ends: &Rc<RefCell<Vec<String>>>) -> Result<(), ClusterError> {
    let spawn = async |server: &ServerInfo, _peers: &[ServerInfo]| {
        if server.name == "broken" {
            return Err("no such disk");
        }
        let running = TestServer::start_at(server.addr.parse().unwrap(), echo()).await;
        Ok(Noted { name: server.name.clone(), server: running, ends: Rc::clone(ends) })
    };
    manager.start(spawn).await
}

#[tokio::test]
async fn servers_start_connect_and_stop_together() {
    let mut manager = manager(Topology::chain(&servers(&["a", "b", "c"]).await).unwrap());
    let ends = Rc::default();
    assert_eq!(manager.leader_name(), "a");
    let error = manager.connect_all().await.unwrap_err();
    assert!(matches!(&error, ClusterError::NotConnected { name, .. } if name == "a"), "{error}");

    start(&mut manager, &ends).await.unwrap();
    assert_eq!(start(&mut manager, &ends).await, Err(ClusterError::AlreadyRunning));
    assert_eq!(manager.running().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b", "c"]);
    // The failed attempt above may still hold back the next one.
    while let Err(ClusterError::NotConnected { .. }) = manager.connect_all().await {}

    let get = Request::from(RequestBody::Get { key: Key::new("k") });
    let stub = manager.stub("a").unwrap();
    assert_eq!(stub.send("b", &get).await.unwrap().body, ResponseBody::NotFound);
    let error = stub.send("c", &get).await.unwrap_err();
    assert!(matches!(error, NetworkError::UnknownServer { .. }), "the chain has no link from a to c: {error}");
    assert!(manager.stub("x").is_none());

    manager.stop().await.unwrap();
    assert_eq!(*ends.borrow(), ["c", "b", "a"]);
    assert!(manager.stub("a").unwrap().send("b", &get).await.is_err());
}

#[tokio::test]
async fn a_start_that_fails_leaves_no_server_behind() {
    let mut manager = manager(Topology::full_mesh(&servers(&["a", "broken", "c"]).await).unwrap());
    let ends = Rc::default();
    let error = start(&mut manager, &ends).await.unwrap_err();
    assert!(
        matches!(&error, ClusterError::NotStarted { name, reason, .. } if name == "broken" && reason == "no such disk"),
        "{error}"
    );
    assert_eq!(*ends.borrow(), ["a"]);
    assert_eq!(manager.running().count(), 0);
}

#[tokio::test]
async fn all_servers_are_stopped_even_if_one_does_not_end_well() {
    let mut manager = manager(Topology::full_mesh(&servers(&["a", "stubborn", "z"]).await).unwrap());
    let ends = Rc::default();
    start(&mut manager, &ends).await.unwrap();
    let error = manager.stop().await.unwrap_err();
    assert_eq!(error, ClusterError::NotStopped("stubborn: it had to be forced".to_owned()));
    assert_eq!(*ends.borrow(), ["z", "stubborn", "a"]);
}

#[tokio::test]
async fn the_leader_is_one_of_the_servers() {
    let topology = Topology::full_mesh(&servers(&["a", "b"]).await).unwrap();
    let error = ClusterManager::<Noted>::new(topology, "c", &ClientOptions::default()).unwrap_err();
    assert_eq!(error, TopologyError::UnknownLeader { leader: "c".to_owned(), servers: "a, b".to_owned() });
}
