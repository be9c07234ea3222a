use openraft::{EntryPayload, LeaderId, LogId};
use proptest::prelude::*;
use star_core::message::to_postcard;

use super::*;
use crate::types::Proposal;

/// What may happen to members whose clocks have nothing in common.
#[derive(Clone, Debug)]
enum Event {
    /// So many nanoseconds pass, for everybody.
    Pass(u64),
    /// This member reads the plane's time, and will propose something.
    Stamp(usize),
    /// The member that leads appends what it has stamped.
    Append,
    /// This member applies what it has not applied yet, but at most so many entries.
    Apply(usize, usize),
    /// This member leads from now on.
    Lead(usize),
    /// This member takes a snapshot.
    Snapshot(usize),
    /// This member starts again from its snapshot; if it leads it goes on to do so.
    Restart(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..1000_u64).prop_map(Event::Pass),
        4 => (0..3_usize).prop_map(Event::Stamp),
        3 => Just(Event::Append),
        4 => (0..3_usize, 1..4_usize).prop_map(|(member, entries)| Event::Apply(member, entries)),
        1 => (0..3_usize).prop_map(Event::Lead),
        1 => (0..3_usize).prop_map(Event::Snapshot),
        1 => (0..3_usize).prop_map(Event::Restart),
    ]
}

/// Three members and their log. All that is appended counts as committed, so that members may be as far as they like.
struct World {
    now: u64,
    replicas: Vec<Replica>,
    /// How many entries each member has applied.
    applied: [usize; 3],
    snapshots: [(usize, Option<Content>); 3],
    log: Vec<Entry>,
    /// When the stamp of each entry was read, and when it was appended, in true time; `None` for blank entries. Whoever
    /// asked had sent its request before the first, and nothing can follow from the entry before the second.
    when: Vec<Option<(u64, u64)>>,
    /// Whether the stamp of each entry counts. What asks for a lease under one that does not changes nothing.
    counts: Vec<bool>,
    waiting: Vec<(usize, Proposal, u64)>,
    leader: usize,
    term: u64,
}

impl World {
    const OFFSETS: [u64; 3] = [0, 1_000_000, 77];

    fn new() -> Self {
        let replica = |(me, offset): (u64, u64)| Replica::new(me, Duration::from_secs(1), Time(offset));
        let mut world = Self {
            now: 0,
            replicas: (0..).zip(Self::OFFSETS).map(replica).collect(),
            applied: [0; 3],
            snapshots: [const { (0, None) }; 3],
            log: Vec::new(),
            when: Vec::new(),
            counts: Vec::new(),
            waiting: Vec::new(),
            leader: 0,
            term: 0,
        };
        world.happen(&Event::Lead(0));
        world
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Pass(span) => self.now += span,
            Event::Stamp(member) => {
                let stamp = self.replicas[member].stamp(self.own_now(member));
                let proposal = Proposal { stamp, command: Command::Leases };
                self.waiting.push((member, proposal, self.now));
            }
            Event::Append => {
                let leader = self.leader;
                if let Some(at) = self.waiting.iter().position(|(member, ..)| *member == leader) {
                    let (_, proposal, stamped) = self.waiting.remove(at);
                    self.append(EntryPayload::Normal(proposal), Some(stamped));
                }
            }
            Event::Apply(member, entries) => {
                let until = self.log.len().min(self.applied[member] + entries);
                for index in self.applied[member]..until {
                    let now = self.own_now(member);
                    self.replicas[member].apply(now, self.log[index].clone());
                }
                self.applied[member] = until;
            }
            Event::Lead(member) => {
                self.leader = member;
                self.term += 1;
                self.append(EntryPayload::Blank, None);
            }
            Event::Snapshot(member) => {
                self.snapshots[member] = (self.applied[member], Some(self.replicas[member].content()));
            }
            Event::Restart(member) => {
                let now = self.own_now(member);
                let (applied, content) = self.snapshots[member].clone();
                let (me, new) = (member as u64, Replica::new(member as u64, Duration::from_secs(1), now));
                self.replicas[member] = content.map_or(new, |content| Replica::restored(me, now, content));
                self.applied[member] = applied;
                self.waiting.retain(|(stamper, ..)| *stamper != member);
            }
        }
    }

    fn own_now(&self, member: usize) -> Time {
        Time(Self::OFFSETS[member] + self.now)
    }

    fn append(&mut self, payload: EntryPayload<crate::types::Types>, stamped: Option<u64>) {
        let reign = LeaderId::new(self.term, self.leader as u64);
        self.log.push(Entry { log_id: LogId::new(reign, self.log.len() as u64), payload });
        let stamp = match &self.log[self.log.len() - 1].payload {
            EntryPayload::Normal(proposal) => proposal.stamp.reign,
            _ => None,
        };
        self.counts.push(stamp == Some(reign));
        self.when.push(stamped.map(|stamped| (stamped, self.now)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_planes_time_is_the_same_for_all_and_never_faster_than_true_time(
        events in proptest::collection::vec(event(), 0..120)
    ) {
        let mut world = World::new();
        events.iter().for_each(|event| world.happen(event));
        let mut reader = Replica::new(OTHER, Duration::from_secs(1), Time::ZERO);
        let times: Vec<_> = world.log.iter().map(|entry| { reader.apply(Time::ZERO, entry.clone()); reader.time }).collect();
        for (later, when_later) in world.when.iter().enumerate() {
            for (earlier, when_earlier) in world.when[..later].iter().enumerate() {
                prop_assert!(times[earlier] <= times[later]);
                if !world.counts[earlier] {
                    continue;
                }
                if let (Some((stamped, _)), Some((_, appended))) = (when_earlier, when_later) {
                    let passed = times[later].since(times[earlier]);
                    prop_assert!(passed <= Duration::from_nanos(appended - stamped), "{earlier} to {later}");
                }
            }
        }
        for member in 0..3 {
            world.happen(&Event::Apply(member, usize::MAX / 2));
            let encoded = |replica: &Replica| {
                let mut bytes = Vec::new();
                to_postcard(&replica.content(), &mut bytes);
                bytes
            };
            prop_assert_eq!(encoded(&world.replicas[member]), encoded(&reader));
        }
    }
}

/// Who leads in the entries of [`entry`].
const ME: u64 = 1;
/// Who never leads.
const OTHER: u64 = 99;

fn entry(index: u64, stamp: Stamp, command: Command) -> Entry {
    let payload = EntryPayload::Normal(Proposal { stamp, command });
    Entry { log_id: LogId::new(LeaderId::new(1, ME), index), payload }
}

/// A reading that counts in all entries of [`entry`].
fn reading(at: Time) -> Stamp {
    Stamp { reign: Some(LeaderId::new(1, ME)), at }
}

fn acquire(name: &str, ttl_ms: u64) -> Command {
    let ttl = Duration::from_millis(ttl_ms);
    Command::Acquire { name: name.into(), holder: star_core::Incarnation(1), ttl }
}

fn at(ms: u64) -> Time {
    Time(ms * 1_000_000)
}

#[test]
fn the_planes_time_does_not_stand_still_while_much_is_proposed() {
    let mut replica = Replica::new(ME, Duration::from_secs(1), at(0));
    replica.apply(at(0), entry(0, Stamp::default(), Command::Leases));
    for round in 0..100 {
        let stamp = replica.stamp(at(round * 10));
        replica.apply(at(round * 10 + 10), entry(round + 1, stamp, Command::Leases));
    }
    assert_eq!(replica.time, at(990));
}

#[test]
fn a_leader_that_starts_anew_in_its_reign_goes_on_from_the_logs_time() {
    let mut replica = Replica::new(ME, Duration::from_secs(1), at(0));
    replica.apply(at(0), entry(0, Stamp::default(), Command::Leases));
    let old = replica.content();
    let stamp = replica.stamp(at(60_000));
    let mut anew = Replica::restored(ME, at(70_000), old);
    anew.apply(at(70_000), entry(1, stamp, Command::Leases));
    assert_eq!(anew.stamp(at(70_005)).at, at(60_005));
}

#[test]
fn leases_are_read_with_the_time_left_and_never_after_their_end() {
    let mut replica = Replica::new(ME, Duration::from_secs(1), at(500));
    replica.apply(at(500), entry(1, reading(at(0)), acquire("a", 100)));
    replica.apply(at(500), entry(2, reading(at(0)), acquire("b", 300)));
    let Some(Answer::Leases(leases)) = replica.read(at(540), Command::Leases) else { panic!("leases") };
    let left: Vec<_> = leases.iter().map(|lease| lease.remaining.as_millis()).collect();
    assert_eq!(left, [60, 260]);
    assert_eq!(replica.read(at(600), Command::Leases), None, "one has run out: the others must learn it");
    let stamp = replica.stamp(at(600));
    let answer = replica.apply(at(601), entry(3, stamp, Command::Leases));
    assert!(matches!(answer, Some(Answer::Leases(leases)) if leases.len() == 1));
    assert_eq!(replica.read(at(601), acquire("c", 1)), None, "what changes something is not read");
}

#[test]
fn what_was_restored_has_the_same_time_and_answers() {
    let mut replica = Replica::new(ME, Duration::from_secs(1), at(0));
    replica.apply(at(0), entry(1, reading(at(0)), acquire("a", 800)));
    let stamp = replica.stamp(at(200));
    replica.apply(at(200), entry(2, stamp, acquire("b", 1)));
    let content = replica.content();
    let mut restored = Replica::restored(ME, at(9000), content);
    assert_eq!((restored.time, restored.applied()), (replica.time, replica.applied()));
    let Some(Answer::Leases(leases)) = restored.read(at(9000), Command::Leases) else { panic!("leases") };
    assert_eq!(leases[0].remaining, Duration::from_millis(600));
}

#[test]
fn the_time_between_two_leaders_is_not_lost() {
    let mut replica = Replica::new(OTHER, Duration::from_secs(1), at(0));
    replica.apply(at(7), entry(1, reading(at(1000)), acquire("a", 600)));
    let blank = Entry { log_id: LogId::new(LeaderId::new(2, 2), 2), payload: EntryPayload::Blank };
    replica.apply(at(307), blank);
    assert_eq!(replica.stamp(at(307)).at, at(1300), "its own clock ran on meanwhile");
}

#[test]
fn a_lease_that_was_asked_for_under_an_earlier_leader_is_not_given() {
    let mut replica = Replica::new(ME, Duration::from_secs(1), at(0));
    replica.apply(at(0), entry(1, reading(at(0)), acquire("a", 600)));
    for (index, command) in [
        acquire("b", 600),
        Command::Renew { name: "a".into(), holder: star_core::Incarnation(1), ttl: Duration::from_secs(1) },
    ]
    .into_iter()
    .enumerate()
    {
        let stamp = Stamp { reign: Some(LeaderId::new(0, 9)), at: at(500) };
        assert_eq!(replica.apply(at(500), entry(2 + index as u64, stamp, command)), None);
    }
    let Some(Answer::Leases(leases)) = replica.read(at(500), Command::Leases) else { panic!("leases") };
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0].remaining, Duration::from_millis(100));
}
