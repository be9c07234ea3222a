//! What a replica borrows from its server for one step.

use std::sync::Arc;

use star_control::ClusterState;
use star_core::{
    admission::refuse_overload,
    gather::Gathers,
    ids::{ServerId, StarId},
    key::Key,
    message::ResponseBody,
    protocol::Effects,
    requests::Asker,
    store::{Entry, Store},
    time::Time,
};

use super::{config::NodeConfig, message::Message, pace::CopyPace, slow::SlowLinks, status::Counters};

/// The server around a replica, for one step.
pub(crate) struct Context<'a, S, E> {
    pub(crate) now: Time,
    pub(crate) config: &'a NodeConfig,
    pub(crate) store: &'a mut S,
    pub(crate) effects: &'a mut E,
    pub(crate) shared: &'a mut Shared,
}

/// What the replicas of a server have in common.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The time of the step under way.
    pub(crate) now: Time,
    /// Until when this server may answer reads.
    pub(crate) lease_until: Time,
    /// The number of this server's latest write.
    pub(crate) last_write: u64,
    /// Bytes of values of this server's own clients that are not committed yet.
    pub(crate) own_bytes: u64,
    /// Bytes of values that this server has stamped, as the leader of stars, and not applied.
    pub(crate) promised_bytes: u64,
    /// What this server knows of slow links.
    pub(crate) slow: SlowLinks,
    /// How fast this server takes over objects.
    pub(crate) copy_pace: CopyPace,
    /// Requests with many parts.
    pub(crate) gathers: Gathers,
    /// Lists that a star has got ready for in this step.
    pub(crate) lists_released: Vec<(StarId, u64)>,
    /// The latest state of the cluster.
    pub(crate) cluster: Option<Arc<ClusterState>>,
    /// Tells this cluster's foundation from others, in notes.
    pub(crate) cluster_mark: u64,
    /// What was done so far, for people.
    pub(crate) counters: Counters,
}

impl Shared {
    /// Refuses a request whose writes take `wanted_bytes` more, if this server holds too much unfinished already.
    pub(crate) fn refuse_overload(&self, config: &NodeConfig, wanted_bytes: u64) -> Option<ResponseBody> {
        refuse_overload(&config.name, self.own_bytes, wanted_bytes, config.buffer_bytes_max)
    }
}

impl<S: Store, E: Effects<Message>> Context<'_, S, E> {
    /// This server.
    pub(crate) fn me(&self) -> ServerId {
        self.config.me
    }

    /// Whether this server may answer reads now.
    pub(crate) fn lease_valid(&self) -> bool {
        self.now < self.shared.lease_until || self.config.has_bug(super::Bug::LeaseIgnored)
    }

    /// Answers whoever asked.
    pub(crate) fn answer(&mut self, asker: Asker, body: &ResponseBody, value: &[u8]) {
        asker.answer(self.effects, &mut self.shared.gathers, body, value);
    }

    /// See [`Shared::refuse_overload`].
    pub(crate) fn refuse_overload(&self, wanted_bytes: u64) -> Option<ResponseBody> {
        self.shared.refuse_overload(self.config, wanted_bytes)
    }

    /// Answers a read from the store.
    pub(crate) fn answer_from_store(&mut self, asker: Asker, key: &Key) {
        self.answer_if(asker, key, |_| true);
    }

    /// Answers a read from the store if what stands there is `wanted`; false, and nothing answered, if it is not.
    pub(crate) fn answer_if(&mut self, asker: Asker, key: &Key, wanted: impl FnOnce(&Entry<'_>) -> bool) -> bool {
        let entry = self.store.get(key);
        if !wanted(&entry) {
            return false;
        }
        match entry.object {
            Some(object) => {
                let body = ResponseBody::Value { version: object.version, encoding: object.encoding };
                asker.answer(self.effects, &mut self.shared.gathers, &body, object.value);
            }
            None => asker.answer(self.effects, &mut self.shared.gathers, &ResponseBody::NotFound, &[]),
        }
        true
    }
}
