//! What every control plane must do, run on each: a member in the same process, one behind a socket, Redis.

#[macro_use]
mod suite;
mod support;

use std::time::Duration;

use bytes::Bytes;
use star_control::{CasOutcome, ControlPlane, PlaneError, Revision};
use star_core::{Clock, Incarnation};
use support::{Backend, Host, Local, Redis, RedisServer, TTL_MAX, Tcp, TcpHost, redis_plane, tcp_plane};
use tokio::time::timeout;

/// Long after anything here should have happened.
const LATE: Duration = Duration::from_secs(20);

async fn set<P: ControlPlane>(plane: &P, key: &str, expected: u64, value: &'static str) {
    let outcome = plane.compare_and_set(key, Revision(expected), Bytes::from(value), &[]).await;
    assert_eq!(outcome, Ok(CasOutcome::Done(Revision(expected + 1))));
}

macro_rules! on {
    ($module:ident, $backend:ident, $($case:ident)*) => {
        mod $module {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let backend = $backend::start().await;
                    suite::$case(backend.plane()).await;
                }
            )*
        }
    };
}

each_case! { on! embedded_local, Local, }
each_case! { on! embedded_tcp, Tcp, }
each_case! { on! redis_server, Redis, }

/// Tries until the plane answers.
async fn get_at_last<P: ControlPlane>(plane: &P, key: &str) -> Option<Revision> {
    let began = Clock.now();
    loop {
        match plane.get(key).await {
            Ok(found) => return found.map(|found| found.revision),
            Err(error) => assert!(error.retry() && Clock.now().since(began) < LATE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_goes_away_is_unreachable_until_it_is_back() {
    let host = Host::new(TTL_MAX);
    let server = TcpHost::start(host.clone(), "127.0.0.1:0").await;
    let addr = server.addr().to_owned();
    let plane = tcp_plane(&addr);
    set(&plane, "k", 0, "v").await;
    server.stop().await;
    let error = plane.get("k").await.expect_err("nobody listens");
    assert!(matches!(error, PlaneError::Unreachable { .. }), "{error}");
    let _server = TcpHost::start(host, &addr).await;
    assert_eq!(get_at_last(&plane, "k").await, Some(Revision(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_empty_is_noticed_by_those_who_watch() {
    let redis = RedisServer::start(None).await;
    let (plane, port) = (redis_plane(&redis.url()), redis.port);
    set(&plane, "k", 0, "v").await;
    let watch = tokio::spawn({
        let plane = plane.clone();
        async move {
            loop {
                match plane.changed("k", Revision(1)).await {
                    Err(error) if error.retry() => tokio::time::sleep(Duration::from_millis(10)).await,
                    outcome => return outcome,
                }
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(redis);
    let error = plane.get("k").await.expect_err("nobody listens");
    assert!(matches!(error, PlaneError::Unreachable { .. }), "{error}");
    let _redis = RedisServer::start(Some(port)).await;
    assert_eq!(get_at_last(&plane, "k").await, None);
    let error = timeout(LATE, watch).await.expect("in time").expect("a watcher").expect_err("it went back");
    assert!(matches!(error, PlaneError::WentBack { known: Revision(1), found: Revision::ABSENT, .. }), "{error}");
}

#[tokio::test]
async fn what_others_wrote_into_redis_is_an_error_and_no_panic() {
    let redis = RedisServer::start(None).await;
    let plane = redis_plane(&redis.url());
    let client = redis::Client::open(redis.url()).expect("a client");
    let mut other = client.get_multiplexed_async_connection().await.expect("a connection");
    let mut put = async |command: &[&str]| {
        let mut line = redis::cmd(command[0]);
        line.arg(&command[1..]).exec_async(&mut other).await.expect("written");
    };
    put(&["SET", "{star:test}:document:text", "x"]).await;
    put(&["HSET", "{star:test}:document:half", "revision", "3"]).await;
    put(&["HSET", "{star:test}:document:word", "revision", "many", "value", "v"]).await;
    put(&["SET", "{star:test}:lease:s", "somebody"]).await;
    for key in ["text", "half", "word"] {
        let error = plane.get(key).await.expect_err(key);
        assert!(matches!(error, PlaneError::Corrupt { .. }), "{key}: {error}");
    }
    assert!(plane.compare_and_set("text", Revision(0), Bytes::new(), &[]).await.is_err());
    assert!(matches!(plane.acquire("s", Incarnation(17), TTL_MAX).await, Err(PlaneError::Corrupt { .. })));
    for url in ["not a url", "http://127.0.0.1:1"] {
        let options = star_control::RedisOptions::new(url, "test");
        assert!(matches!(star_control::RedisPlane::new(options), Err(PlaneError::Refused(_))), "{url}");
    }
}

#[test]
fn a_redis_plane_can_be_made_before_there_is_a_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let starter = runtime();
    let redis = starter.block_on(RedisServer::start(None));
    let plane = redis_plane(&redis.url());
    drop(starter);
    runtime().block_on(async {
        set(&plane, "k", 0, "v").await;
        let found = timeout(LATE, plane.changed("k", Revision::ABSENT)).await.expect("in time").expect("a document");
        assert_eq!(found.revision, Revision(1));
    });
}
