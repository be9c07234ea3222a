//! A Redis that sentinels watch: its primary is killed, and a replica takes its place.

mod support;

use std::time::Duration;

use bytes::Bytes;
use star_control::{Acquired, CasOutcome, ControlPlane, PlaneError, RedisOptions, RedisPlane, Revision, Versioned};
use star_core::{Clock, Incarnation};
use support::{RedisServer, TTL_MAX, redis_plane, settle};

/// Long after a failover should be over, also where sentinels are starved: they wait half a minute after a stall.
const LATE: Duration = Duration::from_mins(3);

const HOLDER: Incarnation = Incarnation(7);

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Clock.now() + LATE;
    while !holds().await {
        assert!(Clock.now() < until, "it never came true that {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn plane_by(sentinels: &str) -> RedisPlane {
    let answer = Duration::from_secs(5);
    let options = RedisOptions { ttl_max: TTL_MAX, answer, ..RedisOptions::new(sentinels, "test") };
    RedisPlane::new(options).expect("a good URL")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_is_found_and_takes_no_lease_for_free_that_it_may_not_know() {
    let primary = RedisServer::start(None).await;
    let replica = RedisServer::replica_of(&primary).await;
    let sentinel = RedisServer::sentinel_of(&primary).await;
    // One of them is not there, and need not be.
    let url = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/main", sentinel.port);
    let plane = plane_by(&url);
    settle(&plane).await;
    assert_eq!(plane.acquire("s", HOLDER, TTL_MAX).await, Ok(Acquired::Held));
    let set = plane.compare_and_set("k", Revision::ABSENT, Bytes::from("v"), &[]).await;
    assert_eq!(set, Ok(CasOutcome::Done(Revision(1))));
    let asleep = tokio::spawn({
        let plane = plane.clone();
        async move { watch(&plane, Revision(1)).await }
    });

    // A replica is asked for nothing, whatever it has.
    let behind = redis_plane(&replica.url());
    let refused = behind.get("k").await.expect_err("a replica");
    assert!(refused.retry() && refused.to_string().contains("not the primary"), "{refused}");
    let at_replica = redis::Client::open(replica.url()).expect("a client");
    let mut copy = at_replica.get_multiplexed_async_connection().await.expect("a connection");
    eventually("the replica has the document", async || {
        let found = redis::cmd("HGET").arg("{star:test}:document:k").arg("revision").query_async(&mut copy).await;
        found.is_ok_and(|revision: Option<u64>| revision == Some(1))
    })
    .await;
    let mut ask = redis::Client::open(sentinel.url()).expect("a client").get_multiplexed_async_connection().await;
    let ask = ask.as_mut().expect("a connection");
    eventually("the sentinel knows the replica", async || {
        let known = redis::cmd("SENTINEL").arg("replicas").arg("main").query_async::<Vec<redis::Value>>(ask).await;
        known.is_ok_and(|replicas| replicas.len() == 1)
    })
    .await;

    drop(primary);
    let error = plane.get("k").await.expect_err("nobody listens");
    assert!(matches!(error, PlaneError::Unreachable { .. }), "{error}");
    eventually("the replica is found", async || match plane.get("k").await {
        Ok(found) => {
            assert_eq!(found, Some(Versioned { revision: Revision(1), value: Bytes::from("v") }));
            true
        }
        Err(error) => {
            assert!(error.retry(), "{error}");
            false
        }
    })
    .await;
    // As if the lease had not reached the replica: it may still run.
    let mut copy = at_replica.get_multiplexed_async_connection().await.expect("the old one is closed by the sentinel");
    let _: i64 = redis::cmd("DEL").arg("{star:test}:lease:s").query_async(&mut copy).await.expect("it is a primary");
    let unleased = ["s".to_owned()];
    let evict = async || plane.compare_and_set("k", Revision(1), Bytes::from("w"), &unleased).await;
    assert_eq!(evict().await, Ok(CasOutcome::Leased("s".into())), "a lease that it may not know");
    eventually("all leases of before are over", async || evict().await == Ok(CasOutcome::Done(Revision(2)))).await;
    let heard = asleep.await.expect("a watcher");
    assert_eq!(heard, Versioned { revision: Revision(2), value: Bytes::from("w") }, "who watched hears of it");
}

/// Waits for a change, however often the plane goes away meanwhile.
async fn watch(plane: &RedisPlane, after: Revision) -> Versioned {
    loop {
        match plane.changed("k", after).await {
            Ok(news) => return news,
            Err(error) => assert!(error.retry(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn sentinels_that_name_no_primary_are_told_by_name() {
    let primary = RedisServer::start(None).await;
    let sentinel = RedisServer::sentinel_of(&primary).await;
    let error = plane_by(&format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/other", sentinel.port));
    let error = error.get("k").await.expect_err("it is called main");
    let text = error.to_string();
    assert!(error.retry() && text.contains("127.0.0.1:1: ") && text.contains("no primary called \"other\""), "{text}");
}
