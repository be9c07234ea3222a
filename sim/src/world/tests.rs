//! What a run as a whole does not show: that something goes on at a certain moment.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use star_core::{
    ids::{ServerId, StarId},
    key::Key,
    message::RequestBody,
};

use super::{
    Settings, Trace, World,
    client::Client,
    server::Stop,
    workload::{Asked, Part},
};
use crate::{
    campaign::Star,
    history::{Op, Outcome},
    random::Random,
    star::StarSettings,
    subject::{Glance, Subject},
};

/// The one star of these worlds.
const STAR: StarId = StarId(0);

/// Lines that a test can read afterwards.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic holds it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A world of one star in which nothing breaks by itself, after some work and a rest.
fn quiet_world(seed: u64, lines: &Lines) -> World<Star> {
    let mut random = Random::new(seed);
    let mut settings = Settings::random(&mut random);
    (settings.servers, settings.stars, settings.replicas) = (random.between(3, 5) as u16, 1, None);
    (settings.steps, settings.loss) = (1_000, 0);
    settings.faults.weights.fill(0);
    settings.workload.keys = 4;
    let subject = StarSettings::random(&mut random);
    let mut world = World::new(seed, settings, subject, Trace::to(Box::new(lines.clone())));
    while world.steps < world.settings.steps {
        assert!(world.next().expect("nothing breaks"), "clients always ask");
    }
    world.heal();
    world.come_to_rest(0).expect("nothing is in its way");
    world
}

impl World<Star> {
    fn glance(&self, id: ServerId) -> Glance {
        self.servers[usize::from(id.0)].node.as_ref().expect("it runs").glance(STAR)
    }

    /// A client that asks one server only.
    fn add_client(&mut self, server: ServerId) -> u32 {
        let number = self.clients.len() as u32;
        let mut client = Client::new(number, Random::new(u64::from(number)));
        client.bound_to = Some(server);
        self.clients.push(client);
        number
    }

    fn read(&mut self, client: u32, key: &str) {
        let key = Key::new(key);
        let part = Part { op: Op::Read, number: 0, key: key.clone(), value: None, if_version: None };
        self.ask(client, Asked::Parts(vec![part]), RequestBody::Get { key }.into());
    }

    fn write(&mut self, client: u32, key: &str) {
        let me = &mut self.clients[client as usize];
        let (asked, request) = self.workload.set_key(me, key);
        self.book.called(self.now, &asked);
        self.ask(client, asked, request);
    }
}

#[test]
fn clean_reads_go_on_at_every_member_during_a_takeover() {
    for seed in 0..20 {
        let lines = Lines::default();
        let mut world = quiet_world(seed, &lines);
        let view = world.plane.state().stars[0].clone();
        let survivors: Vec<ServerId> = view.members.iter().copied().filter(|id| *id != view.leader).collect();
        let writer = world.add_client(survivors[0]);
        let readers: Vec<u32> = survivors.iter().map(|id| world.add_client(*id)).collect();

        world.write(writer, "k00");
        world.crash(view.leader, false);
        let killed = world.now;
        let shown = lines.0.lock().expect("no panic holds it").len();
        let has_taken_over = |world: &World<Star>, id: &ServerId| {
            let glance = world.glance(*id);
            glance.epoch > view.epoch && glance.installed
        };
        let mut answered = vec![0; survivors.len()];
        while !survivors.iter().all(|id| has_taken_over(&world, id)) {
            for (id, reader) in survivors.iter().zip(&readers) {
                if world.clients[*reader as usize].under_way.is_none() && !has_taken_over(&world, id) {
                    world.read(*reader, "k01");
                }
            }
            assert!(world.next().expect("reads are right"), "the servers tick");
        }

        for operation in world.history().operations() {
            if let (Some(place), Outcome::Done { .. }) =
                (readers.iter().position(|reader| *reader == operation.client), operation.outcome)
            {
                assert!(operation.call >= killed);
                answered[place] += 1;
            }
        }
        // At least as many as fit into the time until the lease of the leader is over, at the slowest of links.
        assert!(answered.iter().all(|count| *count > 3), "seed {seed}: reads answered at survivors: {answered:?}");
        let text = lines.0.lock().expect("no panic holds it");
        let text = String::from_utf8_lossy(&text[shown..]);
        let refused = |line: &&str| {
            line.contains("Error") && readers.iter().any(|reader| line.contains(&format!("client {reader} <- ")))
        };
        assert_eq!(text.lines().find(refused), None, "seed {seed}");
    }
}

#[test]
fn servers_that_could_take_the_last_copies_along_do_not_stop_at_the_same_time() {
    for seed in 0..5 {
        let mut world = quiet_world(seed, &Lines::default());
        let all: Vec<ServerId> = (0..world.settings.servers).map(ServerId).collect();
        let (last, others) = all.split_last().expect("there are servers");
        for id in others {
            assert!(world.can_stop(*id), "seed {seed}: others go on");
            let give_up_at = world.now + world.settings.hand_over_max();
            world.server(*id).stop = Some(Stop { give_up_at, down_for: 1 });
            assert!(!world.can_stop(*id), "seed {seed}: it stops already");
        }
        assert!(world.can_lose(*last), "seed {seed}: those that stop have copies still");
        assert!(!world.can_stop(*last), "seed {seed}: nobody would stay");
        world.come_to_rest(0).expect("they stop and come back");
    }
}
