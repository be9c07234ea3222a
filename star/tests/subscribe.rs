//! Notices of what changes in a server's store.

use std::time::Duration;

use bytes::Bytes;
use star::{Event, Options, StarClient, StarCluster, Subscription};
use star_core::{
    Clock, Version,
    message::{Condition, Notice},
    network::ClientOptions,
};

/// Long after anything here should have happened, on whatever machine.
const LATE: Duration = Duration::from_mins(2);
/// More changes than a server remembers.
const MANY: usize = 17;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

async fn client(addrs: &[String]) -> StarClient {
    let network = ClientOptions { request_timeout: LATE, ..ClientOptions::default() };
    let options = Options { network, give_up_after: LATE, ..Options::default() };
    StarClient::connect(addrs, options).await.expect("the cluster answers")
}

fn addrs(cluster: &StarCluster) -> Vec<String> {
    cluster.servers().map(|server| server.addr().to_owned()).collect()
}

async fn next(subscription: &mut Subscription) -> Event {
    tokio::time::timeout(LATE, subscription.next()).await.expect("something happens").expect("an answer")
}

fn changed(key: &str, version: u64, value_bytes: Option<u64>) -> Event {
    Event::Changed(Notice { key: key.into(), version: Version(version), value_bytes })
}

#[test]
fn each_change_is_told_once_and_in_order() {
    block_on(async {
        let cluster = StarCluster::start_local(3).await.expect("the cluster starts");
        let client = client(&addrs(&cluster)).await;
        client.set("a/before", "seen by nobody").await.expect("a write");
        // Of that server, too: it may apply a write a moment after its origin has.
        let end = Clock.now() + LATE;
        let capacity = || async { client.capacity().await.expect("an answer").objects };
        while capacity().await == 0 {
            assert!(Clock.now() < end, "the server does not apply the write");
        }
        let mut some = client.subscribe("a/").await.expect("an answer");
        let mut all = client.subscribe("").await.expect("an answer");
        for (key, value) in [("a/1", "one"), ("b/1", "other"), ("a/1", "longer")] {
            client.set(key, value).await.expect("a write");
        }
        client.delete("a/1", Condition::Always).await.expect("an answer");
        let mut room = client.create("a/room", 70_000).await.expect("there is room");
        room.fill(1);
        room.seal().await.expect("it is sealed");
        let a = |version, bytes| changed("a/1", version, bytes);
        for wanted in [a(1, Some(3)), a(2, Some(6)), a(2, None), changed("a/room", 1, Some(70_000))] {
            assert_eq!(next(&mut some).await, wanted);
        }
        let mut keys = Vec::new();
        for _ in 0..5 {
            let Event::Changed(notice) = next(&mut all).await else { panic!("nothing was missed") };
            keys.push(notice.key);
        }
        keys.sort_unstable();
        assert_eq!(keys, ["a/1", "a/1", "a/1", "a/room", "b/1"]);
    });
}

#[test]
fn who_is_slow_misses_some_and_goes_on() {
    block_on(async {
        let cluster = StarCluster::start_local(1).await.expect("the cluster starts");
        let client = client(&addrs(&cluster)).await;
        let mut slow = client.subscribe("").await.expect("an answer");
        let keys: Vec<String> = (0..1024).map(|number| format!("key-{number}")).collect();
        let objects: Vec<(&str, Bytes)> = keys.iter().map(|key| (key.as_str(), Bytes::from_static(b"v"))).collect();
        for _ in 0..MANY {
            client.set_many(&objects).await.expect("writes");
        }
        client.set("last", "v").await.expect("a write");
        assert_eq!(next(&mut slow).await, Event::Missed);
        let mut told = 0;
        while next(&mut slow).await != changed("last", 1, Some(1)) {
            told += 1;
        }
        assert!((16_000..MANY * 1024).contains(&told), "{told}");
        client.set("more", "v").await.expect("a write");
        assert_eq!(next(&mut slow).await, changed("more", 1, Some(1)), "no more was missed");
    });
}

#[test]
fn a_subscription_goes_on_at_another_server() {
    block_on(async {
        let mut cluster = StarCluster::start_local(3).await.expect("the cluster starts");
        let client = client(&addrs(&cluster)).await;
        let mut subscription = client.subscribe("k").await.expect("an answer");
        client.set("k", "one").await.expect("a write");
        assert_eq!(next(&mut subscription).await, changed("k", 1, Some(3)));
        // The server that rooms are at is the one that is watched: that of the mapped store that this client reads.
        let room = client.create("room", 1 << 20).await.expect("there is room");
        let mut watched = None;
        for server in cluster.servers() {
            let one = StarClient::connect(&[server.addr().to_owned()], Options::one_server()).await.expect("an answer");
            if one.capacity().await.expect("an answer").room_bytes > 0 {
                watched = Some(server.name().to_owned());
            }
        }
        drop(room);
        assert!(cluster.stop_server(&watched.expect("a server has the room")));
        let writer = async {
            // Whether it began to listen before a write, only a notice tells.
            loop {
                client.set("k", "again").await.expect("a write");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let told = tokio::select! {
            told = async { (next(&mut subscription).await, next(&mut subscription).await) } => told,
            () = writer => unreachable!("it writes for good"),
        };
        assert!(matches!(told, (Event::Missed, Event::Changed(Notice { value_bytes: Some(5), .. }))), "{told:?}");
        assert!(client.get("k").await.expect("a read").is_some());
    });
}
