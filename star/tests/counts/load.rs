//! What is counted: the same few operations, many times, each kind in a function that is named after it.

use bytes::{Bytes, BytesMut};
use star_core::{
    ClientId, Key, RequestId,
    message::{
        Asked, Condition, Request, RequestBody, ResponseBody,
        frame::{self, Decoder, Frame, FrameKind},
        json,
    },
    store::Encoding,
};
use star_objstore::{Answer, Reader};

use crate::cluster::Cluster;

/// How often each operation is done while it is counted.
pub(crate) const OPERATIONS: u64 = 1024;
/// How many are under way at a time, where it says "many".
pub(crate) const MANY: u64 = 64;
const KEYS: u64 = 256;
const VALUE: [u8; 100] = [b'x'; 100];
const CLIENT: ClientId = ClientId { born: 1, draw: 1 };

/// Clients' frames, numbered through.
#[derive(Debug, Default)]
struct Client {
    last: u64,
}

impl Client {
    fn set(&mut self, under_way: u64) -> Request {
        self.last += 1;
        let request_id = RequestId::Counted { client: CLIENT, number: self.last, behind: self.last.min(under_way) - 1 };
        let (encoding, condition) = (Encoding::Raw, Condition::Always);
        let body = RequestBody::Set { key: key(self.last), encoding, condition, request_id };
        Request { body, value: Bytes::from_static(&VALUE) }
    }

    fn sets(&mut self, count: u64) -> Vec<u8> {
        let mut frames = Vec::new();
        for place in 1..=count {
            let request = self.set(place);
            frame::encode(FrameKind::Request, self.last, &request, &request.value, &mut frames);
        }
        frames
    }

    fn gets(&mut self, count: u64) -> Vec<u8> {
        let mut frames = Vec::new();
        for _ in 0..count {
            self.last += 1;
            let request = Request::from(RequestBody::Get { key: key(self.last) });
            frame::encode(FrameKind::Request, self.last, &request, &[], &mut frames);
        }
        frames
    }
}

fn key(number: u64) -> Key {
    Key::new(format!("key-{:08}", number % KEYS))
}

/// Does everything once through; panics where an answer is not what it must be. Returns the bytes that each server wrote
/// to others for the writes: those one at a time, then those of which many were under way.
pub(crate) fn run() -> [[usize; 3]; 2] {
    let mut cluster = Cluster::start();
    let mut client = Client::default();
    // Every key has an object, and every table its size, before anything is counted.
    for _ in 0..2 * KEYS / MANY {
        write(&mut cluster, &client.sets(MANY), MANY);
    }
    let mut sent = [[0; 3]; 2];
    for (sent, (batch, set)) in
        sent.iter_mut().zip([(1, sets_one_at_a_time as fn(&mut Cluster, &[Vec<u8>], u64)), (MANY, sets_many_at_a_time)])
    {
        let batches: Vec<Vec<u8>> = (0..OPERATIONS / batch).map(|_| client.sets(batch)).collect();
        let before: [usize; 3] = std::array::from_fn(|server| cluster.sent_bytes(server));
        set(&mut cluster, &batches, batch);
        *sent = std::array::from_fn(|server| cluster.sent_bytes(server) - before[server]);
    }
    let batches: Vec<Vec<u8>> = (0..OPERATIONS / MANY).map(|_| client.gets(MANY)).collect();
    gets_many_at_a_time(&mut cluster, &batches);
    let names: Vec<Key> = (0..OPERATIONS).map(key).collect();
    mapped_reads(&cluster.reader(), &names);
    let texts: Vec<Vec<u8>> = (0..OPERATIONS).map(json_text).collect();
    json_requests(&texts);
    sent
}

fn write(cluster: &mut Cluster, frames: &[u8], count: u64) {
    assert_eq!(cluster.ask(frames, |body| matches!(body, ResponseBody::Written { .. })), count as usize);
}

#[inline(never)]
fn sets_one_at_a_time(cluster: &mut Cluster, batches: &[Vec<u8>], count: u64) {
    batches.iter().for_each(|frames| write(cluster, frames, count));
}

#[inline(never)]
fn sets_many_at_a_time(cluster: &mut Cluster, batches: &[Vec<u8>], count: u64) {
    batches.iter().for_each(|frames| write(cluster, frames, count));
    std::hint::black_box(MANY);
}

#[inline(never)]
fn gets_many_at_a_time(cluster: &mut Cluster, batches: &[Vec<u8>]) {
    for frames in batches {
        assert_eq!(cluster.ask(frames, |body| matches!(body, ResponseBody::Value { .. })), MANY as usize);
    }
}

#[inline(never)]
fn mapped_reads(reader: &Reader, names: &[Key]) {
    let mut value = Vec::new();
    for name in names {
        assert!(matches!(reader.get(name, &mut value), Answer::Found { .. }) && value == VALUE);
    }
}

fn json_text(number: u64) -> Vec<u8> {
    let text = format!(r#"{{"type":"SET","key":"{}","value":"hello","request_id":"me-{number}"}}"#, key(number));
    [&(text.len() as u64).to_be_bytes(), text.as_bytes()].concat()
}

#[inline(never)]
fn json_requests(texts: &[Vec<u8>]) {
    let (mut decoder, mut bytes) = (Decoder::new(1 << 20), BytesMut::new());
    let mut answer = Vec::new();
    for text in texts {
        bytes.extend_from_slice(text);
        let Ok(Some(Frame::Json(text))) = decoder.decode(&mut bytes) else { panic!("a whole message") };
        assert!(matches!(json::asked(&text), Ok(Asked::Request(_))));
        answer.clear();
        json::response(&ResponseBody::Written { version: star_core::Version(number_of(&text)) }, &[], &mut answer);
        assert!(!answer.is_empty());
    }
}

fn number_of(text: &[u8]) -> u64 {
    text.len() as u64
}
