//! Faults on demand: what a test asks of a server to see how the cluster takes it.

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{Local, Request, Wire, from_postcard, to_postcard};

/// A fault to have, or to mend. Servers refuse them unless their configuration allows faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// Send nothing to this server, and take nothing from it, until [`Fault::FixLink`].
    FailLink {
        /// The other server's name.
        server: CompactString,
    },
    /// Use the link to this server again.
    FixLink {
        /// The other server's name.
        server: CompactString,
    },
    /// End the server's process at once, as a crash would; there is no answer.
    FailProcess,
}

/// What a message of a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Work for the protocol.
    Request(Request),
    /// A fault, for the server around it.
    Fault(Fault),
    /// Something about the server's own store.
    Local(Local),
}

impl Wire for Fault {
    fn encode_header(&self, out: &mut Vec<u8>) {
        to_postcard(self, out);
    }

    fn tail(&self) -> &Bytes {
        static NONE: Bytes = Bytes::new();
        &NONE
    }

    fn decode(header: &[u8], _: Bytes) -> Result<Self, String> {
        from_postcard(header)
    }
}
