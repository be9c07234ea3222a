//! Faults on demand: what a client may break, for tests, around the protocol and without its knowledge.

use std::collections::BTreeMap;

use rustix::process::{Signal, getpid, kill_process};
use serde_json::json;
use tracing::warn;

use super::{Io, Peer};
use crate::{
    error::ErrorCode,
    ids::ServerId,
    message::{Fault, ResponseBody},
};

/// Whether faults may be asked for, and by which names servers go.
#[derive(Debug)]
pub(super) struct Faults {
    is_allowed: bool,
    servers: BTreeMap<String, ServerId>,
}

impl Faults {
    pub(super) fn new(is_allowed: bool) -> Self {
        Self { is_allowed, servers: BTreeMap::new() }
    }

    /// Learns which servers there are, this one left out.
    pub(super) fn learn<'a>(&mut self, others: impl Iterator<Item = &'a Peer>) {
        self.servers = others.map(|peer| (peer.name.clone(), peer.id)).collect();
    }

    /// Has a fault, or mends it. The answer names the links that are cut from then on.
    pub(super) fn have(&self, fault: &Fault, io: &mut Io) -> ResponseBody {
        if !self.is_allowed {
            let text = "faults are switched off here; [faults] allow = true in the configuration switches them on";
            return ResponseBody::error(ErrorCode::Disabled, text);
        }
        let (name, is_failed) = match fault {
            Fault::FailLink { server } => (server, true),
            Fault::FixLink { server } => (server, false),
            Fault::FailProcess => end_process(),
        };
        let Some(server) = self.servers.get(name.as_str()) else {
            let known: Vec<&str> = self.servers.keys().map(String::as_str).collect();
            let text = format!("there is no other server {name:?}; there are {}", known.join(", "));
            return ResponseBody::error(ErrorCode::BadRequest, text);
        };
        warn!(server = %name, is_failed, "a fault was asked for: a link");
        io.fail_link(*server, is_failed);
        let failed = self.servers.iter().filter(|(_, id)| io.is_failed(**id)).map(|(name, _)| name);
        ResponseBody::Status(json!({ "failed_links": failed.collect::<Vec<_>>() }).to_string())
    }
}

/// Ends this process as a crash would: nothing is written, given back or removed.
fn end_process() -> ! {
    warn!("a fault was asked for: the end of this process");
    // It cannot fail for a process's own number; and if it did, the next line ends the process too.
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}
