//! What is measured: the loads of the comparison, one a row.

/// One load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// What it is, for people.
    pub(super) name: &'static str,
    pub(super) clients: usize,
    pub(super) pipeline: usize,
    pub(super) read_share: f64,
    pub(super) keys: u64,
    pub(super) value_bytes: usize,
    /// Reads go to the mapped store; for systems that have one.
    pub(super) mapped: bool,
    /// Writes go to whoever leads their key, as those of Star's client do while few are under way.
    pub(super) to_leader: bool,
}

const SET: Row = Row {
    name: "SET, 1 client",
    clients: 1,
    pipeline: 1,
    read_share: 0.0,
    keys: 10_000,
    value_bytes: 100,
    mapped: false,
    to_leader: false,
};
const GET: Row = Row { name: "GET, 1 client", read_share: 1.0, ..SET };

/// The loads, in the order of the table.
pub(super) const ROWS: [Row; 13] = [
    Row { to_leader: true, ..SET },
    Row { name: "SET, 16 clients", clients: 16, ..SET },
    Row { name: "SET, 64 clients", clients: 64, ..SET },
    Row { name: "SET, 256 under way on 4 connections", clients: 4, pipeline: 64, ..SET },
    Row { name: "SET of 64 KiB, 16 clients", clients: 16, keys: 200, value_bytes: 64 << 10, ..SET },
    GET,
    Row { name: "GET, 64 clients", clients: 64, ..GET },
    Row { name: "GET, 256 under way on 16 connections", clients: 16, pipeline: 16, ..GET },
    Row { name: "GET of 64 KiB, 16 clients", clients: 16, keys: 200, value_bytes: 64 << 10, ..GET },
    Row { name: "GET from the mapped store", keys: 100_000, mapped: true, ..GET },
    Row { name: "95 % GET, 64 clients", clients: 64, read_share: 0.95, ..SET },
    Row { name: "50 % GET, 64 clients", clients: 64, read_share: 0.5, ..SET },
    Row { name: "50 % GET, 64 clients, one key", clients: 64, read_share: 0.5, keys: 1, ..SET },
];
