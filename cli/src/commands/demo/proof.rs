//! Proofs: every server is asked for every object, and what it says is compared byte for byte.

use std::rc::Rc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{
    load::{COUNTERS, Load, counter_key, counter_value},
    progress::{Progress, Stage, objects},
    shared::{Mapped, Shared},
    tree::Tree,
};
use crate::{error::CliError, output};

/// Requests under way at each server while it is asked.
const AT_ONCE: usize = 4;
/// The number of the first proving client in the history.
const FIRST_PROVER: u32 = 300;
/// Faults that are named; the others are counted.
const FAULTS_NAMED: usize = 5;
/// Keys of one page of a listing.
const PAGE_KEYS: u32 = 1000;

/// What was proved, or was not.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) name: &'static str,
    /// Comparisons made.
    pub(super) compared: u64,
    /// Those of them that were read from mapped stores.
    pub(super) mapped: u64,
    /// What was wrong.
    pub(super) faults: Vec<String>,
}

impl Check {
    pub(super) fn new(name: &'static str, compared: u64) -> Self {
        Self { name, compared, mapped: 0, faults: Vec::new() }
    }

    pub(super) fn passed(&self) -> bool {
        self.faults.is_empty()
    }

    fn add(&mut self, other: Self) {
        self.compared += other.compared;
        self.mapped += other.mapped;
        self.faults.extend(other.faults);
    }

    /// Compares what was found with what must be there.
    fn compare(&mut self, found: Option<&[u8]>, expected: Option<&Bytes>, what: impl FnOnce() -> String) {
        self.compared += 1;
        if found == expected.map(AsRef::as_ref) {
            return;
        }
        let size = |bytes: Option<&[u8]>| bytes.map_or("nothing".to_owned(), |bytes| format!("{} bytes", bytes.len()));
        let difference = match (found, expected) {
            (Some(found), Some(expected)) => {
                let same = found.iter().zip(expected).take_while(|(a, b)| a == b).count();
                format!(", different from byte {same} on")
            }
            _ => String::new(),
        };
        let expected = size(expected.map(AsRef::as_ref));
        self.faults.push(format!("{}: {} instead of {expected}{difference}", what(), size(found)));
    }

    /// The faults as lines.
    pub(super) fn fault_lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.faults.iter().take(FAULTS_NAMED).cloned().collect();
        if self.faults.len() > FAULTS_NAMED {
            lines.push(format!("and {} more", self.faults.len() - FAULTS_NAMED));
        }
        lines
    }
}

/// Proves what the servers hold.
pub(super) struct Proof<'a> {
    shared: &'a Rc<Shared>,
    tree: &'a Rc<Tree>,
    load: &'a Load,
}

impl<'a> Proof<'a> {
    pub(super) fn new(shared: &'a Rc<Shared>, tree: &'a Rc<Tree>, load: &'a Load) -> Self {
        Self { shared, tree, load }
    }

    /// Asks every server for every object of the tree, over TCP and through its mapped store.
    pub(super) async fn everywhere(&self, name: &'static str, progress: &Progress) -> Result<Check, CliError> {
        let servers = self.shared.servers.len();
        let stage = Rc::new(progress.stage("proving", (self.tree.files.len() * servers) as u64));
        let mut provers = JoinSet::new();
        for server in 0..servers {
            for part in 0..AT_ONCE {
                provers.spawn_local(prove_part(
                    Rc::clone(self.shared),
                    Rc::clone(self.tree),
                    self.load.clone(),
                    (server, part),
                    Rc::clone(&stage),
                ));
            }
        }
        let mut check = Check::new(name, 0);
        while let Some(part) = provers.join_next().await {
            check.add(part??);
        }
        if let Ok(stage) = Rc::try_unwrap(stage) {
            let verdict = if check.passed() { "the same byte for byte" } else { "NOT the same" };
            let (count, mapped) = (objects(self.tree.files.len()), output::count(check.mapped));
            stage.done(&format!("{name}: {count} at {servers} servers {verdict}, {mapped} also through mapped stores"));
        }
        Ok(check)
    }

    /// All counters together must say how often one was raised: no change was lost, and none done twice.
    pub(super) async fn counters(&self) -> Result<Check, CliError> {
        let mut check = Check::new("counters add up, at every server", 0);
        for (server, door) in self.shared.servers.iter().enumerate() {
            let mut sum = 0;
            for counter in 0..COUNTERS {
                let key = counter_key(counter);
                if let Some((value, _)) = self.shared.read(FIRST_PROVER, server, &key).await? {
                    sum += counter_value(&value, &key)?;
                }
                check.compared += 1;
            }
            let raised = self.load.increments();
            if sum != raised {
                check.faults.push(format!("server {}: they say {sum}, and were raised {raised} times", door.name));
            }
        }
        Ok(check)
    }

    /// Every server must list the keys of the tree and no others.
    pub(super) async fn listed(&self) -> Result<Check, CliError> {
        let mut check = Check::new("keys listed by every server", 0);
        let mut expected: Vec<&str> = self.tree.files.iter().map(|file| file.key.as_str()).collect();
        expected.sort_unstable();
        for door in &self.shared.servers {
            let mut keys: Vec<String> = Vec::new();
            loop {
                let page = door.client.list("", keys.last().map(String::as_str), PAGE_KEYS).await?;
                let is_last = !page.more || page.keys.is_empty();
                keys.extend(page.keys);
                if is_last {
                    break;
                }
            }
            check.compared += keys.len() as u64;
            if keys != expected {
                let (keys, files) = (keys.len(), expected.len());
                check.faults.push(format!("server {} lists {keys} keys, not those of the {files} files", door.name));
            }
        }
        Ok(check)
    }
}

/// One of the parts that a server's objects are proved in.
async fn prove_part(
    shared: Rc<Shared>,
    tree: Rc<Tree>,
    load: Load,
    (server, part): (usize, usize),
    stage: Rc<Stage>,
) -> Result<Check, CliError> {
    let client = FIRST_PROVER + (server * AT_ONCE + part) as u32;
    let name = &shared.servers[server].name;
    let mut check = Check::new("", 0);
    let mut buffer = Vec::new();
    for file in (part..tree.files.len()).step_by(AT_ONCE) {
        let key = &tree.files[file].key;
        let expected = load.expected(file);
        let found = shared.read(client, server, key).await?;
        let found = found.as_ref().map(|(value, _)| value.as_ref());
        check.compare(found, expected.as_ref(), || format!("{key:?} at server {name}"));
        let mapped = shared.read_mapped(client, server, key, &mut buffer);
        if mapped != Mapped::Ask {
            check.mapped += 1;
            let found = (mapped == Mapped::Found).then_some(buffer.as_slice());
            check.compare(found, expected.as_ref(), || format!("{key:?} in the mapped store of server {name}"));
        }
        stage.step();
    }
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_differs_is_a_fault_with_its_place() {
        let expected = Bytes::from_static(b"0123456789");
        let mut check = Check::new("test", 0);
        let what = || "key".to_owned();
        check.compare(Some(b"0123456789"), Some(&expected), what);
        check.compare(None, None, what);
        assert!(check.passed());
        check.compare(Some(b"0123x56789"), Some(&expected), what);
        check.compare(Some(b"012345678"), Some(&expected), what);
        check.compare(None, Some(&expected), what);
        check.compare(Some(b""), None, what);
        let faults = [
            "key: 10 bytes instead of 10 bytes, different from byte 4 on",
            "key: 9 bytes instead of 10 bytes, different from byte 9 on",
            "key: nothing instead of 10 bytes",
            "key: 0 bytes instead of nothing",
        ];
        assert_eq!((check.faults.as_slice(), check.compared), (&faults.map(str::to_owned)[..], 6));
        check.add(Check { faults: faults.map(str::to_owned).to_vec(), ..Check::new("", 4) });
        assert_eq!(check.fault_lines().len(), 6, "five and how many more");
        assert!(check.fault_lines()[5].contains("3 more") && check.compared == 10);
    }
}
