//! A place of its own for each test: a configuration with free ports, a service directory and a directory for the mapped
//! stores, all of which go away with it, with whatever still runs there.
#![allow(dead_code, reason = "each test file is a crate of its own and uses a part of this")]

pub(crate) mod wire;

use std::{
    fs,
    io::ErrorKind,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use star_core::{Clock, Time};
use tempfile::TempDir;

/// The servers of a place, and the Redis beside them.
pub(crate) struct Place {
    directory: TempDir,
    /// The port of each server, in the order of their names.
    pub(crate) ports: Vec<u16>,
    pub(crate) redis_port: u16,
    variables: Vec<(String, String)>,
}

/// What a call of `service_manager` ended with.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) errors: String,
}

impl Place {
    /// A place for so many servers: a, b, c …
    pub(crate) fn new(servers: usize) -> Self {
        server_program();
        let mut ports = free_ports(servers + 1);
        let redis_port = ports.pop().expect("one more");
        let place = Self {
            directory: tempfile::Builder::new().prefix("star-services-").tempdir().expect("a directory"),
            ports,
            redis_port,
            variables: Vec::new(),
        };
        let servers: Vec<String> = place
            .names()
            .zip(&place.ports)
            .map(|(name, port)| format!("{{ name = \"{name}\", addr = \"127.0.0.1:{port}\" }}"))
            .collect();
        let text = format!(
            "[cluster]\nname = \"test\"\nservers = [{}]\n\
             [store]\ndirectory = \"{}\"\ncapacity_bytes = \"160 MiB\"\n\
             [control]\nredis_url = \"redis://:pass%20word@127.0.0.1:{redis_port}/1\"\n\
             [service]\ndirectory = \"{}\"\n",
            servers.join(", "),
            place.stores().display(),
            place.services().display(),
        );
        fs::write(place.config(), text).expect("a file");
        place
    }

    /// Sets an environment variable for all calls.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.ports.len()).map(|number| char::from(b'a' + number as u8).to_string())
    }

    pub(crate) fn addr(&self, server: usize) -> String {
        format!("127.0.0.1:{}", self.ports[server])
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("config.toml")
    }

    pub(crate) fn services(&self) -> PathBuf {
        self.directory.path().join("services")
    }

    pub(crate) fn stores(&self) -> PathBuf {
        self.directory.path().join("stores")
    }

    /// A call of `service_manager`, not made yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_service_manager"));
        command.args(args).arg("--config").arg(self.config()).current_dir(self.directory.path());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Calls `service_manager` and waits until it ends.
    pub(crate) fn call(&self, args: &[&str]) -> Done {
        Done::from(self.command(args).output().expect("service_manager can be started"))
    }

    /// Calls it, and demands that all is well.
    pub(crate) fn succeed(&self, args: &[&str]) -> Done {
        let done = self.call(args);
        assert_eq!(done.code, 0, "{args:?}: {done:#?}");
        done
    }

    /// The services as `status all --json` shows them, with its exit code.
    pub(crate) fn status(&self) -> (i32, Value) {
        let done = self.call(&["status", "--json"]);
        (done.code, done.json()["services"].clone())
    }

    /// The process of each star server, by its name.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let (_, services) = self.status();
        let processes = services[1]["processes"].as_array().expect("processes").clone();
        processes.iter().map(|process| process["pid"].as_u64().expect("a pid") as u32).collect()
    }

    /// Demands that nothing is left: no process, no port, no store, no record; only logs and the data of the
    /// control planes.
    pub(crate) fn assert_nothing_left(&self, pids: &[u32]) {
        for pid in pids {
            assert!(!is_running(*pid), "process {pid} still runs");
        }
        for port in self.ports.iter().chain([&self.redis_port]) {
            drop(TcpListener::bind(("127.0.0.1", *port)).expect("the port is free again"));
        }
        // What the servers hold stays for the next start, in whole files.
        let unfinished: Vec<_> = files(&self.stores()).into_iter().filter(|path| path.extension().is_some()).collect();
        assert!(unfinished.is_empty(), "left: {unfinished:?}");
        for path in files(&self.services()) {
            let inside = path.strip_prefix(self.services()).expect("it was found there");
            let may_stay = ["logs", "redis/appendonlydir", "control"].iter().any(|kept| inside.starts_with(kept));
            assert!(may_stay, "left: {}", path.display());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A test that failed may have left something running.
        let done = self.call(&["stop", "all", "--grace", "2s"]);
        if std::thread::panicking() {
            for path in files(&self.services().join("logs")) {
                eprintln!("{}:\n{}", path.display(), fs::read_to_string(&path).unwrap_or_default());
            }
        } else {
            assert_eq!(done.code, 0, "{done:#?}");
        }
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), errors: text(output.stderr) }
    }
}

impl Done {
    /// Its output, which is one JSON object.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// All files under a directory; none if it is not there.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => panic!("{}: {error}", directory.display()),
    };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Whether a process runs; one that has ended and that nobody waits for does not.
pub(crate) fn is_running(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// The memory of its own that a process has in use, in bytes. Its mapped store, which it shares and whose size is fixed,
/// is not part of it.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a line of the kernel's");
    line.split_ascii_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number") << 10
}

/// Sends a signal to one process.
pub(crate) fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill can be started");
    assert!(status.success(), "kill {signal} {pid}");
}

/// Waits until something holds; fails after two minutes, which is much even on a starved machine.
#[allow(clippy::disallowed_methods, reason = "a test waits for other processes")]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until: Time = Clock.now() + Duration::from_mins(2);
    while !holds() {
        assert!(Clock.now() < until, "it never came true that {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Ports that are free now; below those that systems give to outgoing connections, so that none of those takes one
/// before the server does.
fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = (std::process::id() % 150) as u16 * 50;
    let candidates = std::iter::repeat_with(|| 12_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 7_900);
    candidates.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).take(count).collect()
}

/// The `star` program beside `service_manager`, built if it is not there yet: a test of this package alone does not
/// build it.
fn server_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let path = Path::new(env!("CARGO_BIN_EXE_service_manager")).with_file_name("star");
        if !path.is_file() {
            let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
            let release = path.parent().is_some_and(|parent| parent.ends_with("release"));
            let profile: &[&str] = if release { &["--release"] } else { &[] };
            let built = Command::new(cargo).args(["build", "-p", "star-cli"]).args(profile).status();
            assert!(built.expect("cargo can be started").success(), "the package star-cli can be built");
        }
        path
    })
}
