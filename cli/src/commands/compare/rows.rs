//! What is measured: the loads of the comparison, one a row.

use star_bench::Distribution;

/// One load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    /// What it is, for people.
    pub(super) name: &'static str,
    pub(super) clients: usize,
    pub(super) pipeline: usize,
    pub(super) read_share: f64,
    pub(super) keys: u64,
    pub(super) distribution: Distribution,
    pub(super) value_bytes: usize,
    /// Reads go to the mapped store; for systems that have one.
    pub(super) mapped: bool,
    /// Writes go to whoever leads their key, as those of Star's client do while few are under way.
    pub(super) to_leader: bool,
    /// Operations per second that are asked for, however fast they are answered; `None` for as many as are answered.
    pub(super) rate: Option<f64>,
}

const MIB: usize = 1 << 20;

const SET: Row = Row {
    name: "SET, 1 client",
    clients: 1,
    pipeline: 1,
    read_share: 0.0,
    keys: 10_000,
    distribution: Distribution::Uniform,
    value_bytes: 100,
    mapped: false,
    to_leader: false,
    rate: None,
};
const GET: Row = Row { name: "GET, 1 client", read_share: 1.0, ..SET };
const SET_64: Row = Row { name: "SET, 64 clients", clients: 64, ..SET };
const GET_64: Row = Row { name: "GET, 64 clients", clients: 64, ..GET };

/// The loads, in the order of the table.
pub(super) const ROWS: [Row; 18] = [
    Row { to_leader: true, ..SET },
    Row { name: "SET, 16 clients", clients: 16, to_leader: true, ..SET },
    SET_64,
    Row { name: "SET, 256 under way on 4 connections", clients: 4, pipeline: 64, ..SET },
    Row { name: "SET of 64 KiB, 16 clients", clients: 16, keys: 200, value_bytes: 64 << 10, ..SET },
    Row { name: "SET of 1 MiB, 4 clients", clients: 4, keys: 16, value_bytes: MIB, ..SET },
    GET,
    GET_64,
    Row { name: "GET, 256 under way on 16 connections", clients: 16, pipeline: 16, ..GET },
    Row { name: "GET of 64 KiB, 16 clients", clients: 16, keys: 200, value_bytes: 64 << 10, ..GET },
    Row { name: "GET of 1 MiB, 4 clients", clients: 4, keys: 16, value_bytes: MIB, ..GET },
    Row { name: "GET from the mapped store", keys: 100_000, mapped: true, ..GET },
    Row { name: "95 % GET, 64 clients", read_share: 0.95, ..SET_64 },
    Row { name: "50 % GET, 64 clients", read_share: 0.5, ..SET_64 },
    Row { name: "50 % GET, 64 clients, Zipf", read_share: 0.5, distribution: Distribution::Zipf, ..SET_64 },
    Row { name: "50 % GET, 64 clients, one key", read_share: 0.5, keys: 1, ..SET_64 },
    Row { name: "SET, 2,000 a second", rate: Some(2_000.0), ..SET_64 },
    Row { name: "95 % GET, 20,000 a second", read_share: 0.95, rate: Some(20_000.0), ..SET_64 },
];

impl Row {
    /// Whether all its keys have values of its length already, since they were written for that row; each load leaves them so.
    pub(super) fn is_filled(&self, with: Option<Self>) -> bool {
        with.is_some_and(|with| with.keys >= self.keys && with.value_bytes == self.value_bytes)
    }

    /// Whether it differs from others of its kind by nothing but how many of its operations are writes.
    pub(super) fn is_of_write_shares(&self) -> bool {
        let like = |other: Row| Row { name: self.name, read_share: self.read_share, ..other };
        *self == like(SET_64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_anew_for_values_of_another_length_or_for_more_keys() {
        let large = Row { value_bytes: MIB, keys: 16, ..SET };
        let many = Row { keys: SET.keys + 1, ..SET };
        assert!(!SET.is_filled(None) && !SET.is_filled(Some(large)) && !large.is_filled(Some(SET)));
        assert!(GET_64.is_filled(Some(SET)) && SET.is_filled(Some(many)) && !many.is_filled(Some(SET)));
    }
}
