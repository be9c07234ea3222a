//! Random small histories for the tests of the checkers: taken from an atomic register, most of them then spoiled.

use std::borrow::Cow;

use star_core::ids::Version;

use super::{History, Op, Record};
use crate::random::Random;

/// A history of one key with up to eight operations of up to three clients, and a few values.
pub(crate) fn random_history(random: &mut Random) -> History {
    let mut records = atomic_run(random);
    for _ in 0..[0, 1, 2, 3][random.below(4) as usize] {
        spoil(random, &mut records);
    }
    let mut history = History::new();
    for record in &records {
        // What is spoiled so far that it is no history any more is left out.
        let _ = history.push(record);
    }
    history
}

/// Operations on a real register, each at a random moment between its call and its return.
fn atomic_run(random: &mut Random) -> Vec<Record<'static>> {
    let mut records = Vec::new();
    let mut object: Option<(String, u64)> = None;
    let (mut last, delete_makes_version) = (0, random.chance(500_000));
    let count = random.between(2, 8);
    for place in 0..count {
        let point = (place + 1) * 10;
        let op = [Op::Read, Op::Read, Op::Write, Op::Write, Op::CompareAndSet, Op::Delete][random.below(6) as usize];
        let found = object.as_ref().map_or(0, |(_, version)| *version);
        let value = format!("v{}", random.below(5));
        let mut record = Record {
            client: random.below(3) as u32,
            op,
            key: Cow::Borrowed("k"),
            value: None,
            version: None,
            if_version: None,
            call: point - random.between(0, 30).min(point),
            ret: Some(point + random.between(0, 30)),
            ok: true,
        };
        if op == Op::CompareAndSet || (op == Op::Delete && random.chance(300_000)) {
            let wanted = if random.chance(600_000) { found } else { random.below(last + 2) };
            record.if_version = Some(Version(wanted));
        }
        let holds = record.if_version.is_none_or(|wanted| wanted.0 == found);
        match op {
            Op::Read => {
                record.value = object.as_ref().map(|(value, _)| Cow::Owned(value.clone()));
                record.version = object.as_ref().map(|(_, version)| Version(*version));
            }
            _ if !holds => {
                record.ok = false;
                record.version = Some(Version(found));
            }
            Op::Write | Op::CompareAndSet => {
                last += random.between(1, 2);
                object = Some((value.clone(), last));
                record.version = Some(Version(last));
            }
            Op::Delete if object.is_some() => {
                last += u64::from(delete_makes_version);
                object = None;
                record.version = Some(Version(last));
            }
            Op::Delete => {}
        }
        if matches!(op, Op::Write | Op::CompareAndSet) {
            record.value = Some(Cow::Owned(value));
        }
        if random.chance(200_000) {
            record.ret = None;
        }
        records.push(record);
    }
    records
}

/// Changes one thing of one operation.
fn spoil(random: &mut Random, records: &mut [Record<'static>]) {
    let place = random.below(records.len() as u64) as usize;
    let record = &mut records[place];
    match random.below(7) {
        0 => record.version = record.version.map(|version| Version(version.0 + 1)),
        1 => record.version = record.version.map(|version| Version(version.0.saturating_sub(1))),
        2 => record.value = record.value.as_ref().map(|_| Cow::Owned(format!("v{}", random.below(5)))),
        3 => record.ret = record.ret.map(|ret| record.call + (ret - record.call) / 2),
        4 => record.call += record.ret.map_or(5, |ret| (ret - record.call) / 2),
        5 if record.op == Op::Read || record.op == Op::Delete => {
            record.version = None;
            record.value = None;
        }
        5 => record.if_version = record.if_version.map(|version| Version(version.0 + 1)),
        _ => {
            let gap = random.between(10, 60);
            record.call += gap;
            record.ret = record.ret.map(|ret| ret + gap);
        }
    }
}
