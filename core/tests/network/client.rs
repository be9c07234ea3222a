//! [`TcpClient`] against a real server on real sockets.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use star_core::{
    message::{Request, Response, Wire, frame::FrameKind},
    network::{ClientOptions, NetworkError, TcpClient},
};
use tokio::{task::JoinSet, time::timeout};

use crate::support::{Reaction, TestServer, answer, echo, serve, set};

const SECOND: Duration = Duration::from_secs(1);

fn one_connection() -> ClientOptions {
    ClientOptions { pool_size: 1, ..ClientOptions::default() }
}

fn client(server: &TestServer, options: ClientOptions) -> TcpClient {
    TcpClient::new(server.addr.to_string(), options)
}

/// Calls until the server can be reached again.
async fn call_until_reached(client: &TcpClient, request: &Request) -> Response {
    let reached = async {
        loop {
            match client.call(request).await {
                Ok(response) => return response,
                Err(error) => assert!(error.retry(), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(10 * SECOND, reached).await.expect("the server is reached again")
}

#[tokio::test]
async fn answers_find_their_requests_in_any_order() {
    // Answers all 100 requests together, the last first.
    let backwards = Arc::new(|requests: Vec<_>| {
        if requests.len() < 100 {
            return Reaction::Collect(requests);
        }
        Reaction::Send(requests.iter().rev().flat_map(|(id, request)| answer(*id, request)).collect())
    });
    let server = TestServer::start(backwards).await;
    let client = client(&server, one_connection());
    let mut calls = JoinSet::new();
    for number in 0..100_u32 {
        let client = client.clone();
        calls.spawn(async move { (number, client.call(&set(number.to_string())).await.unwrap()) });
    }
    for (number, response) in calls.join_all().await {
        assert_eq!(response.value, number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_a_pool_on_many_threads() {
    let server = TestServer::start(echo()).await;
    let client = client(&server, ClientOptions { pool_size: 3, ..ClientOptions::default() });
    let mut callers = JoinSet::new();
    for caller in 0..32 {
        let client = client.clone();
        callers.spawn(async move {
            for number in 0..200 {
                let value = format!("{caller}/{number}");
                assert_eq!(client.call(&set(value.clone())).await.unwrap().value, value);
            }
        });
    }
    callers.join_all().await;
}

#[tokio::test]
async fn a_broken_connection_fails_what_is_under_way_and_says_so() {
    // Answers the first request of a connection, and closes it at the second.
    let script = Arc::new(|requests: Vec<(u64, Request)>| {
        let last = requests.last().unwrap();
        if last.1.value == "break" { Reaction::Close } else { Reaction::Send(answer(last.0, &last.1)) }
    });
    let server = TestServer::start(script).await;
    let client = client(&server, one_connection());
    client.call(&set("first")).await.unwrap();
    let error = timeout(SECOND, client.call(&set("break"))).await.expect("at once").unwrap_err();
    assert!(matches!(&error, NetworkError::Broken { reason, .. } if reason.contains("closed")), "{error}");
    assert!(error.may_have_been_done() && error.retry());
    assert_eq!(client.call(&set("again")).await.unwrap().value, "again", "the next call connects again");
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again() {
    let server = TestServer::start(echo()).await;
    let addr = server.addr;
    let client = client(&server, ClientOptions { pool_size: 2, ..ClientOptions::default() });
    client.connect().await.unwrap();
    server.stop().await;

    // Each failed attempt doubles the wait; calls in between fail at once.
    let waited = async {
        loop {
            match client.call(&set("lost")).await.unwrap_err() {
                NetworkError::Unreachable { retry_in_ms: 500.., .. } => return,
                error => assert!(error.retry(), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(10 * SECOND, waited).await.unwrap();

    let _server = TestServer::start_at(addr, echo()).await;
    let error = client.call(&set("early")).await.unwrap_err();
    assert!(matches!(error, NetworkError::Unreachable { .. }), "no attempt is made before its time: {error}");
    assert!(!error.may_have_been_done());
    assert_eq!(call_until_reached(&client, &set("found")).await.value, "found");
}

#[tokio::test]
async fn the_largest_object_goes_through_and_comes_back() {
    let server = TestServer::start(echo()).await;
    let client = client(&server, ClientOptions { request_timeout: 60 * SECOND, ..one_connection() });
    let mut value = vec![0_u8; 64 << 20];
    for (place, byte) in value.iter_mut().enumerate() {
        *byte = (place as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0];
    }
    let value = Bytes::from(value);
    let (large, small) = (set(value.clone()), set("small"));
    let (large, small) = tokio::join!(client.call(&large), client.call(&small));
    assert!(large.unwrap().value == value, "byte for byte");
    assert_eq!(small.unwrap().value, "small");
}

#[tokio::test]
async fn frames_over_the_limit_harm_nobody_else() {
    let server = TestServer::start(echo()).await;
    let client = client(&server, ClientOptions { frame_bytes_max: 1000, ..one_connection() });
    let error = client.call(&set(vec![0; 1000])).await.unwrap_err();
    assert!(matches!(error, NetworkError::RequestTooLarge { frame_bytes: 1001.., max_bytes: 1000, .. }), "{error}");
    assert_eq!(client.call(&set("small")).await.unwrap().value, "small");

    let wordy = Arc::new(|requests: Vec<(u64, Request)>| {
        let large = |request: &Request| if request.value == "large" { set(vec![7; 5000]) } else { request.clone() };
        Reaction::Send(requests.iter().flat_map(|(id, request)| answer(*id, &large(request))).collect())
    });
    let server = TestServer::start(wordy).await;
    let client = TcpClient::new(server.addr.to_string(), ClientOptions { frame_bytes_max: 1000, ..one_connection() });
    let (large, small) = (set("large"), set("small"));
    let (large, small) = tokio::join!(client.call(&large), client.call(&small));
    let error = large.unwrap_err();
    assert!(matches!(error, NetworkError::AnswerTooLarge { frame_bytes: 5001.., max_bytes: 1000, .. }), "{error}");
    assert_eq!(small.unwrap().value, "small");
}

#[tokio::test]
async fn a_late_answer_times_out_and_the_connection_goes_on() {
    // Answers every request but those that say "never".
    let script = Arc::new(|requests: Vec<(u64, Request)>| {
        let answered = requests.iter().filter(|(_, request)| request.value != "never");
        Reaction::Send(answered.flat_map(|(id, request)| answer(*id, request)).collect())
    });
    let server = TestServer::start(script).await;
    let client = client(&server, one_connection());
    let header = |value: &'static str| (encoded(&set(value)), Bytes::from(value));
    let (never, tail) = header("never");
    let limit = Duration::from_millis(50);
    let error = client.exchange_within(FrameKind::Request, &never, tail, limit).await.unwrap_err();
    assert!(matches!(error, NetworkError::TimedOut { waited_ms: 50.., .. }), "{error}");
    let (soon, tail) = header("soon");
    let (kind, _, tail) = client.exchange(FrameKind::Request, &soon, tail).await.unwrap();
    assert_eq!((kind, &tail[..]), (FrameKind::Response, &b"soon"[..]));
}

fn encoded(request: &Request) -> Vec<u8> {
    let mut header = Vec::new();
    request.encode_header(&mut header);
    header
}

#[tokio::test]
async fn a_connection_that_fell_silent_is_replaced() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        // Nothing is read from the first connection, as if its packets were lost.
        let (_silent, _) = listener.accept().await.unwrap();
        let (second, _) = listener.accept().await.unwrap();
        serve(second, echo()).await;
    });
    let options = ClientOptions { request_timeout: Duration::from_millis(100), ..one_connection() };
    let client = TcpClient::new(addr, options);
    assert!(matches!(client.call(&set("lost")).await, Err(NetworkError::TimedOut { .. })));
    assert_eq!(client.call(&set("found")).await.unwrap().value, "found");
    server.abort();
}

#[tokio::test]
async fn a_server_that_reads_nothing_does_not_fill_the_clients_memory() {
    // Accepts (in the backlog) and never reads.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = ClientOptions { request_timeout: Duration::from_millis(500), ..one_connection() };
    let client = TcpClient::new(listener.local_addr().unwrap().to_string(), options);
    let value = Bytes::from(vec![0_u8; 32 << 10]);
    let mut calls = JoinSet::new();
    // 4,000 calls of 32 KiB are more than may be queued: all end, none hangs.
    for _ in 0..4000 {
        let (client, request) = (client.clone(), set(value.clone()));
        calls.spawn(async move { client.call(&request).await.unwrap_err() });
    }
    let errors = timeout(30 * SECOND, calls.join_all()).await.expect("every call ends");
    for error in errors {
        assert!(matches!(error, NetworkError::TimedOut { .. } | NetworkError::Broken { .. }), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_server_of_ours_is_an_error() {
    let garbage = TestServer::start(Arc::new(|_| Reaction::Send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()))).await;
    let error = client(&garbage, one_connection()).call(&set("v")).await.unwrap_err();
    assert!(matches!(&error, NetworkError::Broken { reason, .. } if reason.contains("0x48")), "{error}");

    let wrong_kind = TestServer::start(Arc::new(|requests: Vec<(u64, Request)>| {
        let mut bytes = answer(requests[0].0, &requests[0].1);
        bytes[1] = FrameKind::ControlAnswer as u8;
        Reaction::Send(bytes)
    }));
    let error = client(&wrong_kind.await, one_connection()).call(&set("v")).await.unwrap_err();
    assert!(matches!(error, NetworkError::Unexpected { .. }), "{error}");
}

#[test]
fn a_client_outlives_the_runtime_of_its_connections() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let servers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = servers.block_on(TestServer::start(echo()));
    let client = client(&server, one_connection());
    for round in ["first", "second"] {
        let value = runtime().block_on(client.call(&set(round))).unwrap().value;
        assert_eq!(value, round, "its connection ended with the runtime, the next call makes another");
    }
}
