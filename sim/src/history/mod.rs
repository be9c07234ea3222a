//! Histories: what clients asked for, when, and what they were told. The checkers judge a cluster by nothing else.
//!
//! | `op` | `ok`, `ret` | what it says |
//! | --- | --- | --- |
//! | `r` | `ok: true` with `value` and `version` | the key had this object |
//! | `r` | `ok: true` without `value` | the key had no object |
//! | `w`, `cas` | `ok: true` with `version` | the write was done and made this version |
//! | `del` | `ok: true` with `version` | there was an object, of this version or a lower one; it is gone |
//! | `del` | `ok: true` without `version` | there was no object |
//! | `cas`, `del` | `ok: false` with `version` | the condition did not hold: the key had this version (0: no object) |
//! | any | `ok: false` without `version` | it was certainly not done |
//! | any | no `ret` | it may have been done at any time after `call`, or not at all |
//!
//! An operation that was sent again with the same request id is one operation, from its first call to its last answer.

mod interner;
mod record;
#[cfg(test)]
pub(crate) mod tests_support;

use std::{
    borrow::Cow,
    io::{self, BufRead, Write},
};

use interner::Interner;
pub use interner::Name;
pub use record::{Op, Record};
use star_core::ids::Version;

/// A history in memory; keys and values are kept once.
#[derive(Clone, Debug, Default)]
pub struct History {
    keys: Interner,
    values: Interner,
    operations: Vec<Operation>,
}

/// One operation of a [`History`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The client.
    pub client: u32,
    /// What was asked for.
    pub op: Op,
    /// The key.
    pub key: Name,
    /// What was written, or what a read found.
    pub value: Option<Name>,
    /// The condition: the version that the key must have (0: no object).
    pub if_version: Option<Version>,
    /// When the client began, in nanoseconds.
    pub call: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of an operation. `ret` is when the client was told, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nobody knows whether, and when, it was done.
    Unknown,
    /// It was certainly not done.
    Refused {
        /// When the client was told.
        ret: u64,
    },
    /// Its condition did not hold.
    Conflict {
        /// When the client was told.
        ret: u64,
        /// The version that the key had; 0 for no object.
        met: Version,
    },
    /// It was done.
    Done {
        /// When the client was told.
        ret: u64,
        /// The version made or found; `None` where there was no object.
        version: Option<Version>,
    },
}

/// Why a file is no history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file cannot be read.
    #[error("the history cannot be read after line {line}: {error}")]
    Read {
        /// The last line that was read, from 1 on.
        line: u64,
        /// What the system says.
        error: io::Error,
    },
    /// A line is not an operation.
    #[error("line {line} of the history is not an operation: {reason}; mend or remove the line")]
    Line {
        /// The line, from 1 on.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

impl History {
    /// An empty history.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads JSON lines to the end; empty lines are passed over.
    pub fn read(mut input: impl BufRead) -> Result<Self, HistoryError> {
        let mut history = Self::new();
        let mut text = String::new();
        for line in 1.. {
            text.clear();
            match input.read_line(&mut text) {
                Ok(0) => break,
                Ok(_) if text.trim().is_empty() => {}
                Ok(_) => {
                    let record = serde_json::from_str(&text).map_err(|error| error.to_string());
                    let pushed = record.and_then(|record| history.push(&record));
                    pushed.map_err(|reason| HistoryError::Line { line, reason })?;
                }
                Err(error) => return Err(HistoryError::Read { line: line - 1, error }),
            }
        }
        Ok(history)
    }

    /// Writes all operations as JSON lines.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        for index in 0..self.operations.len() {
            write_record(&self.record(index), &mut out)?;
        }
        out.flush()
    }

    /// Adds an operation; the error says what is wrong with it.
    pub fn push(&mut self, record: &Record<'_>) -> Result<(), String> {
        let outcome = outcome_of(record)?;
        let key = self.keys.intern(&record.key);
        let value = record.value.as_deref().map(|value| self.values.intern(value));
        let Record { client, op, if_version, call, .. } = *record;
        self.operations.push(Operation { client, op, key, value, if_version, call, outcome });
        Ok(())
    }

    /// The operations, in the order in which they were added.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The operation at `index` in the form of the file.
    pub fn record(&self, index: usize) -> Record<'_> {
        let operation = &self.operations[index];
        let (version, ok) = match operation.outcome {
            Outcome::Unknown | Outcome::Refused { .. } => (None, false),
            Outcome::Conflict { met, .. } => (Some(met), false),
            Outcome::Done { version, .. } => (version, true),
        };
        Record {
            client: operation.client,
            op: operation.op,
            key: Cow::Borrowed(self.key(operation.key)),
            value: operation.value.map(|value| Cow::Borrowed(self.value(value))),
            version,
            if_version: operation.if_version,
            call: operation.call,
            ret: operation.outcome.ret(),
            ok,
        }
    }

    /// The text of a key.
    pub fn key(&self, name: Name) -> &str {
        self.keys.text(name)
    }

    /// The text of a value.
    pub fn value(&self, name: Name) -> &str {
        self.values.text(name)
    }

    /// How many different keys there are.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// The indices of the operations of each key, keys in the order in which they first came.
    pub fn by_key(&self) -> Vec<Vec<usize>> {
        let mut groups = vec![Vec::new(); self.keys.len()];
        for (index, operation) in self.operations.iter().enumerate() {
            groups[operation.key.0 as usize].push(index);
        }
        groups
    }
}

impl Outcome {
    /// When the client was told; `None` if it never was.
    pub fn ret(self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::Refused { ret } | Self::Conflict { ret, .. } | Self::Done { ret, .. } => Some(ret),
        }
    }
}

/// Appends one operation as a JSON line to `out`: for those who write a history as it happens.
pub fn write_record(record: &Record<'_>, mut out: impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut out, record)?;
    out.write_all(b"\n")
}

fn outcome_of(record: &Record<'_>) -> Result<Outcome, String> {
    check_request(record)?;
    let Some(ret) = record.ret else { return Ok(Outcome::Unknown) };
    if ret < record.call {
        return Err(format!("it returned at {ret}, before its call at {}", record.call));
    }
    let version = record.version.filter(|version| version.0 > 0);
    if !record.ok {
        let conditional = matches!(record.op, Op::CompareAndSet | Op::Delete) && record.if_version.is_some();
        return match record.version {
            Some(met) if conditional => Ok(Outcome::Conflict { ret, met }),
            Some(_) => Err("`ok` is false with a `version`, but there was no condition that it could break".into()),
            None => Ok(Outcome::Refused { ret }),
        };
    }
    match record.op {
        Op::Write | Op::CompareAndSet if version.is_none() => {
            Err(format!("a `{}` that was done needs the `version` that it made", record.op.name()))
        }
        Op::Read if version.is_some() != record.value.is_some() => {
            Err("a read has both `value` and `version`, or neither where there was no object".into())
        }
        _ => Ok(Outcome::Done { ret, version }),
    }
}

fn check_request(record: &Record<'_>) -> Result<(), String> {
    let name = record.op.name();
    match record.op {
        Op::Write | Op::CompareAndSet if record.value.is_none() => Err(format!("a `{name}` needs a `value`")),
        Op::CompareAndSet if record.if_version.is_none() => {
            Err("a `cas` needs `if_version`, the version that the key must have (0: no object)".into())
        }
        Op::Read | Op::Write if record.if_version.is_some() => Err(format!("a `{name}` has no `if_version`")),
        Op::Delete if record.value.is_some() => Err("a `del` has no `value`".into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"client":0,"op":"w","key":"k","value":"v \"1\"","version":3,"call":1,"ret":5,"ok":true}
{"client":1,"op":"r","key":"k","value":"v \"1\"","version":3,"call":2,"ret":6,"ok":true}
{"client":1,"op":"r","key":"other","call":7,"ret":8,"ok":true}
{"client":1,"op":"cas","key":"k","value":"v2","version":3,"if_version":0,"call":9,"ret":10,"ok":false}
{"client":2,"op":"del","key":"k","call":11,"ok":false}
"#;

    #[test]
    fn what_is_read_is_written_again() {
        let history = History::read(LINES.as_bytes()).expect("good lines");
        assert_eq!(history.operations().len(), 5);
        assert_eq!(history.by_key(), [vec![0, 1, 3, 4], vec![2]]);
        assert_eq!(history.operations()[0].value, history.operations()[1].value);
        assert_eq!(history.operations()[3].outcome, Outcome::Conflict { ret: 10, met: Version(3) });
        assert_eq!(history.operations()[4].outcome, Outcome::Unknown);
        let mut out = Vec::new();
        history.write(&mut out).expect("memory takes all");
        assert_eq!(String::from_utf8(out).expect("JSON is UTF-8"), LINES);
    }

    #[test]
    fn errors_name_the_line_and_what_is_wrong() {
        let cases = [
            ("{\"client\":0", "EOF"),
            (r#"{"client":0,"op":"x","key":"k","call":1}"#, "unknown variant `x`"),
            (r#"{"client":0,"op":"w","key":"k","call":1}"#, "needs a `value`"),
            (r#"{"client":0,"op":"w","key":"k","value":"v","call":1,"ret":2,"ok":true}"#, "`version` that it made"),
            (r#"{"client":0,"op":"r","key":"k","value":"v","call":1,"ret":2,"ok":true}"#, "both `value` and `version`"),
            (r#"{"client":0,"op":"r","key":"k","call":3,"ret":2,"ok":true}"#, "before its call"),
            (r#"{"client":0,"op":"cas","key":"k","value":"v","call":3}"#, "needs `if_version`"),
            (r#"{"client":0,"op":"r","key":"k","call":1,"ret":2,"version":1,"ok":false}"#, "no condition"),
        ];
        for (line, wanted) in cases {
            let file = format!("{}\n\n{line}\n", LINES.lines().next().expect("a first line"));
            let error = History::read(file.as_bytes()).expect_err(line).to_string();
            assert!(error.contains("line 3 of the history"), "{error}");
            assert!(error.contains(wanted), "{error} should say {wanted}");
        }
    }
}
