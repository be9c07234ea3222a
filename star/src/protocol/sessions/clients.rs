//! The results of clients that count their requests: for each a window of numbers, as in RIFL (Lee et al., SOSP 2015).
//!
//! A client's numbers are spread over the stars, so a window is a list with gaps. It begins at the lowest number that
//! the client may still send again, which every request names; what is below is forgotten and never done again. When
//! there are too many results, those clients go that have been silent longest, counted in seqs; from then on no client
//! that is unknown and not younger than all that have gone is taken for a new one.

use std::collections::VecDeque;

use star_core::{
    collections::Map,
    ids::{ClientId, Seq, ServerId},
};

use super::{Change, Counted, Standing};
use crate::protocol::message::{ClientWindow, DoneNumber, Evicted, Outcome, Remembered};

/// What is remembered of typed clients, and of origins as the clients of writes that nobody named.
#[derive(Debug, Default)]
pub(super) struct Clients {
    windows: Map<ClientId, Window>,
    /// Settled results of typed clients, which are bounded.
    settled: usize,
    evicted: Evicted,
    /// When the youngest typed client was born of which there ever was a result; never falls.
    youngest: u64,
}

/// What is remembered of one client.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Lower numbers are never done again.
    lowest: u64,
    /// The last of this client's writes that is settled; 0 if none is. Results up to here are settled, others not.
    last: Seq,
    /// In the order of the numbers.
    results: VecDeque<DoneNumber>,
}

/// An origin as a client: younger than all others, so never taken for one that was forgotten.
pub(super) fn origin(server: ServerId) -> ClientId {
    ClientId { born: u64::MAX, draw: server.0.into() }
}

fn is_typed(client: ClientId) -> bool {
    client.born <= ClientId::BORN_MAX
}

impl Window {
    /// Where the result for `number` is, or belongs. Most are looked for at the end.
    fn place(&self, number: u64) -> Result<usize, usize> {
        match self.results.back() {
            Some(last) if last.number >= number => self.results.binary_search_by_key(&number, |done| done.number),
            _ => Err(self.results.len()),
        }
    }

    fn count_settled(&self) -> usize {
        self.results.iter().filter(|done| done.seq <= self.last).count()
    }

    /// What is settled of it.
    pub(super) fn settled(&self, client: ClientId) -> ClientWindow {
        let results = self.results.iter().filter(|done| done.seq <= self.last).copied().collect();
        ClientWindow { client, lowest: self.lowest, last: self.last, results }
    }
}

impl Clients {
    /// Knows nobody, and takes nobody for new who was born by then.
    pub(super) fn after(evicted: Evicted) -> Self {
        Self { evicted, youngest: evicted.youngest.born, ..Self::default() }
    }

    pub(super) fn youngest(&self) -> u64 {
        self.youngest.max(self.evicted.youngest.born)
    }

    fn note_birth(&mut self, client: ClientId) {
        if is_typed(client) {
            self.youngest = self.youngest.max(client.born);
        }
    }

    pub(super) fn judge(&self, Counted { client, number, .. }: Counted) -> Standing {
        let window = self.windows.get(&client);
        if let Some(window) = window {
            if let Ok(place) = window.place(number) {
                return Standing::Done(window.results[place].outcome);
            }
            if number < window.lowest {
                return Standing::Forgotten;
            }
        }
        let is_known = window.is_some_and(|window| window.last > Seq(0));
        if is_known || client > self.evicted.youngest { Standing::New } else { Standing::Forgotten }
    }

    pub(super) fn insert(&mut self, Counted { client, number, .. }: Counted, seq: Seq, outcome: Outcome) {
        self.note_birth(client);
        let window = self.windows.entry(client).or_default();
        if let (Err(place), true) = (window.place(number), number >= window.lowest && seq > window.last) {
            window.results.insert(place, DoneNumber { number, seq, outcome });
        }
    }

    pub(super) fn take_back(&mut self, Counted { client, number, .. }: Counted, seq: Seq) {
        let Some(window) = self.windows.get_mut(&client) else { return };
        // What is settled stays: it was taken over from a member that is ahead, and its stamp comes again.
        if let Ok(place) = window.place(number)
            && window.results[place].seq == seq
            && seq > window.last
        {
            window.results.remove(place);
        }
        if window.results.is_empty() && window.last == Seq(0) {
            self.windows.remove(&client);
        }
    }

    pub(super) fn settle(&mut self, counted: Counted, seq: Seq, outcome: Outcome, max: usize) {
        let Counted { client, number, lowest } = counted;
        let window = self.windows.entry(client).or_default();
        if window.last == Seq(0) && client <= self.evicted.youngest {
            // Forgotten between its stamp and here.
            self.windows.remove(&client);
            return;
        }
        if seq <= window.last {
            return; // What this server has caught up with is later than this.
        }
        let mut settled = 0;
        if let Err(place) = window.place(number)
            && number >= window.lowest
        {
            window.results.insert(place, DoneNumber { number, seq, outcome });
        }
        let before = std::mem::replace(&mut window.last, seq);
        window.lowest = window.lowest.max(lowest);
        while let Some(first) = window.results.front().filter(|first| first.number < window.lowest) {
            settled -= isize::from(first.seq <= before);
            window.results.pop_front();
        }
        settled += isize::from(number >= window.lowest);
        if is_typed(client) {
            self.settled = self.settled.saturating_add_signed(settled);
            if self.settled > max {
                self.evict(max - max / 8);
            }
        }
    }

    /// Forgets the clients that have been silent longest until at most `keep` results are left. Many at a time, because
    /// to find them takes a look at all.
    fn evict(&mut self, keep: usize) {
        let typed = self.windows.iter().filter(|(client, window)| is_typed(**client) && window.last > Seq(0));
        let mut silent: Vec<(Seq, ClientId)> = typed.map(|(client, window)| (window.last, *client)).collect();
        silent.sort_unstable();
        silent.pop(); // The one that has just written stays.
        for (last, client) in silent {
            if self.settled <= keep {
                break;
            }
            if let Some(window) = self.windows.remove(&client) {
                self.settled = self.settled.saturating_sub(window.count_settled());
            }
            self.evicted = self.evicted.max(Evicted { youngest: client, last });
        }
    }

    pub(super) fn len(&self) -> usize {
        self.windows.values().map(|window| window.results.len()).sum()
    }

    pub(super) fn evicted(&self) -> Evicted {
        self.evicted
    }

    pub(super) fn changed_after(&self, after: Seq) -> impl Iterator<Item = (Seq, Change<'_>)> {
        let changed = self.windows.iter().filter(move |(_, window)| window.last > after);
        changed.map(|(client, window)| (window.last, Change::Client(*client, window)))
    }

    pub(super) fn take(&mut self, ClientWindow { client, lowest, last, results }: ClientWindow) {
        self.note_birth(client);
        let known = self.windows.entry(client).or_default();
        if known.last >= last {
            return;
        }
        let before = known.count_settled();
        *known = Window { lowest, last, results: results.into() };
        if is_typed(client) {
            self.settled = (self.settled + known.results.len()).saturating_sub(before);
        }
    }

    /// Those who have written last are known, so whoever has not since a client that was forgotten is forgotten, too.
    pub(super) fn take_evicted(&mut self, evicted: Evicted) {
        self.evicted = self.evicted.max(evicted);
        let last = self.evicted.last;
        let settled = &mut self.settled;
        self.windows.retain(|client, window| {
            let stays = !is_typed(*client) || window.last > last;
            *settled = settled.saturating_sub(if stays { 0 } else { window.count_settled() });
            stays
        });
    }

    pub(super) fn settled(&self) -> Vec<Remembered> {
        let known = self.windows.iter().filter(|(_, window)| window.last > Seq(0));
        let mut windows: Vec<ClientWindow> = known.map(|(client, window)| window.settled(*client)).collect();
        windows.sort_unstable_by_key(|window| window.client);
        windows.into_iter().map(Remembered::Client).collect()
    }
}

#[cfg(test)]
mod tests {
    use star_core::Version;

    use super::*;

    const MAX: usize = 8;

    fn client(born: u64) -> ClientId {
        ClientId { born, draw: 7 }
    }

    fn request(born: u64, number: u64, lowest: u64) -> Counted {
        Counted { client: client(born), number, lowest }
    }

    fn outcome(seq: u64) -> Outcome {
        Outcome::Written(Version(seq))
    }

    fn ready(clients: &mut Clients, seq: u64, request: Counted) {
        clients.insert(request, Seq(seq), outcome(seq));
    }

    fn done(clients: &mut Clients, seq: u64, request: Counted) {
        ready(clients, seq, request);
        clients.settle(request, Seq(seq), outcome(seq), MAX);
    }

    #[test]
    fn results_stay_until_their_client_says_so_however_much_others_write() {
        let mut clients = Clients::default();
        done(&mut clients, 1, request(1, 3, 3));
        done(&mut clients, 2, request(1, 9, 3));
        for seq in 3..1000 {
            done(&mut clients, seq, request(2, seq, seq));
        }
        assert_eq!(clients.judge(request(1, 3, 3)), Standing::Done(outcome(1)));
        assert_eq!(clients.judge(request(1, 5, 3)), Standing::New, "numbers have gaps");
        done(&mut clients, 1000, request(1, 7, 6));
        assert_eq!(clients.judge(request(1, 3, 3)), Standing::Forgotten);
        assert_eq!(clients.judge(request(1, 5, 3)), Standing::Forgotten, "below the floor, though it never was done");
        assert_eq!(clients.judge(request(1, 7, 6)), Standing::Done(outcome(1000)));
        assert_eq!(clients.judge(request(1, 9, 6)), Standing::Done(outcome(2)));
        assert_eq!((clients.len(), clients.settled), (3, 3));
    }

    #[test]
    fn whoever_was_silent_longest_goes_and_is_never_taken_for_new() {
        let mut clients = Clients::default();
        for seq in 1..=8 {
            done(&mut clients, seq, request(10 * seq, 1, 1));
        }
        done(&mut clients, 9, request(10, 2, 2));
        assert_eq!(clients.evicted(), Evicted::default());
        done(&mut clients, 10, request(200, 1, 1));
        let known = |clients: &Clients, born| clients.judge(request(born, 2, 1));
        assert_eq!(clients.evicted(), Evicted { youngest: client(30), last: Seq(3) });
        assert_eq!((known(&clients, 20), known(&clients, 30)), (Standing::Forgotten, Standing::Forgotten));
        assert_eq!(clients.judge(request(20, 1, 1)), Standing::Forgotten, "not done again");
        assert_eq!(known(&clients, 25), Standing::Forgotten, "it may have been forgotten");
        assert_eq!((known(&clients, 35), known(&clients, 40)), (Standing::New, Standing::New));
        assert_eq!(known(&clients, 10), Standing::Done(outcome(9)));
    }

    #[test]
    fn what_is_taken_back_leaves_no_trace() {
        let mut clients = Clients::default();
        done(&mut clients, 1, request(1, 1, 1));
        let before = clients.settled();
        ready(&mut clients, 2, request(1, 2, 2));
        ready(&mut clients, 3, request(5, 1, 1));
        assert_eq!(clients.judge(request(5, 1, 1)), Standing::Done(outcome(3)), "a copy that comes meanwhile");
        assert_eq!(clients.judge(request(1, 1, 1)), Standing::Done(outcome(1)), "the floor waits for the commit");
        clients.take_back(request(1, 2, 2), Seq(2));
        clients.take_back(request(5, 1, 1), Seq(3));
        assert_eq!((clients.settled(), clients.windows.len()), (before, 1));
        assert_eq!(clients.judge(request(5, 1, 1)), Standing::New);
        clients.take_back(request(1, 1, 1), Seq(2));
        assert_eq!(clients.judge(request(1, 1, 1)), Standing::Done(outcome(1)), "done elsewhere in the order");
    }

    /// A joining member has results from a member that is ahead of the leader, gets their stamps from the leader, and the
    /// next view takes some of these back before the writes of others have come.
    #[test]
    fn what_is_settled_is_not_taken_back_with_a_stamp() {
        let mut ahead = Clients::default();
        done(&mut ahead, 74, request(1, 11, 11));
        done(&mut ahead, 78, request(1, 12, 11));
        let mut joining = Clients::default();
        for window in ahead.settled() {
            if let Remembered::Client(window) = window {
                joining.take(window);
            }
        }
        ready(&mut joining, 74, request(1, 11, 11));
        joining.take_back(request(1, 11, 11), Seq(74));
        assert_eq!(joining.judge(request(1, 11, 11)), Standing::Done(outcome(74)), "not done twice");
        done(&mut joining, 74, request(1, 11, 11));
        assert_eq!(joining.settled(), ahead.settled());
    }

    #[test]
    fn a_client_that_is_forgotten_while_its_write_is_under_way_stays_forgotten() {
        let mut clients = Clients::default();
        for seq in 1..=8 {
            done(&mut clients, seq, request(10 * seq, 1, 1));
        }
        ready(&mut clients, 10, request(10, 2, 2));
        done(&mut clients, 9, request(200, 1, 1));
        clients.settle(request(10, 2, 2), Seq(10), outcome(10), MAX);
        assert_eq!(clients.judge(request(10, 2, 2)), Standing::Forgotten);
        assert_eq!(clients.judge(request(10, 3, 3)), Standing::Forgotten);
    }

    /// Both copies, in parts and with what was done meanwhile, are what the order makes of it.
    #[test]
    fn a_member_that_catches_up_holds_the_same() {
        let mut source = Clients::default();
        let mut learner = Clients::default();
        let catch_up = |source: &Clients, learner: &mut Clients, after: u64| {
            for (_, change) in source.changed_after(Seq(after)).collect::<Vec<_>>() {
                if let Remembered::Client(window) = change.to_remembered() {
                    learner.take(window);
                }
            }
            learner.take_evicted(source.evicted());
        };
        for seq in 1..=7 {
            done(&mut source, seq, request(10 * seq, 1, 1));
        }
        catch_up(&source, &mut learner, 0);
        for seq in 8..=40 {
            let born = 10 * (seq % 11);
            if source.judge(request(born + 1, seq, seq)) == Standing::New {
                done(&mut source, seq, request(born + 1, seq, seq - seq % 3));
            }
            done(&mut source, 100 + seq, Counted { client: origin(ServerId(1)), number: seq, lowest: seq - 1 });
        }
        assert!(source.evicted().last > Seq(7));
        catch_up(&source, &mut learner, 7);
        assert_eq!(learner.settled(), source.settled());
        assert_eq!((learner.settled, learner.evicted()), (source.settled, source.evicted()));
        ready(&mut source, 500, request(1_000, 1, 1));
        catch_up(&source, &mut learner, 0);
        assert_eq!(learner.judge(request(1_000, 1, 1)), Standing::New, "what is not committed stays where it is");
    }
}
