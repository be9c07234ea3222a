//! Real servers and sockets, one of them slow: what one server sends to another goes through a proxy that carries little.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use star::protocol::{Control, NodeConfig, Route, StarNode};
use star_control::{ClusterState, ServerRecord, View};
use star_core::{
    config::LimitsConfig,
    ids::{Epoch, Incarnation, RequestId, ServerId, StarId},
    key::Key,
    message::{Condition, Request, RequestBody, ResponseBody},
    network::{ClientOptions, TcpClient},
    protocol::Input,
    server::{Handle, Hello, Peer, bind},
    store::{Encoding, MemoryStore},
    time::{Clock, Time},
};
use star_host::spawn_server;

type Node = StarNode<MemoryStore>;

/// A server and its thread.
type Running = (Handle<Node>, thread::JoinHandle<()>);

const SERVERS: u16 = 3;
const STARS: u16 = 4;
const CLIENTS: u32 = 16;
const VALUE_BYTES: usize = 64 << 10;

/// What the slow link carries, in bytes a second.
const SLOW: f64 = 2e6;

/// Carries what is sent to the returned address on to `to`, slowly. Its threads end with the connections.
fn slow_proxy(to: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let addr = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        while let Ok((from, _)) = listener.accept() {
            let to = to.clone();
            thread::spawn(move || drop(carry(from, &to)));
        }
    });
    addr
}

#[allow(clippy::disallowed_methods, reason = "a thread of the test, which is to be slow")]
fn carry(mut from: TcpStream, to: &str) -> std::io::Result<()> {
    let mut to = TcpStream::connect(to)?;
    let mut some = [0; 8 << 10];
    loop {
        let bytes = from.read(&mut some)?;
        if bytes == 0 {
            return Ok(());
        }
        to.write_all(&some[..bytes])?;
        thread::sleep(Duration::from_secs_f64(bytes as f64 / SLOW));
    }
}

/// All servers are members of all stars.
fn cluster() -> ClusterState {
    let record = |id: u16| ServerRecord {
        id: ServerId(id),
        name: format!("s{id}"),
        incarnation: Incarnation(1),
        ..ServerRecord::default()
    };
    let view = |star| View {
        star: StarId(star),
        epoch: Epoch(1),
        founded: Epoch(1),
        members: (0..SERVERS).map(ServerId).collect(),
        leader: ServerId(star % SERVERS),
        ..View::default()
    };
    let empty = ClusterState::new("slow-1", STARS);
    ClusterState { servers: (0..SERVERS).map(record).collect(), stars: (0..STARS).map(view).collect(), ..empty }
}

/// Servers that run until they are told to stop, and their addresses.
fn start(route: Route) -> (Vec<Running>, Vec<String>) {
    let start_one = |id: u16| {
        let listener = bind("127.0.0.1:0").expect("an address");
        let addr = listener.local_addr().expect("an address").to_string();
        let name = format!("s{id}");
        let config = NodeConfig { route, ..NodeConfig::new(ServerId(id), name.clone(), Incarnation(1), STARS) };
        let node = StarNode::new(config, MemoryStore::new(STARS, 1 << 30));
        let server = spawn_server(&name, listener, LimitsConfig::default().server(), async move |server| {
            server.run(node).await;
        });
        (server.expect("a thread"), addr)
    };
    let (servers, addrs): (Vec<Running>, Vec<String>) = (0..SERVERS).map(start_one).unzip();
    let slow = slow_proxy(addrs[1].clone());
    let state = Arc::new(cluster());
    for (me, (handle, _)) in (0..SERVERS).zip(&servers) {
        let peer = |id: u16| {
            let addr = if (me, id) == (0, 1) { slow.clone() } else { addrs[usize::from(id)].clone() };
            Peer { id: ServerId(id), name: format!("s{id}"), addr }
        };
        let id = ServerId(me);
        handle.join(Hello { cluster: state.cluster.clone(), to: id, server: id, incarnation: Incarnation(1) });
        handle.set_peers((0..SERVERS).filter(|id| *id != me).map(peer).collect());
        handle.input(Input::Control(Control::Cluster(Arc::clone(&state))));
        handle.input(Input::Control(Control::Lease { until: Time(u64::MAX) }));
    }
    (servers, addrs)
}

/// From whom the links to this server are slow, as it says itself.
async fn slow_links_to(addr: &str) -> Vec<ServerId> {
    let client = TcpClient::new(addr.to_owned(), ClientOptions::default());
    let answer = client.call(&RequestBody::Status.into()).await.expect("an answer");
    let ResponseBody::Status(text) = answer.body else { panic!("a status, not {answer:?}") };
    let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    serde_json::from_value(status["slow_links_from"].clone()).expect("servers")
}

/// Writes a second of many clients at the server with the slow link, after a while; and the links that were found to be slow.
fn writes_per_second(route: Route) -> (f64, Vec<(ServerId, u16)>) {
    let (servers, addrs) = start(route);
    let addr = addrs[0].clone();
    let (warm_up, counted_for) = (Duration::from_secs(3), Duration::from_secs(3));
    let done = AtomicU64::new(0);
    let load = async {
        let client = TcpClient::new(addr, ClientOptions::default());
        let value = bytes::Bytes::from(vec![b'v'; VALUE_BYTES]);
        let writer = async |number: u32| {
            for round in 0_u64.. {
                let key = Key::new(format!("k{number}-{}", round % 10));
                let (encoding, condition) = (Encoding::Raw, Condition::Always);
                let body = RequestBody::Set { key, encoding, condition, request_id: RequestId::Unnamed };
                let answer = client.call(&Request { body, value: value.clone() }).await;
                match answer.map(|answer| answer.body) {
                    Ok(ResponseBody::Written { .. }) => drop(done.fetch_add(1, Ordering::Relaxed)),
                    // The first come before the links.
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let watch = async {
            tokio::time::sleep(warm_up).await;
            let (before, began) = (done.load(Ordering::Relaxed), Clock.now());
            tokio::time::sleep(counted_for).await;
            let rate = (done.load(Ordering::Relaxed) - before) as f64 / Clock.now().since(began).as_secs_f64();
            let mut found = Vec::new();
            for (id, addr) in (0..SERVERS).zip(&addrs) {
                found.extend(slow_links_to(addr).await.into_iter().map(|from| (from, id)));
            }
            (rate, found)
        };
        let mut writers: Vec<_> = (0..CLIENTS).map(|number| Box::pin(writer(number))).collect();
        let all = std::future::poll_fn(|cx| {
            writers.iter_mut().for_each(|writer| assert!(writer.as_mut().poll(cx).is_pending()));
            std::task::Poll::<()>::Pending
        });
        tokio::select! {
            watched = watch => watched,
            () = all => unreachable!("writers go on"),
        }
    };
    let watched = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(load);
    for (handle, thread) in servers {
        handle.stop();
        thread.join().expect("a server that ends");
    }
    watched
}

/// The bytes that wait lie in the kernel's buffers, where no program sees them: what comes late shows it.
#[test]
fn writes_go_around_a_slow_socket() {
    let ((fanout, none), (auto, found)) = (writes_per_second(Route::Fanout), writes_per_second(Route::Auto));
    eprintln!("{fanout:.0} writes a second straight, {auto:.0} around {found:?}");
    assert!(fanout < 2.0 * SLOW / VALUE_BYTES as f64, "{fanout} a second: the link is slow");
    assert_eq!((none, found), (vec![], vec![(ServerId(0), 1)]));
    assert!(auto > 3.0 * fanout, "{auto} a second around the link, {fanout} over it");
}
