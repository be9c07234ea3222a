//! What the tests share: the real program, and clusters of it in directories of their own.
#![allow(dead_code, reason = "every test takes what it needs")]

use std::{
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use star_core::Clock;
use tempfile::TempDir;

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// The program, in this directory, with no configuration from outside.
pub(crate) fn star(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_star"));
    command.args(args).current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STAR_")) {
        command.env_remove(name);
    }
    command
}

/// What a run of the program gave.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Fails unless the program ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// The output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.stdout.trim()).unwrap_or_else(|error| panic!("no JSON ({error}): {self:#?}"))
    }
}

/// Runs the program to its end.
pub(crate) fn run(directory: &Path, args: &[&str]) -> Run {
    Run::of(&star(directory, args).output().expect("the program runs"))
}

/// Runs the program with this on its stdin.
pub(crate) fn run_with_input(directory: &Path, args: &[&str], input: &[u8]) -> Run {
    let mut child = star(directory, args).stdin(Stdio::piped()).spawn().expect("the program runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("the program ends");
    // The program may end without reading everything.
    let _ = writer.join().expect("the writer does not panic");
    Run::of(&output)
}

#[allow(clippy::disallowed_methods, reason = "a test has nothing else to do while it waits")]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(30));
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Clock.now() + PATIENCE;
    while !is_so() {
        assert!(Clock.now() < deadline, "it took too long until {what}");
        pause();
    }
}

/// Free ports on 127.0.0.1, one after another; below those that systems give to outgoing connections.
pub(crate) fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = (std::process::id() % 150) as u16 * 50;
    loop {
        let first = 12_000 + (own + NEXT.fetch_add(count, Ordering::Relaxed)) % 7_900;
        if (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
}

/// Asks a process to end.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("the process is there");
}

/// Whether a process runs; one that has ended and was not waited for does not.
pub(crate) fn is_running(pid: u64) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// A directory with the configuration of a cluster on free ports.
#[derive(Debug)]
pub(crate) struct Place {
    directory: TempDir,
    pub(crate) names: Vec<String>,
    pub(crate) addrs: Vec<String>,
}

impl Place {
    pub(crate) fn new(servers: u16) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let first = free_ports(servers);
        let names: Vec<String> = (0..servers).map(|number| char::from(b'a' + number as u8).to_string()).collect();
        let addrs: Vec<String> = (0..servers).map(|number| format!("127.0.0.1:{}", first + number)).collect();
        let entries: Vec<String> = names
            .iter()
            .zip(&addrs)
            .map(|(name, addr)| format!("{{ name = \"{name}\", addr = \"{addr}\" }}"))
            .collect();
        let config = format!(
            "[cluster]\nname = \"test\"\nservers = [{}]\n\n[store]\ndirectory = \"{}\"\ncapacity_bytes = \"64 MiB\"\n",
            entries.join(", "),
            directory.path().join("stores").display()
        );
        std::fs::write(directory.path().join("config.toml"), config).expect("a file");
        Self { directory, names, addrs }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        run(self.path(), args)
    }

    /// All files below the directory but the configuration: what servers left behind.
    pub(crate) fn left_behind(&self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        let mut directories = vec![self.path().to_path_buf()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).expect("a directory") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    directories.push(path.clone());
                }
                left.push(path);
            }
        }
        left.retain(|path| path.file_name().is_none_or(|name| name != "config.toml"));
        left
    }

    /// Starts `star up` with its output in files, and waits until it serves.
    pub(crate) fn up(&self) -> Running {
        let out = std::fs::File::create(self.path().join("up.out")).expect("a file");
        let err = std::fs::File::create(self.path().join("up.err")).expect("a file");
        let child = star(self.path(), &["up", "--json"]).stdout(out).stderr(err).spawn().expect("the program runs");
        let running = Running(vec![child]);
        let output = self.path().join("up.out");
        wait_until("the cluster serves", || std::fs::read_to_string(&output).is_ok_and(|text| text.ends_with('\n')));
        running
    }

    /// What `star up` printed when it was ready, and everything on its stderr.
    pub(crate) fn up_output(&self) -> (Value, String) {
        let read = |name: &str| std::fs::read_to_string(self.path().join(name)).expect("a file");
        (serde_json::from_str(&read("up.out")).expect("JSON"), read("up.err"))
    }

    /// Removes the output of `star up`, so that it does not count as left behind.
    pub(crate) fn remove_up_output(&self) {
        for name in ["up.out", "up.err"] {
            std::fs::remove_file(self.path().join(name)).expect("a file");
        }
    }
}

/// Processes that are killed if a test ends before they do.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Vec<Child>);

impl Running {
    /// Starts `star serve` for every server of the place, and waits until all serve.
    pub(crate) fn serve(place: &Place) -> Self {
        let mut running = Self(Vec::new());
        for name in &place.names {
            let mut command = star(place.path(), &["serve", "--name", name]);
            let log = std::fs::File::create(place.path().join(format!("{name}.log"))).expect("a file");
            running.0.push(command.stdout(Stdio::null()).stderr(log).spawn().expect("the program runs"));
        }
        wait_until("all servers are up", || {
            let status = place.run(&["status", "--json"]);
            let cluster: Value = serde_json::from_str(status.stdout.trim()).unwrap_or_default();
            cluster["servers"].as_array().is_some_and(|servers| servers.iter().all(|server| server["state"] == "up"))
        });
        running
    }

    /// Sends a signal to the first process, and returns how it ended.
    pub(crate) fn end_first(&mut self, by: Signal) -> Option<i32> {
        signal(self.0[0].id(), by);
        self.0.remove(0).wait().expect("the process ends").code()
    }

    /// Kills the last process without warning.
    pub(crate) fn kill_last(&mut self) {
        let mut last = self.0.pop().expect("a process");
        last.kill().expect("it runs");
        last.wait().expect("it ends");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
