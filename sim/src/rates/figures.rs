//! The figures: Star beside CRAQ and plain chain replication, by servers, by write load, by value and by link.

use std::fmt;

use craq::protocol::Reads;
use star::protocol::{Route, StarNode};
use star_core::{ids::ServerId, store::MemoryStore};

use super::{Load, Net, Outcome, run};
use crate::{
    craq::{Craq, CraqSettings},
    star::StarSettings,
};

/// How long a server is busy with each input where that is what limits, in nanoseconds.
const COST: u64 = 10_000;

/// After this time a slow link is known as one, and what waited for it is done, in nanoseconds.
const FOUND_AFTER: u64 = 1_500_000_000;

/// A table, as it is printed.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What it shows.
    pub title: String,
    /// The names of the columns; the first is that of what varies.
    pub columns: Vec<String>,
    /// The rows: what varies, and a number for each other column.
    pub rows: Vec<(String, Vec<f64>)>,
}

impl Figure {
    fn new(title: &str, columns: &[&str]) -> Self {
        Self { title: title.into(), columns: columns.iter().map(|one| (*one).into()).collect(), rows: Vec::new() }
    }

    /// The number of a column in a row; the row is named by what varies.
    pub fn get(&self, row: &str, column: &str) -> Option<f64> {
        let at = self.columns.iter().position(|one| one == column)?.checked_sub(1)?;
        self.rows.iter().find(|(name, _)| name == row).map(|(_, numbers)| numbers[at])
    }
}

impl fmt::Display for Figure {
    /// As a table in Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.title)?;
        writeln!(f, "| {} |", self.columns.join(" | "))?;
        writeln!(f, "|{}", " ---: |".repeat(self.columns.len()))?;
        for (name, numbers) in &self.rows {
            let numbers: Vec<String> = numbers.iter().map(|number| grouped(*number)).collect();
            writeln!(f, "| {name} | {} |", numbers.join(" | "))?;
        }
        Ok(())
    }
}

/// A number for people: with commas, and with a digit after the point where it is small.
fn grouped(number: f64) -> String {
    if number < 100.0 {
        return format!("{number:.2}");
    }
    let digits = format!("{number:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits")).collect();
    groups.join(",")
}

fn star(route: Route, net: Net, load: Load, seconds: f64) -> Outcome {
    let settings = StarSettings { route, ..StarSettings::served() };
    all_done(run::<StarNode<MemoryStore>>(&settings, net, load, seconds))
}

fn craq(reads: Reads, net: Net, load: Load, seconds: f64) -> Outcome {
    all_done(run::<Craq>(&CraqSettings { reads, ..CraqSettings::served() }, net, load, seconds))
}

/// A load of which more than a hundredth is refused, for lack of room or of patience, measures something else.
fn all_done(outcome: Outcome) -> Outcome {
    assert!(outcome.refused as f64 * 100.0 <= (outcome.writes + outcome.reads), "{outcome:?}");
    outcome
}

/// All figures, each as soon as it is there.
pub fn all(mut show: impl FnMut(&Figure)) {
    show(&writes_by_servers(None));
    show(&writes_by_servers(Some((ServerId(0), ServerId(1)))));
    show(&reads_by_servers());
    show(&reads_by_writes());
    show(&latency_by_servers());
    show(&work_by_servers());
}

/// Writes a second where links limit. A write crosses N - 1 links whatever the protocol; fanned out, any of N(N - 1).
fn writes_by_servers(slow: Option<(ServerId, ServerId)>) -> Figure {
    let load = Load { clients: 64, writers: None, write_share: 100, value_bytes: 16 << 10, keys: 1_000 };
    let title = match slow {
        None => "Writes a second of 16 KiB, links of 1 Gbit/s each",
        Some(_) => "The same, one link with a tenth of that",
    };
    let columns = ["servers", "Star, fanout", "Star, chain", "Star, auto", "CRAQ, 8 chains", "CRAQ, 1 chain"];
    let mut figure = Figure::new(title, &columns);
    for servers in [3, 5, 7] {
        let net = Net { servers, slow, ..Net::default() };
        let one = Net { stars: 1, ..net };
        let found = Net { warm_up: slow.map_or(0, |_| FOUND_AFTER), ..net };
        let outcomes = [
            star(Route::Fanout, net, load, 0.5),
            star(Route::Chain, net, load, 0.5),
            star(Route::Auto, found, load, 0.5),
            craq(Reads::Apportioned, net, load, 0.5),
            craq(Reads::Apportioned, one, load, 0.5),
        ];
        figure.rows.push((servers.to_string(), outcomes.map(|one| one.writes).to_vec()));
    }
    figure
}

/// Reads a second where the servers' processors limit (the paper's figure of read throughput by chain length).
fn reads_by_servers() -> Figure {
    let load = Load { clients: 32, writers: None, write_share: 0, value_bytes: 100, keys: 1_000 };
    let columns = ["servers", "Star", "CRAQ", "chain replication"];
    let mut figure = Figure::new("Reads a second, a server busy with each input for 10 us", &columns);
    for servers in [3, 5, 7] {
        let net = Net { servers, stars: 1, cost: COST, ..Net::default() };
        let outcomes = [
            star(Route::Fanout, net, load, 0.2),
            craq(Reads::Apportioned, net, load, 0.2),
            craq(Reads::Tail, net, load, 0.2),
        ];
        figure.rows.push((servers.to_string(), outcomes.map(|one| one.reads).to_vec()));
    }
    figure
}

/// Reads a second beside writers of the same key (the paper's figure of reads against write load): all reads may be dirty.
fn reads_by_writes() -> Figure {
    let columns = ["writers", "Star", "CRAQ", "chain replication", "Star, writes", "CRAQ, writes"];
    let title = "Reads a second of one key by 96 clients, beside writers of it; three servers, 10 us for each input";
    let mut figure = Figure::new(title, &columns);
    for writers in [0, 1, 4, 16] {
        let net = Net { stars: 1, cost: COST, ..Net::default() };
        let load =
            Load { clients: 32 + writers / 3, writers: Some(writers), write_share: 0, value_bytes: 500, keys: 1 };
        let (star, craq, chain) = (
            star(Route::Fanout, net, load, 0.2),
            craq(Reads::Apportioned, net, load, 0.2),
            craq(Reads::Tail, net, load, 0.2),
        );
        let numbers = vec![star.reads, craq.reads, chain.reads, star.writes, craq.writes];
        figure.rows.push((writers.to_string(), numbers));
    }
    figure
}

/// How long a write takes alone, in message delays: clients' own two are in it.
fn latency_by_servers() -> Figure {
    let load = Load { clients: 1, writers: Some(1), write_share: 100, value_bytes: 100, keys: 1_000 };
    let mut figure = Figure::new("A write of one client alone, in message delays", &["servers", "Star", "CRAQ"]);
    for servers in [3, 5, 7] {
        let net = Net { servers, bytes_per_second: u64::MAX / 1_000_000_000, latency: 1_000_000, ..Net::default() };
        let delays = |outcome: Outcome| outcome.write_time as f64 / net.latency as f64;
        let numbers =
            vec![delays(star(Route::Fanout, net, load, 1.0)), delays(craq(Reads::Apportioned, net, load, 1.0))];
        figure.rows.push((servers.to_string(), numbers));
    }
    figure
}

/// What a write costs between servers, one at a time at each: with more under way stamps and acks share messages.
fn work_by_servers() -> Figure {
    let load = Load { clients: 1, writers: None, write_share: 100, value_bytes: 100, keys: 1_000 };
    let columns = ["servers", "Star, messages", "Star, bytes", "CRAQ, messages", "CRAQ, bytes"];
    let mut figure = Figure::new("Between servers for a write of 100 B, one under way at each server", &columns);
    for servers in [3, 5, 7] {
        let net = Net { servers, ..Net::default() };
        let (star, craq) = (star(Route::Fanout, net, load, 0.5), craq(Reads::Apportioned, net, load, 0.5));
        figure.rows.push((servers.to_string(), vec![star.messages, star.bytes, craq.messages, craq.bytes]));
    }
    figure
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Star's writes grow with the links, by both routes; CRAQ's do not.
    #[test]
    fn writes_grow_with_the_links() {
        let figure = writes_by_servers(None);
        let get = |servers: &str, column| figure.get(servers, column).expect("a number");
        assert!(get("5", "Star, fanout") > 3.0 * get("5", "CRAQ, 8 chains"), "{figure}");
        assert!(get("7", "Star, fanout") > 2.0 * get("3", "Star, fanout"), "{figure}");
        // Each write's chain goes along a ring of its own, and so over all links too.
        assert!(get("5", "Star, chain") > 2.0 * get("5", "CRAQ, 8 chains"), "{figure}");
        assert!(get("7", "Star, chain") > 1.5 * get("3", "Star, chain"), "{figure}");
        // Looking for slow links costs nothing that shows.
        assert!(get("5", "Star, auto") > 0.99 * get("5", "Star, fanout"), "{figure}");
        assert!(get("7", "CRAQ, 8 chains") < 1.5 * get("3", "CRAQ, 8 chains"), "{figure}");
    }

    /// Values go around a slow link once it is known. By the other routes, which do not, every write waits for it.
    #[test]
    fn the_route_auto_goes_around_a_slow_link() {
        let figure = writes_by_servers(Some((ServerId(0), ServerId(1))));
        let get = |servers: &str, column| figure.get(servers, column).expect("a number");
        for (servers, times) in [("3", 3.0), ("5", 4.0), ("7", 4.0)] {
            assert!(get(servers, "Star, auto") > times * get(servers, "Star, fanout"), "{figure}");
            assert!(get(servers, "Star, auto") > times * get(servers, "Star, chain"), "{figure}");
        }
    }

    /// Three hops whatever the number of servers, where a chain takes two for each.
    #[test]
    fn a_write_takes_three_hops() {
        let figure = latency_by_servers();
        for servers in ["3", "5", "7"] {
            assert!(figure.get(servers, "Star").is_some_and(|delays| delays <= 5.01), "{figure}");
        }
        assert!(figure.get("7", "CRAQ").is_some_and(|delays| delays > 10.0), "{figure}");
    }

    #[test]
    fn reads_grow_with_the_servers_and_do_not_stop_at_dirty_keys() {
        let figure = reads_by_servers();
        let get = |servers: &str, column| figure.get(servers, column).expect("a number");
        assert!(get("7", "Star") > 2.2 * get("3", "Star"), "{figure}");
        assert!(get("7", "chain replication") < 1.1 * get("3", "chain replication"), "{figure}");
        let figure = reads_by_writes();
        let get = |writers: &str, column| figure.get(writers, column).expect("a number");
        assert!(get("4", "Star") > 1.5 * get("4", "CRAQ"), "{figure}");
    }
}
