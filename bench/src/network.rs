//! How much the machine sends: what systems that share nothing else can all be counted by.

use std::fs;

/// Where the system counts what it sends, for all programs in the same network namespace: a line of names, a line of numbers.
const COUNTS: &str = "/proc/net/netstat";

/// What was sent so far, by everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Segments of TCP with data in them, each counted once however often it went: what was written together, up to 64 KiB
    /// on the loopback device, is one.
    pub(crate) messages: u64,
    /// Bytes, with the heads of IP and TCP, and with acknowledgements.
    pub(crate) bytes: u64,
}

impl Sent {
    /// None where the system does not count.
    pub(crate) fn now() -> Option<Self> {
        Self::read(&fs::read_to_string(COUNTS).ok()?)
    }

    fn read(text: &str) -> Option<Self> {
        Some(Self {
            messages: number(text, "TcpExt:", "TCPOrigDataSent")?,
            bytes: number(text, "IpExt:", "OutOctets")?,
        })
    }

    /// What was sent since then.
    pub(crate) fn since(self, before: Self) -> Self {
        // The counts of a machine begin anew after 64 bits.
        Self { messages: self.messages.wrapping_sub(before.messages), bytes: self.bytes.wrapping_sub(before.bytes) }
    }
}

fn number(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let place = names.split_whitespace().position(|candidate| candidate == name)?;
    numbers.split_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn numbers_stand_below_their_names() {
        let text = "TcpExt: A TCPOrigDataSent B\nTcpExt: 1 22 3\nIpExt: InOctets OutOctets\nIpExt: 4 55\n";
        assert_eq!(Sent::read(text), Some(Sent { messages: 22, bytes: 55 }));
        assert_eq!(Sent::read(&text.replace("TCPOrig", "Other")), None);
    }

    #[test]
    fn what_is_sent_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut near = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        near.set_nodelay(true).expect("an option");
        let (mut far, _) = listener.accept().expect("a connection");
        let before = Sent::now().expect("counts");
        for _ in 0..100 {
            near.write_all(&[7; 1000]).expect("sent");
            far.read_exact(&mut [0; 1000]).expect("received");
        }
        let sent = Sent::now().expect("counts").since(before);
        assert!(sent.messages >= 100 && sent.bytes >= 100_000, "{sent:?}");
    }
}
