//! The control plane that the servers keep together: how it begins, and what is left of it after a full stop.

use std::{
    net::TcpListener,
    path::Path,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use serde_json::Value;
use star::{Options, StarClient, StarServer};
use star_core::{
    Clock, Version,
    cluster::ServerInfo,
    config::Config,
    message::{RequestBody, ResponseBody},
    network::{ClientOptions, TcpClient},
};
use tempfile::TempDir;

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// The configuration of so many servers, and a directory for all their files.
fn place(count: usize) -> (TempDir, Config) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut config = Config::default();
    let server = |name| ServerInfo::new(name, format!("127.0.0.1:{}", free_port()));
    config.cluster.servers = ["a", "b", "c", "d", "e"].into_iter().take(count).map(server).collect();
    config.store.directory = directory.path().join("stores");
    config.store.capacity_bytes = 64 << 20;
    config.control.directory = directory.path().join("control");
    (directory, config)
}

/// A port that is free now; below those that systems give to outgoing connections, so that none of those takes it before
/// its server does.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = (std::process::id() % 150) as u16 * 50;
    let mut candidates = std::iter::repeat_with(|| 12_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 7_900);
    candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

fn start(config: &Config, name: &str) -> StarServer {
    StarServer::start(config, name).expect("it starts")
}

fn start_all(config: &Config) -> Vec<StarServer> {
    config.cluster.servers.iter().map(|server| start(config, &server.name)).collect()
}

/// Waits until something is so.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Clock.now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Clock.now() < deadline, "it took too long until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a server says of itself, if it answers.
async fn status(addr: &str) -> Option<Value> {
    let client = TcpClient::new(addr.to_owned(), ClientOptions::default());
    match client.call(&RequestBody::Status.into()).await.ok()?.body {
        ResponseBody::Status(text) => serde_json::from_str(&text).ok(),
        other => panic!("{other:?}"),
    }
}

async fn client(config: &Config) -> StarClient {
    let addrs: Vec<String> = config.cluster.servers.iter().map(|server| server.addr.clone()).collect();
    StarClient::connect(&addrs, Options { give_up_after: PATIENCE, ..Options::default() }).await.expect("a client")
}

fn epochs(status: &Value) -> Vec<u64> {
    let stars = status["cluster"]["stars"].as_array().expect("stars");
    stars.iter().map(|star| star["epoch"].as_u64().expect("an epoch")).collect()
}

#[test]
fn a_server_says_what_it_waits_for_and_refuses_until_the_plane_is_founded() {
    block_on(async {
        let (_directory, config) = place(3);
        let addr = config.cluster.servers[0].addr.clone();
        let mut servers = vec![start(&config, "a"), start(&config, "b")];
        let found = until("it names the one that is missing", async || {
            let status = status(&addr).await?;
            status["plane"]["note"].as_str().is_some_and(|note| note.contains("start c")).then_some(status)
        });
        assert_eq!(found.await["plane"]["role"], "founding");
        let (only, hasty) =
            ([addr.clone()], Options { give_up_after: Duration::from_millis(300), ..Options::one_server() });
        let one = StarClient::connect(&only, hasty).await.expect("a connection");
        let error = one.get("k").await.expect_err("nobody has a lease");
        assert!(error.to_string().contains("NO_LEASE") || error.to_string().contains("NOT_SERVING"), "{error}");
        servers.push(start(&config, "c"));
        let client = client(&config).await;
        assert_eq!(client.set("k", "v").await.expect("a write"), Version(1));
        let member = until("it is a member, and somebody leads", async || {
            let plane = status(&addr).await?["plane"].clone();
            (plane["role"] == "member" && plane["leader"].is_string()).then_some(plane)
        });
        assert_eq!(member.await["note"], Value::Null);
    });
}

#[test]
fn after_a_full_stop_epochs_go_on_and_the_objects_are_there() {
    block_on(async {
        let (_directory, config) = place(3);
        let servers = start_all(&config);
        let addr = config.cluster.servers[0].addr.clone();
        let first = client(&config).await;
        first.set("k", "v").await.expect("a write");
        let before = status(&addr).await.expect("a status");
        servers.into_iter().for_each(StarServer::stop);
        let _servers = start_all(&config);
        let client = client(&config).await;
        assert_eq!(client.get("k").await.expect("a read").expect("an object").value, "v");
        assert_eq!(client.set("k", "w").await.expect("a write"), Version(2));
        // A client of the time before is forgotten with what it had done, and goes on under another name.
        assert_eq!(first.set("k", "x").await.expect("a write"), Version(3));
        let after = status(&addr).await.expect("a status");
        assert_eq!(before["cluster"]["cluster"], after["cluster"]["cluster"], "it is the same cluster");
        for (before, after) in epochs(&before).into_iter().zip(epochs(&after)) {
            assert!(after > before, "epoch {after} after {before}");
        }
    });
}

#[test]
fn a_server_that_lost_its_part_of_the_plane_says_so_and_serves() {
    block_on(async {
        let (_directory, config) = place(3);
        let mut servers = start_all(&config);
        let client = client(&config).await;
        client.set("k", "v").await.expect("a write");
        servers.pop().expect("server c").stop();
        lose(&config.control.directory.join("star/c"));
        servers.push(start(&config, "c"));
        let addr = config.cluster.servers[2].addr.clone();
        let found = until("it serves again", async || {
            let status = status(&addr).await?;
            let stars = status["stars"].as_array()?;
            (stars.iter().all(|star| star["serving"] == true) && status["plane"]["role"] == "stranger")
                .then_some(status)
        });
        let note = found.await["plane"]["note"].as_str().expect("a note").to_owned();
        assert!(note.contains("Restore its directory"), "the way out: {note}");
        assert_eq!(client.get("k").await.expect("a read").expect("an object").value, "v");
    });
}

fn lose(directory: &Path) {
    std::fs::remove_dir_all(directory).expect("its directory");
}
