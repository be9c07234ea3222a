//! Servers killed without warning while they keep the control plane: whoever leads it, a minority is not missed, and a
//! majority that comes back goes on.

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use star_core::Clock;
use support::{Place, Running, is_running, signal, star, wait_until};

/// Asks one server; `None` if it does not answer.
fn ask(addr: &str, message: &Value) -> Option<Value> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let text = message.to_string();
    stream.write_all(&(text.len() as u64).to_be_bytes()).ok()?;
    stream.write_all(text.as_bytes()).ok()?;
    let mut length = [0; 8];
    stream.read_exact(&mut length).ok()?;
    let mut text = vec![0; u64::from_be_bytes(length) as usize];
    stream.read_exact(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

struct Cluster {
    place: Place,
    running: Running,
}

impl Cluster {
    fn start(servers: u16) -> Self {
        let place = Place::new(servers);
        let running = Running::serve(&place);
        Self { place, running }
    }

    fn status(&self) -> Value {
        let run = self.place.run(&["status", "--json"]);
        serde_json::from_str(run.stdout.trim()).unwrap_or_default()
    }

    /// The server that leads the control plane, once the others say so.
    fn leader(&self) -> usize {
        let mut leader = None;
        wait_until("somebody leads the control plane", || {
            let named = self.status()["plane"]["leader"].as_str().map(ToOwned::to_owned);
            leader = self.place.names.iter().position(|name| named.as_ref() == Some(name));
            leader.is_some_and(|leader| is_running(self.running.0[leader].id().into()))
        });
        leader.expect("somebody")
    }

    /// As `kill -9` does.
    fn kill(&mut self, server: usize) {
        signal(self.running.0[server].id(), Signal::KILL);
        self.running.0[server].wait().expect("it is gone");
    }

    fn restart(&mut self, server: usize) {
        let mut command = star(self.place.path(), &["serve", "--name", &self.place.names[server]]);
        let log = self.place.path().join(format!("{}.log", self.place.names[server]));
        let log = std::fs::File::options().append(true).open(log).expect("a file");
        let child = command.stdout(std::process::Stdio::null()).stderr(log).spawn().expect("the program runs");
        self.running.0[server] = child;
    }

    /// Writes through this server until it takes it; how long that took is for people.
    fn set(&self, server: usize, key: &str, value: &str) {
        let began = Clock.now();
        wait_until("a write is taken", || {
            // The same request each time, so that it takes effect once.
            let message = json!({"type": "SET", "key": key, "value": value, "request_id": format!("{key}={value}")});
            ask(&self.place.addrs[server], &message).is_some_and(|answer| answer["status"] == "OK")
        });
        println!("{key} was written after {:?}", Clock.now().since(began));
    }

    /// Reads at this server alone, until it answers.
    fn get(&self, server: usize, key: &str) -> String {
        let mut value = None;
        wait_until("a read is answered", || {
            let answer = ask(&self.place.addrs[server], &json!({"type": "GET", "key": key})).unwrap_or_default();
            value = (answer["status"] == "OK").then(|| answer["value"].as_str().unwrap_or_default().to_owned());
            value.is_some()
        });
        value.expect("a value")
    }

    fn states(&self) -> Vec<String> {
        let status = self.status();
        let servers = status["servers"].as_array().cloned().unwrap_or_default();
        servers.iter().map(|server| server["state"].as_str().unwrap_or_default().to_owned()).collect()
    }

    fn wait_until_whole(&self) {
        wait_until("all servers are up and members of every star", || {
            let status = self.status();
            let count = self.place.names.len();
            let has_all = |star: &Value| star["members"].as_array().is_some_and(|members| members.len() == count);
            self.states().iter().all(|state| state == "up")
                && status["stars"].as_array().is_some_and(|stars| !stars.is_empty() && stars.iter().all(has_all))
        });
    }
}

#[test]
fn killing_the_first_server_or_the_planes_leader_stops_nobody_for_long() {
    let mut cluster = Cluster::start(5);
    cluster.set(0, "kept", "0");
    for round in 1..=3 {
        let victim = if round == 1 { 0 } else { cluster.leader() };
        cluster.kill(victim);
        let other = (victim + 1) % 5;
        // Every star has to go on without it: the keys are of all of them.
        for number in 0..8 {
            cluster.set(other, &format!("key-{round}-{number}"), "after");
        }
        assert_ne!(cluster.leader(), victim, "another server leads the control plane");
        wait_until("its state is known", || cluster.states()[victim] == "down");
        for server in (0..5).filter(|server| *server != victim) {
            assert_eq!(cluster.get(server, "kept"), (round - 1).to_string(), "at server {server}");
        }
        cluster.set(other, "kept", &round.to_string());
        cluster.restart(victim);
        cluster.wait_until_whole();
        assert_eq!(cluster.get(victim, "kept"), round.to_string(), "the server that is back has what was written");
    }
}

#[test]
fn without_a_majority_everything_is_refused_and_with_one_it_goes_on() {
    let mut cluster = Cluster::start(5);
    cluster.set(0, "kept", "value");
    (0..3).for_each(|server| cluster.kill(server));
    wait_until("the survivors refuse, for want of a lease", || {
        cluster.states()[3..].iter().all(|state| state == "no lease")
    });
    let answer = ask(&cluster.place.addrs[4], &json!({"type": "GET", "key": "kept"})).expect("a refusal");
    assert_eq!((&answer["code"], &answer["retry"]), (&"NO_LEASE".into(), &true.into()), "{answer}");
    wait_until("the status says what is wrong", || {
        let servers = cluster.status()["servers"].clone();
        servers[4]["note"].as_str().is_some_and(|note| note.contains("control plane"))
    });
    cluster.restart(1);
    assert_eq!(cluster.get(4, "kept"), "value", "nothing was lost");
    cluster.set(3, "kept", "more");
    cluster.restart(0);
    cluster.restart(2);
    cluster.wait_until_whole();
    assert_eq!(cluster.get(0, "kept"), "more");
}
