//! Faults on demand: asking one server to cut a link, to mend it, or to end like a crash.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use star::ClientError;
use star_core::{
    message::{Fault, Response, ResponseBody, Wire, frame::FrameKind},
    network::{ClientOptions, NetworkError, TcpClient},
};

use crate::error::CliError;

/// What a server says of its links.
#[derive(Debug, Default, Deserialize)]
struct Links {
    failed_links: Vec<String>,
}

/// Asks the server at `addr` for a fault. Returns the names of the servers whose links it has cut from then on; none
/// where its process has ended.
pub(crate) async fn ask(addr: &str, fault: &Fault, timeout: Duration) -> Result<Vec<String>, CliError> {
    let options =
        ClientOptions { pool_size: 1, connect_timeout: timeout, request_timeout: timeout, ..ClientOptions::default() };
    let client = TcpClient::new(addr.to_owned(), options);
    let mut header = Vec::new();
    fault.encode_header(&mut header);
    let (kind, header, tail) = match client.exchange(FrameKind::Fault, &header, Bytes::new()).await {
        // A process that has ended gives no answer.
        Err(NetworkError::Broken { .. }) if *fault == Fault::FailProcess => return Ok(Vec::new()),
        answer => answer?,
    };
    let unexpected = |reason: String| NetworkError::Unexpected { addr: addr.to_owned(), reason };
    if kind != FrameKind::Response {
        return Err(unexpected(format!("a frame of kind {kind:?}")).into());
    }
    match Response::decode(&header, tail).map_err(unexpected)?.body {
        ResponseBody::Status(text) => {
            let links: Links = serde_json::from_str(&text).map_err(|error| unexpected(error.to_string()))?;
            Ok(links.failed_links)
        }
        ResponseBody::Error(failure) => Err(ClientError::Refused(failure).into()),
        other => Err(unexpected(format!("{other:?}")).into()),
    }
}
