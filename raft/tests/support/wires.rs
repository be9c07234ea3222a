//! Calls between members of one process, without a network, over wires that can be cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use star_control::embedded::{Carried, Carrier, CarryError};
use star_raft::RaftHost;

/// Who is there, and who cannot hear whom.
#[derive(Default)]
pub(crate) struct Wires(Mutex<State>);

#[derive(Default)]
struct State {
    hosts: BTreeMap<String, RaftHost>,
    /// Nothing gets in or out of these addresses.
    cut: BTreeSet<String>,
}

impl fmt::Debug for Wires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wires").finish_non_exhaustive()
    }
}

/// The wires of one member or client.
#[derive(Debug)]
pub(crate) struct Wire {
    wires: Arc<Wires>,
    from: String,
}

impl Wires {
    pub(crate) fn wire(self: &Arc<Self>, from: &str) -> Wire {
        Wire { wires: Arc::clone(self), from: from.to_owned() }
    }

    pub(crate) fn plug(&self, addr: &str, host: RaftHost) {
        self.0.lock().expect("a lock").hosts.insert(addr.to_owned(), host);
    }

    pub(crate) fn unplug(&self, addr: &str) {
        let host = self.0.lock().expect("a lock").hosts.remove(addr);
        drop(host);
    }

    pub(crate) fn cut(&self, addr: &str) {
        self.0.lock().expect("a lock").cut.insert(addr.to_owned());
    }

    pub(crate) fn mend(&self) {
        self.0.lock().expect("a lock").cut.clear();
    }

    fn hears(&self, from: &str, to: &str) -> bool {
        let state = self.0.lock().expect("a lock");
        from == to || !(state.cut.contains(from) || state.cut.contains(to))
    }
}

impl Carrier for Wire {
    fn exchange<'a>(&'a self, addr: &'a str, call: Bytes, limit: Duration) -> Carried<'a> {
        Box::pin(async move {
            let host = self.wires.0.lock().expect("a lock").hosts.get(addr).cloned();
            let Some(host) = host else {
                return Err(CarryError::NotSent(format!("nobody at {addr}")));
            };
            let lost = || CarryError::NoAnswer(format!("{addr} does not answer"));
            if !self.wires.hears(&self.from, addr) {
                tokio::time::sleep(limit).await;
                return Err(lost());
            }
            let answer = host.handle(call);
            drop(host);
            let answer = tokio::time::timeout(limit, answer).await.map_err(|_| lost())?;
            // The way back may have been cut meanwhile.
            if self.wires.hears(addr, &self.from) { Ok(answer.into()) } else { Err(lost()) }
        })
    }
}
