//! Reads through the public calls of a client, from the mapped store of a server that runs in this process.

use std::{error::Error, path::Path, thread, time::Duration};

use bytes::Bytes;
use star::{BlockingClient, ClientError, Options, ServerOptions, StarServer, Transport};
use star_core::{Clock, Key, cluster::ServerInfo, config::Config, server::bind};

/// Objects of more bytes than this would not find room in the server's store.
const BYTES_MAX: usize = 256 << 20;
/// Bytes of objects in one request.
const LOAD_BYTES: usize = 8 << 20;

/// How long a server may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A client of a server that holds all objects.
pub(crate) struct Client {
    client: BlockingClient,
    // Ends after the client.
    _server: StarServer,
}

impl Client {
    /// Starts a server with a store of the usual size, in huge pages if that is said. None if there are too many objects.
    pub(crate) fn start(
        directory: &Path,
        huge_pages: bool,
        keys: &[Key],
        value: &[u8],
    ) -> Result<Option<Self>, Box<dyn Error>> {
        if keys.len() * (value.len() + 64) > BYTES_MAX {
            return Ok(None);
        }
        let listener = bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?.to_string();
        let mut config = Config::default();
        config.cluster.name = format!("reads-{huge_pages}");
        config.cluster.servers = vec![ServerInfo::new("a", addr.clone())];
        config.store.directory = directory.to_path_buf();
        config.store.huge_pages = huge_pages;
        config.control.directory = directory.join("control");
        let server = StarServer::start_on(listener, ServerOptions::from_config(&config, "a")?)?;
        let client = connect(&addr)?;
        let value = Bytes::copy_from_slice(value);
        for some in keys.chunks((LOAD_BYTES / value.len().max(1)).clamp(1, 1024)) {
            let objects: Vec<(&str, Bytes)> = some.iter().map(|key| (key.as_str(), value.clone())).collect();
            client.set_many(&objects)?;
        }
        Ok(Some(Self { client, _server: server }))
    }

    pub(crate) fn get(&self, key: &Key) -> usize {
        self.client.get(key.as_str()).expect("a read").expect("an object").value.len()
    }

    /// The first byte.
    pub(crate) fn get_ref(&self, key: &Key) -> Option<u8> {
        self.client.get_ref(key.as_str()).expect("a read").expect("an object").first().copied()
    }

    /// How many of the keys have an object.
    pub(crate) fn get_many(&self, keys: &[&str]) -> usize {
        self.client.get_many(keys).expect("the reads").iter().flatten().count()
    }
}

/// A client that reads from the store of a server that was started just now.
#[allow(clippy::disallowed_methods, reason = "this thread is no server's")]
fn connect(addr: &str) -> Result<BlockingClient, ClientError> {
    let deadline = Clock.now() + READY_WITHIN;
    loop {
        let options = Options { transport: Transport::Shm, ..Options::default() };
        match BlockingClient::connect(&[addr.to_owned()], options) {
            // There is no view yet.
            Err(ClientError::NoMappedStore(_)) if Clock.now() < deadline => thread::sleep(Duration::from_millis(20)),
            outcome => return outcome,
        }
    }
}
