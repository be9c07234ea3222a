//! A cluster of real servers in this process: the API that programs use.

use std::time::Duration;

use bytes::Bytes;
use star::{BlockingClient, CasOutcome, ObjectRef, StarCluster};
use star_core::{Clock, Version, message::Condition, network::ClientOptions};

/// Long after anything here should have happened, on whatever machine.
const LATE: Duration = Duration::from_mins(2);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

#[test]
fn what_one_client_writes_every_client_reads() {
    block_on(async {
        let cluster = StarCluster::start_local(3).await.expect("the cluster starts");
        let client = cluster.connect().await.expect("the cluster answers");
        assert_eq!(client.get("missing").await.expect("a read"), None);
        assert_eq!(client.set("k", "one").await.expect("a write"), Version(1));
        assert_eq!(client.set("k", "two").await.expect("a write"), Version(2));
        for server in cluster.servers() {
            let addr = vec![server.addr().to_owned()];
            let other =
                star::StarClient::connect(&addr, star::Options::one_server()).await.expect("the server answers");
            let object = other.get("k").await.expect("a read").expect("an object");
            assert_eq!((&*object.value, object.version), (&b"two"[..], Version(2)));
        }
        let outcome = client.compare_and_set("k", Condition::IfVersion(Version(1)), "three").await.expect("an answer");
        assert_eq!(outcome, CasOutcome::Conflict(Version(2)));
        let outcome = client.compare_and_set("k", Condition::IfVersion(Version(2)), "three").await.expect("an answer");
        assert_eq!(outcome, CasOutcome::Written(Version(3)));
        let outcome = client.compare_and_set("k", Condition::IfAbsent, "four").await.expect("an answer");
        assert_eq!(outcome, CasOutcome::Conflict(Version(3)));
        let deleted = client.delete("k", Condition::Always).await.expect("an answer");
        assert_eq!(deleted, Some(CasOutcome::Written(Version(4))));
        assert_eq!(client.delete("k", Condition::Always).await.expect("an answer"), None);
        assert_eq!(client.get("k").await.expect("a read"), None);
        let version = client.set("k", "again").await.expect("a write");
        assert!(version > Version(4), "a key that comes back goes on with a higher version, not {version}");
    });
}

#[test]
fn an_object_in_place_stays_as_it_was_read() {
    let cluster = block_on(StarCluster::start_local(3)).expect("the cluster starts");
    let addrs: Vec<String> = cluster.servers().map(|server| server.addr().to_owned()).collect();
    let client = BlockingClient::connect(&addrs, star::Options::default()).expect("the cluster answers");
    assert!(client.get_ref("k").expect("a read").is_none());
    client.set("k", "one").expect("a write");
    // It is a copy while the store's server has no lease, as on a machine that is busy.
    let deadline = Clock.now() + Duration::from_secs(60);
    let old = loop {
        let object = client.get_ref("k").expect("a read").expect("an object");
        assert_eq!((&*object, object.version()), (&b"one"[..], Version(1)));
        if matches!(object, ObjectRef::InPlace(_)) {
            break object;
        }
        assert!(Clock.now() < deadline, "no object in place");
        block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
    };
    for number in 0..100 {
        client.set("k", format!("number {number}")).expect("a write");
    }
    let new = client.get_ref("k").expect("a read").expect("an object");
    assert_eq!((&*old, &*new, new.version()), (&b"one"[..], &b"number 99"[..], Version(101)));
    client.delete("k", Condition::Always).expect("a delete");
    assert!(client.get_ref("k").expect("a read").is_none());
    assert_eq!((&*old, &*new), (&b"one"[..], &b"number 99"[..]));
}

#[test]
fn many_keys_in_one_request_and_lists() {
    block_on(async {
        let cluster = StarCluster::start_local(3).await.expect("the cluster starts");
        let client = cluster.connect().await.expect("the cluster answers");
        let names: Vec<String> = (0..100).map(|number| format!("dir/{number:03}")).collect();
        let objects: Vec<(&str, Bytes)> = names.iter().map(|name| (name.as_str(), Bytes::from(name.clone()))).collect();
        let versions = client.set_many(&objects).await.expect("the writes");
        assert_eq!(versions, vec![Version(1); 100]);
        let keys: Vec<&str> = names.iter().map(String::as_str).chain(["missing"]).collect();
        let read = client.get_many(&keys).await.expect("the reads");
        for (name, object) in names.iter().zip(&read) {
            assert_eq!(object.as_ref().expect("an object").value, name.as_bytes());
        }
        assert_eq!(read[100], None);
        let page = client.list("dir/", None, 60).await.expect("a page");
        assert_eq!((page.keys.as_slice(), page.more), (&names[..60], true));
        let page = client.list("dir/", Some("dir/059"), 60).await.expect("a page");
        assert_eq!((page.keys.as_slice(), page.more), (&names[60..], false));
        assert!(client.list("other", None, 1).await.expect("a page").keys.is_empty());
    });
}

#[test]
fn more_keys_than_a_server_takes_at_a_time_are_read_by_each_way() {
    let cluster = block_on(StarCluster::start_local(3)).expect("the cluster starts");
    let addrs: Vec<String> = cluster.servers().map(|server| server.addr().to_owned()).collect();
    let names: Vec<String> = (0..2500).map(|number| format!("k{number}")).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    let client = BlockingClient::connect(&addrs, star::Options::default()).expect("the cluster answers");
    // Every other key, so that those which are there and those which are not stand side by side.
    let objects: Vec<(&str, Bytes)> =
        keys.iter().step_by(2).map(|key| (*key, Bytes::copy_from_slice(key.as_bytes()))).collect();
    for some in objects.chunks(1000) {
        client.set_many(some).expect("the writes");
    }
    for transport in [star::Transport::Tcp, star::Transport::Shm] {
        let options = star::Options { transport, ..star::Options::default() };
        let client = BlockingClient::connect(&addrs, options).expect("the cluster answers");
        let read = client.get_many(&keys).expect("the reads");
        assert_eq!(read.len(), keys.len());
        for (number, (key, object)) in keys.iter().zip(read).enumerate() {
            let wanted = number.is_multiple_of(2).then_some(key.as_bytes());
            assert_eq!(object.as_ref().map(|object| &object.value[..]), wanted, "{key}, {transport:?}");
        }
    }
}

/// Short values lie in what is returned, longer ones on the heap: both exact, whatever their length.
#[test]
fn a_value_of_any_length_is_read_as_it_was_written() {
    let cluster = block_on(StarCluster::start_local(1)).expect("the cluster starts");
    let addrs: Vec<String> = cluster.servers().map(|server| server.addr().to_owned()).collect();
    let options = star::Options { transport: star::Transport::Shm, ..star::Options::default() };
    let client = BlockingClient::connect(&addrs, options).expect("the cluster answers");
    let value = |length: usize| -> Bytes { (0..length).map(|at| (at * 7 + length) as u8).collect() };
    for length in (0..=260).chain([4095, 4096, 4097, 70_000]) {
        let key = format!("of-{length}");
        client.set(&key, value(length)).expect("a write");
        for _ in 0..2 {
            let object = client.get(&key).expect("a read").expect("an object");
            assert_eq!((&*object.value, object.version), (&*value(length), Version(1)), "{length}");
            assert_eq!(Bytes::from(object.clone().value), value(length));
            assert_eq!(client.get_ref(&key).expect("a read").as_deref(), Some(&*value(length)), "{length}");
        }
    }
}

#[test]
fn an_object_of_the_greatest_size_and_one_above_it() {
    block_on(async {
        let cluster = StarCluster::start_local(3).await.expect("the cluster starts");
        let addrs: Vec<String> = cluster.servers().map(|server| server.addr().to_owned()).collect();
        let patient = ClientOptions { request_timeout: Duration::from_mins(1), ..ClientOptions::default() };
        let options = star::Options { network: patient, give_up_after: LATE, ..star::Options::default() };
        let client = star::StarClient::connect(&addrs, options).await.expect("the cluster answers");
        let value: Vec<u8> = (0..64 << 20).map(|index: u32| (index / 3) as u8).collect();
        client.set("large", value.clone()).await.expect("64 MiB are taken");
        for server in cluster.servers() {
            let addr = vec![server.addr().to_owned()];
            let patient = ClientOptions { request_timeout: Duration::from_mins(1), ..ClientOptions::default() };
            let options = star::Options { network: patient, give_up_after: LATE, ..star::Options::one_server() };
            let other = star::StarClient::connect(&addr, options).await.expect("an answer");
            let object = other.get("large").await.expect("a read").expect("an object");
            assert!(object.value == value, "the bytes differ at {}", server.name());
        }
        let error = client.set("larger", vec![0; (64 << 20) + 1]).await.expect_err("more is refused");
        assert!(error.to_string().contains("TOO_LARGE"), "{error}");
    });
}

#[test]
fn a_member_that_leaves_does_not_stop_the_others() {
    block_on(async {
        let mut cluster = StarCluster::start_local(3).await.expect("the cluster starts");
        let client = cluster.connect().await.expect("the cluster answers");
        for number in 0..50 {
            client.set(&format!("k{number}"), "before").await.expect("a write");
        }
        assert!(cluster.stop_server("c"));
        for number in 0..50 {
            let key = format!("k{number}");
            assert_eq!(client.get(&key).await.expect("a read").expect("an object").value, "before");
            client.set(&key, "after").await.expect("a write without the one that left");
            assert_eq!(client.get(&key).await.expect("a read").expect("an object").value, "after");
        }
    });
}

#[test]
fn a_server_that_comes_back_without_its_memory_gets_everything_again() {
    block_on(async {
        let mut cluster = StarCluster::start_local(3).await.expect("the cluster starts");
        let client = cluster.connect().await.expect("the cluster answers");
        for number in 0..300 {
            client.set(&format!("k{number}"), format!("before {number}")).await.expect("a write");
        }
        assert!(cluster.stop_server("c"));
        for number in 0..100 {
            client.set(&format!("k{number}"), format!("after {number}")).await.expect("a write");
        }
        client.delete("k299", Condition::Always).await.expect("a delete");
        cluster.start_again("c").await.expect("the server starts again and serves");
        let addr = cluster.servers().last().expect("a server").addr().to_owned();
        let other = star::StarClient::connect(&[addr], star::Options::one_server()).await.expect("the server answers");
        for number in 0..299 {
            let word = if number < 100 { "after" } else { "before" };
            let object = other.get(&format!("k{number}")).await.expect("a read").expect("an object");
            assert_eq!(object.value, format!("{word} {number}"));
        }
        assert_eq!(other.get("k299").await.expect("a read"), None);
        client.set("k299", "again").await.expect("a write with all three");
    });
}
