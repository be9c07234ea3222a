//! The key-value store on Raft as people start it: servers in processes of their own, broken under load, and the shells.

use std::{
    borrow::Cow,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use star_core::Clock;
use star_raft::kv::KvClient;
use star_sim::{
    history::{History, Op, Record},
    linearizable::{self, Verdict, wgl},
};
use tempfile::TempDir;

/// Far longer than anything here takes, even on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(120);
const SERVERS: usize = 3;

/// A server's process, with its shell.
struct Server {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // As `kill -9` does. It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// What the shell answers to a command of one line.
    fn says(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").expect("it reads");
        self.line()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }
}

/// Below the ports of outgoing connections, so that a server that starts again finds its own free.
fn free_addrs() -> Vec<String> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = (std::process::id() % 150) as u16 * 50;
    let port = || 12_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 7_900;
    let free = std::iter::repeat_with(port).filter(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.take(SERVERS).map(|port| format!("127.0.0.1:{port}")).collect()
}

struct Group {
    addrs: Vec<String>,
    directory: TempDir,
    running: Vec<Option<Server>>,
}

impl Group {
    fn start() -> Self {
        let addrs = free_addrs();
        let directory = tempfile::tempdir().expect("a directory");
        let mut group = Self { addrs, directory, running: (0..SERVERS).map(|_| None).collect() };
        (0..SERVERS).for_each(|place| group.restart(place));
        group
    }

    fn restart(&mut self, place: usize) {
        let mut process = Command::new(env!("CARGO_BIN_EXE_star"))
            .args(["raft", "server", &(place + 1).to_string(), "--faults", "--servers", &self.addrs.join(",")])
            .arg("--directory")
            .arg(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let (input, output) = (process.stdin.take().expect("piped"), process.stdout.take().expect("piped"));
        let mut server = Server { process, input, output: BufReader::new(output) };
        assert_eq!(server.line(), format!("server {} listens on {}", place + 1, self.addrs[place]));
        self.running[place] = Some(server);
    }

    fn kill(&mut self, place: usize) {
        self.running[place] = None;
    }

    fn server(&mut self, place: usize) -> &mut Server {
        self.running[place].as_mut().expect("it runs")
    }

    fn client(&self, id: u32, patience: Duration) -> KvClient {
        KvClient::new(&self.addrs, id, patience)
    }

    /// The place of the server that leads.
    async fn leader(&self) -> usize {
        let ends = Clock.now() + PATIENCE;
        loop {
            let said = self.client(999, PATIENCE).status().await;
            let leads = |text: &str| serde_json::from_str::<Value>(text).is_ok_and(|said| said["role"] == "leader");
            if let Some(place) = said.iter().position(|(_, text)| leads(text)) {
                return place;
            }
            assert!(Clock.now() < ends, "nobody leads: {said:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// Puts and gets on a few keys until `stop`, every one recorded.
async fn load(mut client: KvClient, id: u32, stop: Arc<AtomicBool>, history: Arc<Mutex<History>>) {
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let key = Value::from(number % 3);
        let call = Clock.now().0;
        let (op, outcome, written) = if (number + u64::from(id)).is_multiple_of(2) {
            let value = Value::from(format!("{id}-{number}"));
            (Op::Write, client.put(&key, &value).await.map(|version| (None, Some(version))), Some(value.to_string()))
        } else {
            let found = client.get(&key).await.map(|found| match found {
                Some((value, version)) => (Some(value), Some(version)),
                None => (None, None),
            });
            (Op::Read, found, None)
        };
        let ret = outcome.is_ok().then(|| Clock.now().0);
        let ok = outcome.is_ok();
        let (read, version) = outcome.unwrap_or_default();
        let value = written.or(read).map(Cow::Owned);
        let key = Cow::Owned(key.to_string());
        let record = Record { client: id, op, key, value, version, if_version: None, call, ret, ok };
        history.lock().expect("a lock").push(&record).expect("a record that makes sense");
    }
}

#[tokio::test]
async fn histories_stay_linearizable_when_the_leader_and_followers_are_killed_and_all_start_again_from_disk() {
    let mut group = Group::start();
    let (stop, history) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(History::new())));
    group.client(1, PATIENCE).put(&Value::from("first"), &Value::from(1)).await.expect("a put");
    let clients: Vec<_> = (1..=4)
        .map(|id| tokio::spawn(load(group.client(id, PATIENCE), id, Arc::clone(&stop), Arc::clone(&history))))
        .collect();
    let operations = || history.lock().expect("a lock").operations().len();
    let grown = async |more: usize| {
        let (wanted, ends) = (operations() + more, Clock.now() + PATIENCE);
        while operations() < wanted {
            assert!(Clock.now() < ends, "the load stands still");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    for round in 0..4 {
        grown(100).await;
        let victim = (group.leader().await + round % 2) % SERVERS;
        group.kill(victim);
        grown(100).await;
        group.restart(victim);
    }
    grown(100).await;
    // All at once, under load: whoever led must not answer from what it has on disk before it has caught up with itself.
    for _ in 0..3 {
        (0..SERVERS).for_each(|place| group.kill(place));
        (0..SERVERS).for_each(|place| group.restart(place));
        grown(100).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("it ends");
    }
    let first = group.client(9, PATIENCE).get(&Value::from("first")).await.expect("a get");
    assert_eq!(first.map(|(value, _)| value), Some("1".to_owned()));
    let history = history.lock().expect("a lock");
    let report = linearizable::check(&history, wgl::STATES_MAX);
    assert_eq!(report.verdict, Verdict::Linearizable, "{} operations", report.operations);
}

#[test]
fn without_a_majority_everything_is_refused_and_says_so_and_goes_on_when_links_are_mended() {
    block_on(async {
        let mut group = Group::start();
        let (key, value) = (Value::from("k"), serde_json::json!({"a": [1, null]}));
        group.client(1, PATIENCE).put(&key, &value).await.expect("a put");
        let leader = group.leader().await;
        // The leader alone, by number and by port; then the others cannot reach each other either.
        let others = [(leader + 1) % SERVERS, (leader + 2) % SERVERS];
        let port = group.addrs[others[1]].rsplit(':').next().expect("a port").to_owned();
        let broken = group.server(leader).says(&format!("failLink {}", others[0] + 1));
        assert_eq!(broken, format!("the link to {} is broken", others[0] + 1));
        assert!(group.server(leader).says(&format!("failLink {port}")).ends_with("is broken"));
        assert!(group.server(others[0]).says(&format!("failLink {}", others[1] + 1)).ends_with("is broken"));
        // Each server says so; the one that leads yet, after it has waited for a majority.
        let mut impatient = group.client(2, Duration::from_secs(5));
        let (mut is_said, ends) = ([false, false], Clock.now() + PATIENCE);
        while is_said != [true, true] {
            let read = impatient.get(&key).await.expect_err("no majority").to_string();
            let written = impatient.put(&key, &Value::from(2)).await.expect_err("no majority").to_string();
            // A follower may not have noticed yet that its leader has gone.
            is_said = [&read, &written].map(|refused| refused.contains("majority of the 3 servers"));
            assert!(Clock.now() < ends, "{read}; {written}");
        }
        assert!(group.server(leader).says(&format!("fixLink {}", others[0] + 1)).ends_with("is mended"));
        let (text, _) = group.client(1, PATIENCE).get(&key).await.expect("a majority").expect("a value");
        // The refused put may have been done: it said that it does not know.
        assert!(*text == *value.to_string() || text == "2", "{text}");
    });
}

#[test]
fn the_shells_show_what_is_there_and_faults_are_off_unless_allowed() {
    let mut group = Group::start();
    let mut client = Command::new(env!("CARGO_BIN_EXE_star"))
        .args(["raft", "client", "4", "--timeout", "120", "--servers", &group.addrs.join(",")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let lines = "put {\"b\": 1, \"a\": 2} [1, \"x\"]\nget {\"a\": 2, \"b\": 1}\nput k v\nget k\nget 7\nput 7\n";
    client.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("it reads");
    let output = client.wait_with_output().expect("it ends");
    let answers = String::from_utf8(output.stdout).expect("text");
    let answers: Vec<_> = answers.lines().collect();
    assert_eq!(answers[1..5], ["[1,\"x\"]", "version 2", "\"v\"", "no such key"], "{answers:?}");
    assert!(answers[5].starts_with("error: ") && answers[5].contains("a literal is missing"), "{answers:?}");

    let leader = block_on(group.leader());
    let server = group.server(leader);
    writeln!(server.input, "print log\nprint kvstore\nfly").expect("it reads");
    let mut shown = Vec::new();
    while shown.last().is_none_or(|line: &String| !line.starts_with("error: \"fly\"")) {
        shown.push(server.line());
    }
    let has = |wanted: &str| shown.iter().any(|line| line.ends_with(wanted));
    assert!(has(": put {\"a\":2,\"b\":1} [1,\"x\"]") && has(": put \"k\" \"v\""), "the log: {shown:?}");
    assert!(has("{\"a\":2,\"b\":1} [1,\"x\"] (version 1)") && has("\"k\" \"v\" (version 2)"), "the objects: {shown:?}");
    writeln!(server.input, "failProcess").expect("it reads");
    assert!(!server.process.wait().expect("it ends").success(), "as a crash");

    let directory = tempfile::tempdir().expect("a directory");
    let mut safe = Command::new(env!("CARGO_BIN_EXE_star"))
        .args(["raft", "server", "1", "--servers", "0", "--directory", directory.path().to_str().expect("a path")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    safe.stdin.take().expect("piped").write_all(b"failProcess\nfailLink 1\nquit\n").expect("it reads");
    let output = safe.wait_with_output().expect("it ends");
    let said = String::from_utf8(output.stdout).expect("text");
    assert_eq!(said.matches("faults are switched off").count(), 2, "{said}");
    assert!(output.status.success(), "{said}");
}
