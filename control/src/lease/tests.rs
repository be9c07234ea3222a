//! Every transition by hand, and the one promise that matters against a real [`Machine`] whose clock runs apart.

use std::{cmp::Reverse, collections::BinaryHeap};

use bytes::Bytes;
use proptest::prelude::*;
use star_core::ids::Incarnation;

use super::*;
use crate::{
    machine::{Answer, Command, Machine},
    plane::{Acquired, CasOutcome, Renewed, Revision},
};

const CONFIG: LeaseConfig = LeaseConfig { ttl: Duration::from_millis(600), drift_margin: Duration::from_millis(60) };

fn at(ms: u64) -> Time {
    Time(ms * 1_000_000)
}

/// A keeper that asked at 0, was answered at 10, read the views at 20, and holds until 540.
fn holding() -> LeaseKeeper {
    let mut keeper = LeaseKeeper::new(CONFIG);
    keeper.sent(at(0));
    keeper.acquired(at(0), at(10));
    keeper.views_read(at(10));
    assert_eq!(keeper.state(at(20)), LeaseState::Holding { until: at(540) });
    keeper
}

#[test]
fn a_new_keeper_holds_nothing_and_acquires_at_once() {
    let mut keeper = LeaseKeeper::new(CONFIG);
    assert_eq!(keeper.state(at(0)), LeaseState::Lost);
    assert_eq!(keeper.step(at(0)), LeaseStep::Acquire);
}

#[test]
fn an_attempt_under_way_is_repeated_after_a_third_of_the_lease() {
    let mut keeper = LeaseKeeper::new(CONFIG);
    keeper.sent(at(0));
    assert_eq!(keeper.step(at(1)), LeaseStep::Wait(at(200)));
    assert_eq!(keeper.step(at(200)), LeaseStep::Acquire);
}

#[test]
fn an_acquired_lease_counts_only_after_a_read_that_began_after_the_answer() {
    let mut keeper = LeaseKeeper::new(CONFIG);
    keeper.sent(at(0));
    keeper.acquired(at(0), at(10));
    assert_eq!(keeper.state(at(11)), LeaseState::NeedViews);
    assert_eq!(keeper.step(at(11)), LeaseStep::ReadViews);
    keeper.views_read(at(9));
    assert_eq!(keeper.state(at(12)), LeaseState::NeedViews);
    keeper.views_read(at(10));
    assert_eq!(keeper.state(at(12)), LeaseState::Holding { until: at(540) });
}

#[test]
fn a_failed_read_of_the_views_waits_a_little_and_the_lease_is_renewed_meanwhile() {
    let mut keeper = LeaseKeeper::new(CONFIG);
    keeper.sent(at(0));
    keeper.acquired(at(0), at(10));
    keeper.failed(at(50));
    assert_eq!(keeper.step(at(50)), LeaseStep::Wait(at(110)));
    assert_eq!(keeper.step(at(110)), LeaseStep::ReadViews);
    assert_eq!(keeper.step(at(200)), LeaseStep::Renew);
    keeper.sent(at(200));
    keeper.renewed(at(200), at(210));
    assert_eq!(keeper.state(at(600)), LeaseState::NeedViews);
    assert_eq!(keeper.step(at(210)), LeaseStep::ReadViews, "renewals do not keep it from reading");
    assert_eq!(keeper.step(at(399)), LeaseStep::ReadViews);
    keeper.views_read(at(399));
    assert_eq!(keeper.state(at(399)), LeaseState::Holding { until: at(740) });
}

#[test]
fn the_deadline_counts_from_the_sending_less_the_margin() {
    let keeper = holding();
    assert_eq!(keeper.state(Time(at(540).0 - 1)), LeaseState::Holding { until: at(540) });
    assert_eq!(keeper.state(at(540)), LeaseState::Lost);
}

#[test]
fn a_renewal_goes_out_every_third_and_lengthens_the_lease() {
    let mut keeper = holding();
    assert_eq!(keeper.step(at(20)), LeaseStep::Wait(at(200)));
    assert_eq!(keeper.step(at(200)), LeaseStep::Renew);
    keeper.sent(at(200));
    assert_eq!(keeper.step(at(210)), LeaseStep::Wait(at(400)));
    keeper.renewed(at(200), at(220));
    assert_eq!(keeper.state(at(220)), LeaseState::Holding { until: at(740) });
    assert_eq!(keeper.step(at(220)), LeaseStep::Wait(at(400)));
}

#[test]
fn failed_renewals_are_tried_again_until_the_lease_lapses_and_then_it_is_acquired() {
    let mut keeper = holding();
    keeper.sent(at(200));
    keeper.failed(at(201));
    assert_eq!(keeper.step(at(202)), LeaseStep::Wait(at(261)));
    assert_eq!(keeper.step(at(261)), LeaseStep::Renew);
    keeper.sent(at(500));
    assert_eq!(keeper.step(at(510)), LeaseStep::Wait(at(540)));
    assert_eq!(keeper.step(at(540)), LeaseStep::Acquire);
}

#[test]
fn an_answer_after_the_deadline_is_worthless() {
    let mut keeper = holding();
    keeper.sent(at(400));
    keeper.renewed(at(400), at(541));
    assert_eq!(keeper.state(at(541)), LeaseState::Lost);
    assert_eq!(keeper.step(at(541)), LeaseStep::Acquire);
    let mut slow = LeaseKeeper::new(CONFIG);
    slow.sent(at(0));
    slow.acquired(at(0), at(540));
    assert_eq!(slow.state(at(540)), LeaseState::Lost);
    assert_eq!(slow.step(at(540)), LeaseStep::Acquire);
}

#[test]
fn an_answer_to_an_older_renewal_does_not_shorten_the_lease() {
    let mut keeper = holding();
    keeper.renewed(at(300), at(310));
    keeper.renewed(at(200), at(320));
    assert_eq!(keeper.state(at(320)), LeaseState::Holding { until: at(840) });
}

#[test]
fn a_lost_lease_stops_counting_at_once_and_needs_the_views_again() {
    let mut keeper = holding();
    keeper.lost(at(300));
    assert_eq!(keeper.state(at(300)), LeaseState::Lost);
    assert_eq!(keeper.step(at(300)), LeaseStep::Acquire);
    keeper.renewed(at(200), at(310));
    assert_eq!(keeper.state(at(310)), LeaseState::Lost);
    keeper.sent(at(310));
    keeper.acquired(at(310), at(320));
    assert_eq!(keeper.state(at(320)), LeaseState::NeedViews);
}

#[test]
fn acquiring_while_holding_needs_the_views_again() {
    let mut keeper = holding();
    keeper.acquired(at(100), at(110));
    assert_eq!(keeper.state(at(110)), LeaseState::NeedViews);
}

#[test]
fn the_defaults_can_be_kept_and_senseless_times_cannot() {
    assert_eq!(LeaseConfig::default().check(), Ok(()));
    let (ttl, drift_margin) = (CONFIG.ttl, CONFIG.drift_margin);
    for wrong in [
        LeaseConfig { ttl: Duration::ZERO, drift_margin },
        LeaseConfig { ttl: Duration::from_hours(1), drift_margin },
        LeaseConfig { ttl, drift_margin: Duration::ZERO },
        LeaseConfig { ttl, drift_margin: ttl },
    ] {
        assert!(wrong.check().is_err(), "{wrong:?}");
    }
}

const ME: Incarnation = Incarnation(1);
const RIVAL: Incarnation = Incarnation(2);

#[test]
fn a_renewal_granted_behind_a_slow_acquire_comes_too_late_to_count() {
    let mut machine = Machine::new(Time::ZERO, CONFIG.ttl);
    let acquire = || Command::Acquire { name: "a".into(), holder: ME, ttl: CONFIG.ttl };
    let mut keeper = LeaseKeeper::new(CONFIG);
    // The first attempt is slow on its way; the second gets the lease.
    keeper.sent(at(0));
    keeper.sent(at(200));
    assert_eq!(machine.apply(at(201), acquire()), Answer::Acquired(Acquired::Held));
    keeper.acquired(at(200), at(202));
    keeper.views_read(at(202));
    assert_eq!(keeper.state(at(730)), LeaseState::Holding { until: at(740) });
    // A renewal is sent in time, and slow as well. Meanwhile the lease runs out and the server is taken out of its views.
    keeper.sent(at(730));
    let evict = Command::CompareAndSet {
        key: "cluster".into(),
        expected: Revision::ABSENT,
        value: Bytes::new(),
        unleased: vec!["a".into()],
    };
    assert_eq!(machine.apply(at(801), evict), Answer::Set(CasOutcome::Done(Revision(1))));
    // Now the first attempt arrives, so the renewal behind it is granted.
    assert_eq!(machine.apply(at(820), acquire()), Answer::Acquired(Acquired::Held));
    let renew = Command::Renew { name: "a".into(), holder: ME, ttl: CONFIG.ttl };
    assert_eq!(machine.apply(at(830), renew), Answer::Renewed(Renewed::Held));
    keeper.renewed(at(730), at(840));
    assert_eq!(keeper.state(at(840)), LeaseState::Lost);
}

/// One round of the adversary: what happens to the next exchange, and what else happens in the world.
#[derive(Clone, Copy, Debug)]
struct Turn {
    there_ms: u64,
    back_ms: u64,
    answer_lost: bool,
    /// The server is not scheduled for so long after the exchange.
    pause_ms: u64,
    rival_takes: bool,
}

fn turn() -> impl Strategy<Value = Turn> {
    let delay = prop_oneof![8 => 0_u64..40, 2 => 0_u64..400, 1 => 0_u64..1500];
    (delay.clone(), delay, prop::bool::weighted(0.15), prop_oneof![6 => Just(0), 1 => 0_u64..1500], any::<bool>())
        .prop_map(|(there_ms, back_ms, answer_lost, pause_ms, rival_takes)| Turn {
            there_ms,
            back_ms,
            answer_lost,
            pause_ms,
            rival_takes,
        })
}

/// What is on its way, by the real time of its arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    AtPlane { call: u64, back: u64, acquire: bool },
    AtServer { call: u64, held: bool, acquire: bool },
    ServerRuns,
    Evict,
    Rival,
}

/// A server and a plane whose clocks run at their own rates; time below is real time, in nanoseconds.
struct World {
    keeper: LeaseKeeper,
    machine: Machine,
    server_ppm: i64,
    plane_ppm: i64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    next_event: u64,
    revision: Revision,
    /// The call that the server waits for, and when it sent it on its own clock.
    waiting: Option<(u64, Time)>,
    /// The revision that the server has read last.
    views_seen: Revision,
    held_ever: bool,
    evicted_ever: bool,
}

fn clock(real: u64, ppm: i64) -> Time {
    Time((i128::from(real) * (1_000_000 + i128::from(ppm)) / 1_000_000) as u64)
}

impl World {
    fn new(server_ppm: i64, plane_ppm: i64) -> Self {
        let mut world = Self {
            keeper: LeaseKeeper::new(CONFIG),
            machine: Machine::new(Time::ZERO, CONFIG.ttl),
            server_ppm,
            plane_ppm,
            events: BinaryHeap::new(),
            next_event: 0,
            revision: Revision::ABSENT,
            waiting: None,
            views_seen: Revision::ABSENT,
            held_ever: false,
            evicted_ever: false,
        };
        world.push(0, Event::ServerRuns);
        world.push(0, Event::Evict);
        world
    }

    fn push(&mut self, real: u64, event: Event) {
        self.next_event += 1;
        self.events.push(Reverse((real, self.next_event, event)));
    }

    /// While the server counts on its lease, the plane holds it for this server, and nothing was decided behind its back.
    fn check(&mut self, real: u64) {
        let LeaseState::Holding { until } = self.keeper.state(clock(real, self.server_ppm)) else { return };
        self.held_ever = true;
        let holder = self.plane_holder(real);
        assert_eq!(holder, Some(ME), "the server counts on its lease until {until}, and the plane does not");
        assert_eq!(
            self.views_seen, self.revision,
            "the server counts on its lease under views that are not the latest"
        );
    }

    fn plane_holder(&self, real: u64) -> Option<Incarnation> {
        let Answer::Leases(leases) = self.machine.clone().apply(clock(real, self.plane_ppm), Command::Leases) else {
            unreachable!("a list of leases is always answered")
        };
        leases.first().map(|lease| lease.holder)
    }

    fn server_runs(&mut self, real: u64, turn: Turn) {
        let now = clock(real, self.server_ppm);
        let step = self.keeper.step(now);
        match step {
            LeaseStep::Wait(_) => {}
            // The read of the views is atomic here; what matters is that it follows the answer.
            LeaseStep::ReadViews => {
                self.keeper.views_read(now);
                self.views_seen = self.revision;
            }
            LeaseStep::Acquire | LeaseStep::Renew => {
                let call = self.next_event;
                self.keeper.sent(now);
                self.waiting = Some((call, now));
                let back = if turn.answer_lost { u64::MAX } else { turn.back_ms * 1_000_000 };
                let acquire = step == LeaseStep::Acquire;
                self.push(real + turn.there_ms * 1_000_000, Event::AtPlane { call, back, acquire });
            }
        }
        self.push(real + (5 + turn.pause_ms) * 1_000_000, Event::ServerRuns);
    }

    fn at_plane(&mut self, real: u64, call: u64, back: u64, acquire: bool) {
        let (name, holder, ttl) = ("a".to_owned(), ME, CONFIG.ttl);
        let command =
            if acquire { Command::Acquire { name, holder, ttl } } else { Command::Renew { name, holder, ttl } };
        let answer = self.machine.apply(clock(real, self.plane_ppm), command);
        let held = answer == Answer::Acquired(Acquired::Held) || answer == Answer::Renewed(Renewed::Held);
        if back != u64::MAX {
            self.push(real + back, Event::AtServer { call, held, acquire });
        }
    }

    fn at_server(&mut self, real: u64, call: u64, held: bool, acquire: bool) {
        let now = clock(real, self.server_ppm);
        let Some((_, sent)) = self.waiting.take_if(|waiting| waiting.0 == call) else { return };
        match (held, acquire) {
            (true, true) => self.keeper.acquired(sent, now),
            (true, false) => self.keeper.renewed(sent, now),
            (false, true) => self.keeper.failed(now),
            (false, false) => self.keeper.lost(now),
        }
    }

    /// Somebody tries to install a view without this server.
    fn evict(&mut self, real: u64) {
        let command = Command::CompareAndSet {
            key: "cluster".into(),
            expected: self.revision,
            value: Bytes::new(),
            unleased: vec!["a".into()],
        };
        if let Answer::Set(CasOutcome::Done(revision)) = self.machine.apply(clock(real, self.plane_ppm), command) {
            self.revision = revision;
            self.evicted_ever = true;
            let state = self.keeper.state(clock(real, self.server_ppm));
            assert!(!matches!(state, LeaseState::Holding { .. }), "evicted while it counts on its lease: {state:?}");
        }
        self.push(real + 7_000_000, Event::Evict);
    }

    fn run(&mut self, turns: &[Turn]) {
        let mut turns = turns.iter();
        while let Some(Reverse((real, _, event))) = self.events.pop() {
            // Just before the event: the last instant at which the state after the one before still stood.
            self.check(real.saturating_sub(1));
            match event {
                Event::ServerRuns => {
                    let Some(turn) = turns.next() else { return };
                    if turn.rival_takes {
                        self.push(real + turn.there_ms * 2_000_000, Event::Rival);
                    }
                    self.server_runs(real, *turn);
                }
                Event::AtPlane { call, back, acquire } => self.at_plane(real, call, back, acquire),
                Event::AtServer { call, held, acquire } => self.at_server(real, call, held, acquire),
                Event::Evict => self.evict(real),
                Event::Rival => {
                    let ttl = Duration::from_millis(50);
                    let command = Command::Acquire { name: "a".into(), holder: RIVAL, ttl };
                    self.machine.apply(clock(real, self.plane_ppm), command);
                }
            }
            self.check(real);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The clocks may run apart by 5 % each, which the margin of a tenth covers: 540 * 1.05 <= 600 * 0.95.
    #[test]
    fn the_keeper_never_counts_on_a_lease_longer_than_the_plane_keeps_it(
        server_ppm in -50_000_i64..=50_000,
        plane_ppm in -50_000_i64..=50_000,
        turns in prop::collection::vec(turn(), 50..400),
    ) {
        World::new(server_ppm, plane_ppm).run(&turns);
    }
}

#[test]
fn a_calm_world_holds_the_lease_and_a_rough_one_loses_it() {
    let calm = Turn { there_ms: 1, back_ms: 1, answer_lost: false, pause_ms: 0, rival_takes: false };
    let mut world = World::new(50_000, -50_000);
    world.run(&vec![calm; 2000]);
    assert!(world.held_ever);
    let evicted_while_calm = world.revision;
    assert!(evicted_while_calm <= Revision(1), "taken out in a calm world: {evicted_while_calm}");
    let rough = Turn { pause_ms: 900, ..calm };
    world.push(clock(10_000_000_000, 0).0, Event::ServerRuns);
    world.push(clock(10_000_000_000, 0).0, Event::Evict);
    world.run(&[rough; 20]);
    assert!(world.evicted_ever);
}

#[test]
#[should_panic(expected = "the server counts on its lease")]
fn clocks_further_apart_than_the_margin_are_caught_by_this_world() {
    let calm = Turn { there_ms: 0, back_ms: 0, answer_lost: false, pause_ms: 0, rival_takes: false };
    let cut_off = Turn { there_ms: 5000, ..calm };
    let mut world = World::new(-150_000, 150_000);
    world.run(&[vec![calm; 30], vec![cut_off; 300]].concat());
}
