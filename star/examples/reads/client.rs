//! Reads through the public calls of a client, from the mapped store of a server that runs in this process.

use std::error::Error;

use bytes::Bytes;
use star::{BlockingClient, Options, StarCluster, Transport};
use star_core::Key;

/// Objects of more bytes than this would not find room in the server's store.
const BYTES_MAX: usize = 256 << 20;
/// Bytes of objects in one request.
const LOAD_BYTES: usize = 8 << 20;

/// A server that holds all objects, and a client of it.
pub(crate) struct Client {
    client: BlockingClient,
    // Ends after the client.
    _cluster: StarCluster,
}

impl Client {
    /// None if there are too many objects for the server.
    pub(crate) fn start(keys: &[Key], value: &[u8]) -> Result<Option<Self>, Box<dyn Error>> {
        if keys.len() * (value.len() + 64) > BYTES_MAX {
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let cluster = runtime.block_on(StarCluster::start_local(1))?;
        let addrs: Vec<String> = cluster.servers().map(|server| server.addr().to_owned()).collect();
        let client = BlockingClient::connect(&addrs, Options { transport: Transport::Shm, ..Options::default() })?;
        let value = Bytes::copy_from_slice(value);
        for some in keys.chunks((LOAD_BYTES / value.len().max(1)).clamp(1, 1024)) {
            let objects: Vec<(&str, Bytes)> = some.iter().map(|key| (key.as_str(), value.clone())).collect();
            client.set_many(&objects)?;
        }
        Ok(Some(Self { client, _cluster: cluster }))
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
