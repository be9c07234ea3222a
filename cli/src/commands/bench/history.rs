//! The recorded history of a benchmark: what the keys held before, and every operation of the load.

use std::{borrow::Cow, fs::File, io::BufWriter, path::Path};

use bytes::Bytes;
use star::{StarClient, Transport};
use star_bench::{Operation, Options, Recorded};
use star_core::Version;
use star_sim::history::{Op, Record, write_record};

use crate::error::CliError;

/// The most writes in one request, and the most bytes of all their values.
const BATCH_KEYS: u64 = 256;
const BATCH_BYTES: u64 = 1 << 20;
/// The load begins this long after the writes before it, in nanoseconds.
const LOAD_BEGINS_NS: u64 = 2;
/// The value that every key has before the load.
const INITIAL: u8 = b'.';

/// Writes every key once, so that all that can be read stands in the history; returns the keys' versions.
pub(super) async fn fill(options: &Options) -> Result<Vec<Recorded>, CliError> {
    let addrs: Vec<String> = options.targets.iter().map(|target| target.addr.clone()).collect();
    let only_given = star::Options { transport: Transport::Tcp, only_given: true, ..star::Options::default() };
    let client = StarClient::connect(&addrs, only_given).await?;
    let value = Bytes::from(vec![INITIAL; options.value_bytes]);
    let text = String::from_utf8_lossy(&value).into_owned();
    let mut initial = Vec::with_capacity(options.keys as usize);
    let write = |key: u64, version: Option<Version>| Recorded {
        client: options.clients as u32,
        key,
        operation: Operation::Write(text.clone()),
        version: version.map(|version| version.0),
        call_ns: 0,
        return_ns: Some(LOAD_BEGINS_NS - 1),
        ok: true,
    };
    let batch = (BATCH_BYTES / value.len().max(1) as u64).clamp(1, BATCH_KEYS);
    for first in (0..options.keys).step_by(batch as usize) {
        let numbers = first..(first + batch).min(options.keys);
        let keys: Vec<String> = numbers.clone().map(|key| write(key, None).key_text()).collect();
        let objects: Vec<_> = keys.iter().map(|key| (key.as_str(), value.clone())).collect();
        let versions = client.set_many(&objects).await?;
        initial.extend(numbers.zip(versions).map(|(key, version)| write(key, Some(version))));
    }
    Ok(initial)
}

/// Writes the history, a JSON line for each operation.
pub(super) fn write(path: &Path, initial: &[Recorded], load: &[Recorded]) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::from(error).context(format!("cannot write {}", path.display()));
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    for operation in initial {
        write_record(&record(operation, 0), &mut out).map_err(failed)?;
    }
    for operation in load {
        write_record(&record(operation, LOAD_BEGINS_NS), &mut out).map_err(failed)?;
    }
    out.into_inner().map_err(|error| failed(error.into_error()))?;
    Ok(())
}

fn record(recorded: &Recorded, shift_ns: u64) -> Record<'_> {
    let (op, value) = match &recorded.operation {
        Operation::Write(value) => (Op::Write, Some(value)),
        Operation::Read(value) => (Op::Read, value.as_ref()),
    };
    Record {
        client: recorded.client,
        op,
        key: Cow::Owned(recorded.key_text()),
        value: value.map(|value| Cow::Borrowed(value.as_str())),
        version: recorded.version.filter(|_| recorded.ok).map(Version),
        if_version: None,
        call: recorded.call_ns + shift_ns,
        ret: recorded.return_ns.map(|ns| ns + shift_ns),
        ok: recorded.ok,
    }
}
