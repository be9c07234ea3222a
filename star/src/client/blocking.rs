//! The same client for programs without an async runtime.

use bytes::Bytes;
use star_core::{
    KeyRef, Version,
    message::{Capacity, Condition},
};

use super::{CasOutcome, ClientError, Object, ObjectRef, Options, Page, Room, StarClient, mapped::MappedRead};

/// A [`StarClient`] with a runtime of its own; every operation blocks until it is done.
///
/// Must not be used inside an async runtime: it would block it, and tokio panics rather than let that happen.
#[derive(Debug)]
pub struct BlockingClient {
    runtime: tokio::runtime::Runtime,
    client: StarClient,
}

impl BlockingClient {
    /// See [`StarClient::connect`].
    pub fn connect(addrs: &[String], options: Options) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ClientError::NoCluster { tried: addrs.join(", "), last: error.to_string() })?;
        let client = runtime.block_on(StarClient::connect(addrs, options))?;
        Ok(Self { runtime, client })
    }

    /// See [`StarClient::set`].
    pub fn set(&self, key: &str, value: impl Into<Bytes>) -> Result<Version, ClientError> {
        self.runtime.block_on(self.client.set(key, value))
    }

    /// See [`StarClient::get`].
    #[inline]
    pub fn get(&self, key: &str) -> Result<Option<Object>, ClientError> {
        let key = KeyRef::new(key);
        // Entering the runtime costs as much as the read.
        match self.client.inner.servers.try_read_mapped(key) {
            Some(object) => Ok(Some(object)),
            None => self.get_otherwise(key),
        }
    }

    #[cold]
    #[inline(never)]
    fn get_otherwise(&self, key: KeyRef<'_>) -> Result<Option<Object>, ClientError> {
        match self.client.inner.servers.read_mapped(key) {
            MappedRead::Answer(answer) => Ok(answer),
            MappedRead::AskServer => self.ask(key),
        }
    }

    /// See [`StarClient::get_ref`].
    #[inline]
    pub fn get_ref(&self, key: &str) -> Result<Option<ObjectRef>, ClientError> {
        let key = KeyRef::new(key);
        match self.client.inner.servers.try_pin_mapped(key) {
            Some(object) => Ok(Some(object)),
            None => self.get_ref_otherwise(key),
        }
    }

    #[cold]
    #[inline(never)]
    fn get_ref_otherwise(&self, key: KeyRef<'_>) -> Result<Option<ObjectRef>, ClientError> {
        match self.client.inner.servers.pin_mapped(key) {
            MappedRead::Answer(answer) => Ok(answer),
            MappedRead::AskServer => Ok(self.ask(key)?.map(|object| ObjectRef::Copied(object.into()))),
        }
    }

    #[cold]
    fn ask(&self, key: KeyRef<'_>) -> Result<Option<Object>, ClientError> {
        self.runtime.block_on(self.client.get_from_server(key.to_key()))
    }

    /// See [`StarClient::delete`].
    pub fn delete(&self, key: &str, condition: Condition) -> Result<Option<CasOutcome>, ClientError> {
        self.runtime.block_on(self.client.delete(key, condition))
    }

    /// See [`StarClient::compare_and_set`].
    pub fn compare_and_set(
        &self,
        key: &str,
        condition: Condition,
        value: impl Into<Bytes>,
    ) -> Result<CasOutcome, ClientError> {
        self.runtime.block_on(self.client.compare_and_set(key, condition, value))
    }

    /// See [`StarClient::list`].
    pub fn list(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Page, ClientError> {
        self.runtime.block_on(self.client.list(prefix, after, limit))
    }

    /// See [`StarClient::get_many`].
    pub fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Object>>, ClientError> {
        let keys: Vec<KeyRef<'_>> = keys.iter().map(|key| KeyRef::new(key)).collect();
        let read = self.client.inner.servers.read_many_mapped(&keys);
        if read.left.is_empty() {
            return Ok(read.found);
        }
        self.runtime.block_on(self.client.read_left(&keys, read))
    }

    /// See [`StarClient::contains`].
    pub fn contains(&self, key: &str) -> Result<bool, ClientError> {
        self.runtime.block_on(self.client.contains(key))
    }

    /// See [`StarClient::create`]. What is made here is sealed and aborted here: [`Self::seal`], [`Self::abort`].
    pub fn create(&self, key: &str, value_bytes: usize) -> Result<Room, ClientError> {
        self.runtime.block_on(self.client.create(key, value_bytes))
    }

    /// See [`Room::seal`].
    pub fn seal(&self, room: Room) -> Result<Version, ClientError> {
        self.runtime.block_on(room.seal())
    }

    /// See [`Room::seal_if`].
    pub fn seal_if(&self, room: Room, condition: Condition) -> Result<CasOutcome, ClientError> {
        self.runtime.block_on(room.seal_if(condition))
    }

    /// See [`Room::abort`].
    pub fn abort(&self, room: Room) -> Result<(), ClientError> {
        self.runtime.block_on(room.abort())
    }

    /// See [`StarClient::capacity`].
    pub fn capacity(&self) -> Result<Capacity, ClientError> {
        self.runtime.block_on(self.client.capacity())
    }

    /// See [`StarClient::status`].
    pub fn status(&self) -> Vec<(String, Result<String, ClientError>)> {
        self.runtime.block_on(self.client.status())
    }

    /// See [`StarClient::set_many`].
    pub fn set_many(&self, objects: &[(&str, Bytes)]) -> Result<Vec<Version>, ClientError> {
        self.runtime.block_on(self.client.set_many(objects))
    }
}
