//! Which requests were done, and what came of them, so that one that comes again is answered and not done. Pure, bounded.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use star_core::{ClientId, RequestId};

use super::machine::Outcome;

/// The most clients that are remembered; the one that wrote least lately makes room for another.
const CLIENTS_MAX: usize = 4096;
/// The most requests with a text for a name that are remembered.
const TEXTS_MAX: usize = 65_536;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sessions {
    clients: BTreeMap<ClientId, Window>,
    /// The birth of the youngest client that was forgotten: none that is as old and unknown can be told from it.
    forgotten: u64,
    texts: BTreeMap<String, Outcome>,
    /// The names in `texts`, oldest first.
    order: VecDeque<String>,
}

/// The requests of one client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Window {
    /// The lowest number that it may send again.
    floor: u64,
    outcomes: BTreeMap<u64, Outcome>,
    /// Its last write, counted over all clients.
    last: u64,
}

impl Sessions {
    /// What came of this request, if it must not be done (again).
    pub(crate) fn outcome(&self, request_id: &RequestId) -> Option<Outcome> {
        match request_id {
            RequestId::Counted { client, number, .. } => match self.clients.get(client) {
                Some(window) if *number < window.floor => Some(Outcome::Forgotten),
                Some(window) => window.outcomes.get(number).copied(),
                None => (client.born <= self.forgotten).then_some(Outcome::Forgotten),
            },
            RequestId::Text(text) => self.texts.get(text.as_str()).copied(),
            RequestId::Unnamed => None,
        }
    }

    /// Remembers what came of a request; `now` counts the writes of all clients.
    pub(crate) fn remember(&mut self, request_id: &RequestId, outcome: Outcome, now: u64) {
        match request_id {
            RequestId::Counted { client, number, behind } => {
                let window = self.clients.entry(*client).or_default();
                window.last = now;
                window.floor = window.floor.max(number.saturating_sub(*behind));
                window.outcomes.insert(*number, outcome);
                window.outcomes = window.outcomes.split_off(&window.floor);
                if self.clients.len() > CLIENTS_MAX {
                    self.forget_one();
                }
            }
            RequestId::Text(text) => {
                self.texts.insert(text.to_string(), outcome);
                self.order.push_back(text.to_string());
                if self.order.len() > TEXTS_MAX
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.texts.remove(&oldest);
                }
            }
            RequestId::Unnamed => {}
        }
    }

    fn forget_one(&mut self) {
        if let Some(client) = self.clients.iter().min_by_key(|(_, window)| window.last).map(|(client, _)| *client) {
            self.clients.remove(&client);
            self.forgotten = self.forgotten.max(client.born);
        }
    }
}

#[cfg(test)]
mod tests {
    use star_core::Version;

    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_forgotten_is_never_done_again() {
        let mut sessions = Sessions::default();
        let of = |born: u64| RequestId::Counted { client: ClientId { born, draw: 0 }, number: 0, behind: 0 };
        let written = |version: u64| Outcome::Written(Version(version));
        for born in 1..=CLIENTS_MAX as u64 + 1 {
            sessions.remember(&of(born), written(born), born);
        }
        assert_eq!(sessions.clients.len(), CLIENTS_MAX);
        assert_eq!([1, 2].map(|born| sessions.outcome(&of(born))), [Some(Outcome::Forgotten), Some(written(2))]);
        for text in 0..=TEXTS_MAX {
            sessions.remember(&RequestId::Text(text.to_string().into()), written(text as u64), 0);
        }
        assert_eq!((sessions.texts.len(), sessions.order.len()), (TEXTS_MAX, TEXTS_MAX));
    }
}
