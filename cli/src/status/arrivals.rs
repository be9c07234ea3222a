//! How far servers are that copy stars, in numbers of objects.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{ServerLine, StarLine};
use crate::output;

/// A server on its way into stars: it copies their objects from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Arrival {
    /// The server.
    pub(crate) server: String,
    /// The stars that it does not serve yet.
    pub(crate) stars: Vec<u16>,
    /// How many objects it has of these and of those that it serves.
    pub(crate) objects: u64,
    /// How many it will have, as far as others know: exact where one of them serves the same stars, else reckoned from what
    /// they have on average.
    pub(crate) of: Option<u64>,
}

/// Who is on the way into which stars.
pub(super) fn arriving(lines: &[ServerLine], stars: &[StarLine]) -> Vec<Arrival> {
    lines.iter().filter_map(|line| arrival(line, lines, stars)).collect()
}

fn arrival(line: &ServerLine, lines: &[ServerLine], stars: &[StarLine]) -> Option<Arrival> {
    let own = line.own.as_ref()?;
    let (serves, enters) = parts(stars, &line.name);
    if enters.is_empty() {
        return None;
    }
    let of = wanted(&serves.union(&enters).copied().collect(), lines, stars);
    let (stored, copied) = (own.store.objects, own.counters.objects_taken + own.counters.objects_kept);
    // A store of an earlier life counts as far as it was compared with what others have.
    let objects = match own.counters.objects_kept {
        _ if serves.is_empty() => copied,
        0 => stored,
        _ => stored.min(copied),
    };
    // What was changed meanwhile is copied again.
    let objects = of.map_or(objects, |of| objects.min(of));
    Some(Arrival { server: line.name.clone(), stars: enters.into_iter().collect(), objects, of })
}

/// The stars that a server serves, and those that it is on the way into.
fn parts(stars: &[StarLine], name: &str) -> (BTreeSet<u16>, BTreeSet<u16>) {
    let has = |names: &[String]| names.iter().any(|one| one == name);
    let enters = |star: &&StarLine| has(&star.joining) || has(&star.learners);
    let serves = |star: &&StarLine| has(&star.members) && !enters(star);
    let ids = |stars: Vec<&StarLine>| stars.into_iter().map(|star| star.id).collect();
    (ids(stars.iter().filter(serves).collect()), ids(stars.iter().filter(enters).collect()))
}

/// How many objects there are in these stars, as far as servers know that are on the way into none.
fn wanted(these: &BTreeSet<u16>, lines: &[ServerLine], stars: &[StarLine]) -> Option<u64> {
    let mut known = Vec::new();
    for line in lines {
        let (serves, enters) = parts(stars, &line.name);
        if let Some(own) = line.own.as_ref().filter(|_| enters.is_empty() && !serves.is_empty()) {
            known.push((serves, own.store.objects));
        }
    }
    if let Some((_, objects)) = known.iter().find(|(serves, _)| serves == these) {
        return Some(*objects);
    }
    let (objects, places) =
        known.iter().fold((0, 0), |(objects, places), (serves, has)| (objects + has, places + serves.len() as u64));
    (objects * these.len() as u64).checked_div(places)
}

impl std::fmt::Display for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stars: Vec<String> = self.stars.iter().map(u16::to_string).collect();
        write!(f, "{} is on the way into stars {}: ", self.server, stars.join(" "))?;
        match self.of {
            Some(of) => write!(f, "has {} of {} objects", output::count(self.objects), output::count(of)),
            None => write!(f, "has {} objects", output::count(self.objects)),
        }
    }
}

#[cfg(test)]
mod tests {
    use star_core::{ServerId, store::Usage};

    use super::*;
    use crate::status::{Counters, ServerStatus, UP};

    /// A server with so many objects in its store; and so many that it found in it, and took from others, in this life.
    fn server(name: &str, objects: u64, [objects_kept, objects_taken]: [u64; 2]) -> ServerLine {
        let own = ServerStatus {
            name: name.to_owned(),
            id: ServerId::default(),
            lease_ms: 500,
            store: Usage { objects, ..Usage::default() },
            counters: Counters { objects_kept, objects_taken, ..Counters::default() },
            stars: Vec::new(),
            slow_links_from: Vec::new(),
            plane: None,
            cluster: None,
        };
        let (name, addr) = (name.to_owned(), String::new());
        ServerLine { name, addr, pid: None, state: UP, note: None, own: Some(own) }
    }

    fn star(id: u16, members: &str, joining: &str, learners: &str) -> StarLine {
        let names = |names: &str| names.chars().map(String::from).collect();
        let (members, joining, learners) = (names(members), names(joining), names(learners));
        StarLine { id, epoch: 1, leader: None, members, joining, leaving: Vec::new(), learners }
    }

    fn said(lines: &[ServerLine], stars: &[StarLine]) -> Vec<String> {
        arriving(lines, stars).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_new_server_is_compared_with_one_that_serves_the_same() {
        let lines = [server("a", 40_000, [0, 0]), server("b", 40_000, [0, 0]), server("f", 12_000, [0, 12_000])];
        let stars = [star(0, "ab", "", "f"), star(1, "abf", "f", ""), star(2, "ab", "", "f")];
        assert_eq!(said(&lines, &stars), ["f is on the way into stars 0 1 2: has 12,000 of 40,000 objects"]);
        let here = [star(0, "abf", "", ""), star(1, "abf", "", ""), star(2, "ab", "", "f")];
        assert_eq!(said(&lines, &here), ["f is on the way into stars 2: has 12,000 of 40,000 objects"]);
        assert_eq!(said(&lines, &[star(0, "abf", "", "")]), Vec::<String>::new());
        assert_eq!(said(&lines[2..], &stars), ["f is on the way into stars 0 1 2: has 12,000 objects"], "nobody knows");
    }

    #[test]
    fn what_a_store_holds_of_an_earlier_life_counts_when_it_was_compared() {
        let stars = [star(0, "a", "", "f"), star(1, "a", "", "f")];
        let has = |objects, counts, stars: &[StarLine]| {
            arriving(&[server("a", 1000, [0, 0]), server("f", objects, counts)], stars)[0].objects
        };
        assert_eq!(has(900, [0, 0], &stars), 0, "nothing was compared yet");
        assert_eq!(has(900, [300, 50], &stars), 350);
        assert_eq!(has(1000, [900, 150], &stars), 1000, "what was changed meanwhile is copied again");
        let half = [star(0, "af", "", ""), star(1, "a", "", "f")];
        assert_eq!(has(900, [500, 50], &half), 550);
        assert_eq!(has(600, [0, 80], &half), 600, "it was there when the cluster began, and is to have one star more");
    }

    #[test]
    fn where_nobody_serves_the_same_stars_the_number_is_reckoned() {
        let lines = [server("a", 300, [0, 0]), server("b", 200, [0, 0]), server("f", 70, [0, 70])];
        let stars = [star(0, "a", "", "f"), star(1, "ab", "", ""), star(2, "ab", "", "f"), star(3, "b", "", "")];
        assert_eq!(arriving(&lines, &stars)[0].of, Some(166), "500 objects in six places, and two for f");
    }
}
