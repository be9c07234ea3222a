//! Five servers, three members in each star: no server serves every star, and a client does not notice.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};
use star::{Options, StarClient, StarCluster, Transport};
use star_core::{Clock, ErrorCode, Version, network::ClientOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Long after anything here should have happened, on whatever machine.
const LATE: Duration = Duration::from_mins(2);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

async fn start() -> StarCluster {
    StarCluster::start_local_spread(5, 3).await.expect("the cluster starts")
}

fn addrs(cluster: &StarCluster) -> Vec<String> {
    cluster.servers().map(|server| server.addr().to_owned()).collect()
}

/// A client that goes on trying for as long as it may take here.
async fn connect(addrs: &[String], transport: Transport) -> StarClient {
    let network = ClientOptions { request_timeout: LATE, ..ClientOptions::default() };
    let options = Options { network, give_up_after: LATE, transport, ..Options::default() };
    StarClient::connect(addrs, options).await.expect("the cluster answers")
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("dir/{number:05}")).collect()
}

/// Writes each of these keys with its own name as its value; returns the versions.
async fn fill(client: &StarClient, names: &[String]) -> Vec<Version> {
    let mut versions = Vec::new();
    for part in names.chunks(500) {
        let objects: Vec<_> = part.iter().map(|name| (name.as_str(), Bytes::from(name.clone()))).collect();
        versions.extend(client.set_many(&objects).await.expect("the writes"));
    }
    versions
}

/// Every key that begins with `dir/`, page by page.
async fn listed(client: &StarClient, limit: u32) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    loop {
        let page = client.list("dir/", keys.last().map(String::as_str), limit).await.expect("a page");
        assert!(page.keys.len() <= limit as usize && page.keys.is_sorted());
        assert!(!page.more || !page.keys.is_empty(), "a page that does not lead on");
        keys.extend(page.keys);
        if !page.more {
            return keys;
        }
    }
}

async fn ask(addr: &str, request: Value) -> Value {
    let text = request.to_string();
    let mut server = TcpStream::connect(addr).await.expect("a connection");
    server.write_all(&(text.len() as u64).to_be_bytes()).await.expect("it is sent");
    server.write_all(text.as_bytes()).await.expect("it is sent");
    let mut answer = vec![0; server.read_u64().await.expect("an answer") as usize];
    server.read_exact(&mut answer).await.expect("an answer");
    serde_json::from_slice(&answer).expect("JSON")
}

/// The numbers of the stars that a server serves, by its own word.
async fn served(addr: &str) -> Vec<u64> {
    let status = ask(addr, json!({"type": "STATUS"})).await;
    let stars = status["server"]["stars"].as_array().expect("stars").clone();
    stars.iter().filter(|star| star["serving"] == true).map(|star| star["id"].as_u64().expect("a number")).collect()
}

#[test]
fn pages_and_many_keys_are_put_together_from_all_stars() {
    block_on(async {
        let cluster = start().await;
        for transport in [Transport::Tcp, Transport::Auto] {
            let client = connect(&addrs(&cluster), transport).await;
            let names = names(3000);
            let round = Version(if transport == Transport::Tcp { 1 } else { 2 });
            assert_eq!(fill(&client, &names).await, vec![round; 3000]);
            for limit in [1000, 333] {
                assert!(listed(&client, limit).await == names, "pages of {limit}");
            }
            let page = client.list("dir/", Some("dir/02998"), 5).await.expect("a page");
            assert_eq!((page.keys.as_slice(), page.more), (&names[2999..], false));
            let keys: Vec<&str> = names[..1000].iter().map(String::as_str).chain(["missing"]).collect();
            let read = client.get_many(&keys).await.expect("the reads");
            assert!(
                names
                    .iter()
                    .zip(&read[..1000])
                    .all(|(name, found)| found.as_ref().is_some_and(|one| one.value == *name))
            );
            assert_eq!(read[1000], None);
            assert_eq!(client.get("dir/00007").await.expect("a read").expect("an object").value, "dir/00007");
        }
        let client = connect(&addrs(&cluster), Transport::Tcp).await;
        let refused = client.list("", None, 0).await.expect_err("a page of nothing").to_string();
        assert!(refused.contains("limit"), "{refused}");
        let entries = ["a", "b", "c", "d"].map(|key| (key, Bytes::from(vec![0; 65 << 20])));
        let refused = client.set_many(&entries[..1]).await.expect_err("it is too large");
        assert!(refused.to_string().contains(ErrorCode::TooLarge.name()), "{refused}");
    });
}

/// The epochs of all stars, as a server knows them.
async fn epochs(addr: &str) -> Vec<Value> {
    let status = ask(addr, json!({"type": "STATUS"})).await;
    status["server"]["stars"].as_array().expect("stars").iter().map(|star| star["epoch"].clone()).collect()
}

/// What a plain client is told by a server, which serves these stars, of a list of everything, and of these alone.
async fn list_at(addr: &str, own: &[u64]) -> (Value, Value) {
    let all = ask(addr, json!({"type": "LIST"})).await;
    let page = ask(addr, json!({"type": "LIST", "stars": own, "limit": 1000})).await;
    (all, page)
}

#[test]
fn a_plain_client_is_told_what_to_ask_whom() {
    block_on(async {
        let cluster = start().await;
        let client = connect(&addrs(&cluster), Transport::Tcp).await;
        let names = names(200);
        fill(&client, &names).await;
        let mut found = BTreeSet::new();
        for addr in addrs(&cluster) {
            let ends = Clock.now() + LATE;
            // On a machine that is busy a server may lose its lease, and views may change between two questions.
            let (own, all, page, many) = loop {
                let (before, own) = (epochs(&addr).await, served(&addr).await);
                let (all, page) = list_at(&addr, &own).await;
                let many = ask(&addr, json!({"type": "GET", "keys": names})).await;
                let is_quiet = before == epochs(&addr).await && !format!("{all}{page}{many}").contains("NO_LEASE");
                if is_quiet && !own.is_empty() && own.len() < 8 {
                    break (own, all, page, many);
                }
                assert!(Clock.now() < ends, "no peace for so long: {own:?} {all} {page}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            };
            assert_eq!((&all["code"], &all["retry"]), (&json!("NOT_SERVING"), &json!(true)), "{all}");
            let text = own.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let message = all["message"].as_str().expect("a text");
            let hint = format!("stars {text}: name them in `stars`");
            assert!(message.contains("ask one of ") && message.contains(&hint), "{message}");
            assert_eq!(page["more"], false, "{page}");
            let keys: Vec<&str> = page["keys"].as_array().expect("keys").iter().filter_map(Value::as_str).collect();
            let parts = many["results"].as_array().expect("parts");
            for (name, part) in names.iter().zip(parts) {
                // Each key by itself is answered, or refused with the names of those who serve it.
                if keys.contains(&name.as_str()) {
                    assert_eq!(part["value"], *name, "{part}");
                } else {
                    assert_eq!(part["code"], "NOT_SERVING", "{part}");
                    assert!(part["message"].as_str().is_some_and(|text| text.contains("ask one of")), "{part}");
                }
            }
            found.extend(keys.into_iter().map(str::to_owned));
        }
        assert!(found.iter().eq(&names), "all servers together have everything");
        let refusal = ask(&addrs(&cluster)[0], json!({"type": "LIST", "stars": [8]})).await;
        assert_eq!(refusal["code"], "BAD_REQUEST", "{refusal}");
    });
}

#[test]
fn pages_and_many_keys_go_on_while_members_change() {
    block_on(async {
        let mut cluster = start().await;
        let client = connect(&addrs(&cluster), Transport::Tcp).await;
        let names = names(1200);
        fill(&client, &names).await;
        let is_over = Arc::new(AtomicBool::new(false));
        // With a client of its own, in a thread of its own: a server that is stopped blocks this one.
        let reader = std::thread::spawn({
            let addrs = addrs(&cluster);
            let (names, is_over) = (names.clone(), Arc::clone(&is_over));
            move || {
                block_on(async {
                    let client = connect(&addrs, Transport::Tcp).await;
                    let mut rounds = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        assert!(listed(&client, 400).await == names, "round {rounds}");
                        assert_eq!(fill(&client, &names[..300]).await.len(), 300);
                        rounds += 1;
                    }
                    rounds
                })
            }
        });
        for name in ["b", "d"] {
            assert!(cluster.stop_server(name));
            cluster.start_again(name).await.expect("it comes back");
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(reader.join().expect("it read all the time") > 0);
        assert_eq!(listed(&client, 1000).await, names);
        let versions = fill(&client, &names[1100..]).await;
        assert_eq!(versions, vec![Version(2); 100], "each was written once before, whatever was sent again");
    });
}
