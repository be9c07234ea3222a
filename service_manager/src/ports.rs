//! Who listens on a port.

use std::{
    fmt, fs,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener},
};

use crate::process::program_of;

/// The process that has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    pub(crate) program: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.program)
    }
}

/// Whether a process could listen there now.
pub(crate) fn is_free(addr: SocketAddr) -> io::Result<bool> {
    match TcpListener::bind(addr) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an address belongs to this machine, so that its server is to be started here.
pub(crate) fn is_local(addr: SocketAddr) -> bool {
    TcpListener::bind((addr.ip(), 0)).is_ok()
}

/// The process that listens on a port, as far as this user may know it.
pub(crate) fn holder(port: u16) -> Option<Holder> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_sockets(&table, port))
        .collect();
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.into_iter()
        .find(|pid| has_open(*pid, &sockets))
        .map(|pid| Holder { pid, program: program_of(pid).unwrap_or_else(|| "?".to_owned()) })
}

fn has_open(pid: u32, sockets: &[String]) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| target.to_str().is_some_and(|target| sockets.iter().any(|socket| socket == target)))
}

/// The sockets of `/proc/net/tcp` that listen on a port, by the names that open files have: `socket:[inode]`.
fn listening_sockets(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let listens = |line: &&str| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1).and_then(|addr| addr.rsplit_once(':'));
        let is_port = local.is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port));
        is_port && fields.nth(1) == Some(LISTEN)
    };
    let inode = |line: &str| line.split_ascii_whitespace().nth(9).map(|inode| format!("socket:[{inode}]"));
    table.lines().filter(listens).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_this_process_behind_its_own_port() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        assert!(!is_free(addr).expect("an answer"));
        assert_eq!(holder(addr.port()).expect("this process").pid, std::process::id());
        drop(listener);
        // Another test's process may have been begun just now: it has all open files of this one until its program runs.
        let is_given_back = || is_free(addr).expect("an answer") && holder(addr.port()).is_none();
        let is_given_back = (0..10_000).any(|_| {
            std::thread::yield_now();
            is_given_back()
        });
        assert!(is_given_back);
    }

    #[test]
    fn addresses_of_this_machine() {
        assert!(is_local(([127, 0, 0, 1], 7000).into()));
        assert!(is_local(([0, 0, 0, 0], 7000).into()));
        // Set aside for documentation: nobody's.
        assert!(!is_local(([192, 0, 2, 1], 7000).into()));
    }

    #[test]
    fn reads_the_kernel_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1B58 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 111 1 0 100\n\
            1: 0100007F:1B58 0100007F:9999 01 00000000:00000000 00:00000000 00000000  0  0 222 1 0 100\n\
            2: 0100007F:1B59 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 333 1 0 100\n";
        assert_eq!(listening_sockets(table, 7000), ["socket:[111]"]);
        assert!(listening_sockets(table, 1).is_empty());
    }
}
