//! [`ConnectionStub`] against real servers.

use std::{sync::Arc, time::Duration};

use star_core::network::{ClientOptions, ConnectionStub, NetworkError};

use crate::support::{Reaction, TestServer, echo, set};

#[tokio::test]
async fn a_stub_sends_by_name_and_its_links_can_fail() {
    let (a, b) = (TestServer::start(echo()).await, TestServer::start(echo()).await);
    let servers = [("a".to_owned(), a.addr.to_string()), ("b".to_owned(), b.addr.to_string())];
    let stub = ConnectionStub::new(servers, &ClientOptions::default());
    stub.initiate_connections().await.unwrap();
    assert_eq!(stub.send("b", &set("v")).await.unwrap().value, "v");
    let error = stub.send("c", &set("v")).await.unwrap_err();
    assert_eq!(error.to_string(), r#"no server is named "c"; the servers are a, b"#);

    stub.fail_link("a").unwrap();
    assert_eq!(stub.send("a", &set("v")).await, Err(NetworkError::LinkFailed { name: "a".to_owned() }));
    let answers = stub.broadcast(&set("w")).await;
    assert_eq!(answers["a"], Err(NetworkError::LinkFailed { name: "a".to_owned() }));
    assert_eq!(answers["b"].as_ref().unwrap().value, "w");

    stub.fix_link("a").unwrap();
    assert_eq!(stub.send("a", &set("v")).await.unwrap().value, "v");
    assert!(stub.broadcast(&set("w")).await.values().all(Result::is_ok));
}

#[tokio::test]
async fn failing_a_link_fails_what_is_under_way_on_it() {
    let never = TestServer::start(Arc::new(Reaction::Collect)).await;
    let stub = ConnectionStub::new([("a".to_owned(), never.addr.to_string())], &ClientOptions::default());
    let request = set("v");
    let (answer, ()) = tokio::join!(stub.send("a", &request), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        stub.fail_link("a").unwrap();
    });
    assert_eq!(answer, Err(NetworkError::LinkFailed { name: "a".to_owned() }));
}

#[tokio::test]
async fn servers_that_cannot_be_reached_are_all_named() {
    let here = TestServer::start(echo()).await;
    let gone = TestServer::start(echo()).await;
    let gone_addr = gone.addr.to_string();
    gone.stop().await;
    let servers = [("a", here.addr.to_string()), ("b", gone_addr.clone()), ("c", gone_addr.clone())];
    let stub = ConnectionStub::new(servers.map(|(name, addr)| (name.to_owned(), addr)), &ClientOptions::default());
    let error = stub.initiate_connections().await.unwrap_err();
    let text = error.to_string();
    let NetworkError::NotConnected { servers: 3, failed } = error else { panic!("{text}") };
    assert_eq!(failed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    assert!(text.starts_with("2 of 3 servers") && text.contains(&gone_addr), "{text}");
}
