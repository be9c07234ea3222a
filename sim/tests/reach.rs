//! Links that stay cut for many leases between two members that both reach the control plane: somebody gives way, writes
//! come back, and a link that comes and goes does not take a server in and out at its pace.

use star_core::{ids::ServerId, key::Key};
use star_sim::{
    campaign::Star,
    history::Op,
    random::Random,
    star::StarSettings,
    world::{
        Settings, Summary, Trace, World,
        settings::{MS, SECOND, ScriptedCut},
    },
};

const STARS: u16 = 2;
const LEASE: u64 = 600 * MS;

/// From the cut of a link until writes go on: noticed, longer than a lease, a few looks, the way out, the takeover.
const BACK_WITHIN: u64 = 3 * LEASE;

fn cut(at: u64, lasts: u64, from: u16, to: u16) -> ScriptedCut {
    ScriptedCut { at, lasts, from: ServerId(from), to: ServerId(to) }
}

/// Runs so many servers under these cuts and nothing else; gives the summary, and for each star the longest time between
/// two writes that were done.
fn run(seed: u64, servers: u16, time_max: u64, script: Vec<ScriptedCut>) -> (Summary, Vec<u64>) {
    let mut random = Random::new(seed);
    let mut settings = Settings { servers, stars: STARS, time_max, script, ..Settings::random(&mut random) };
    settings.steps = u64::MAX;
    settings.replicas = None;
    settings.loss = 0;
    settings.delay = (50_000, 2 * MS);
    settings.lease = star_control::LeaseConfig::default();
    settings.faults.weights.fill(0);
    settings.workload.keys = 12;
    settings.workload.think_max = 20 * MS;
    settings.workload.timeout = 100 * MS;
    settings.workload.attempts_max = 100;
    settings.workload.weights = [20, 60, 0, 10, 0, 0, 0];
    let mut subject = StarSettings::random(&mut random);
    subject.sessions_max = 1 << 16;
    let mut world: World<Star> = World::new(seed, settings, subject, Trace::silent());
    let summary = world.run().unwrap_or_else(|failure| panic!("seed {seed} fails {failure}"));
    let mut gaps = Vec::new();
    for star in 0..STARS {
        let is_write = |op: Op| matches!(op, Op::Write | Op::CompareAndSet);
        let of_star = |key: &str| Key::new(key).star(STARS).0 == star;
        let history = world.history();
        let writes = history.operations().iter().filter(|one| is_write(one.op) && of_star(history.key(one.key)));
        let mut times: Vec<u64> = writes.filter_map(|one| one.outcome.ret()).filter(|at| *at < time_max).collect();
        times.push(time_max);
        times.sort_unstable();
        gaps.push(times.windows(2).map(|pair| pair[1] - pair[0]).max().expect("writes"));
    }
    (summary, gaps)
}

#[test]
fn writes_come_back_while_a_link_stays_cut_one_way_or_both_ways() {
    let at = 2 * SECOND;
    for servers in 2..=5 {
        for (from, to) in [(0, 1), (1, 0), (servers - 1, 0)] {
            for both in [false, true] {
                let mut script = vec![cut(at, 20 * LEASE, from, to)];
                script.extend(both.then(|| cut(at, 20 * LEASE, to, from)));
                let (summary, gaps) = run(u64::from(servers), servers, at + 20 * LEASE, script);
                let case = format!("{servers} servers, {from} to {to}, both {both}: {gaps:?}, {} views", summary.views);
                assert!(gaps.iter().all(|gap| *gap < BACK_WITHIN), "{case}");
                // Out and back in, once: each star some steps, and the words of the servers.
                assert!(summary.views < 40, "{case}");
            }
        }
    }
}

#[test]
fn one_server_that_reaches_nobody_is_the_one_to_go() {
    let at = 2 * SECOND;
    let script = (1..5).flat_map(|other| [cut(at, 20 * LEASE, 0, other), cut(at, 20 * LEASE, other, 0)]);
    let (summary, gaps) = run(1, 5, at + 20 * LEASE, script.collect());
    assert!(gaps.iter().all(|gap| *gap < BACK_WITHIN), "{gaps:?}");
    assert!(summary.views < 40, "{}", summary.views);
}

#[test]
fn a_link_that_comes_and_goes_does_not_take_a_server_in_and_out_at_its_pace() {
    let rounds = 30;
    let script = (0..rounds).map(|round| cut(2 * SECOND + round * 4 * LEASE, 2 * LEASE, 0, 2)).collect();
    let (summary, _) = run(3, 3, 2 * SECOND + rounds * 4 * LEASE, script);
    // Out and in again takes ten changes; at its pace that would be three hundred.
    assert!(summary.views < 100, "{} changes of the views", summary.views);
}
