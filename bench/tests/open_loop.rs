//! The open loop, against servers that answer late, or not at all.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use star_bench::{Distribution, Options, Part, Report, System, Target};
use star_core::{Clock, Time};

/// How long a server does not answer: long beside what a busy machine does to a load.
const STALL: Duration = Duration::from_millis(300);
const STALL_US: f64 = 300_000.0;
/// When it begins, after the first request.
const STALL_AFTER: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Get,
    Set,
}

/// What a server answers that does as it is told.
fn right(request: Request) -> &'static [u8] {
    match request {
        Request::Get => b"$1\r\nx\r\n",
        Request::Set => b"+OK\r\n",
    }
}

/// Answers each request of every connection with what `answer` says, in the protocol of Redis.
fn server(answer: impl Fn(Request) -> &'static [u8] + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, answer) = (stream.expect("a connection"), Arc::clone(&answer));
            thread::spawn(move || serve(stream, &*answer));
        }
    });
    addr
}

fn serve(mut stream: TcpStream, answer: &impl Fn(Request) -> &'static [u8]) {
    stream.set_nodelay(true).expect("an option");
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        // A request begins with the number of its parts, and has no other star. The short ones of these loads come whole.
        for begin in buffer[..read].windows(2).filter(|bytes| bytes[0] == b'*') {
            let request = if begin[1] == b'2' { Request::Get } else { Request::Set };
            if stream.write_all(answer(request)).is_err() {
                return;
            }
        }
    }
}

/// Answers at once, except that for a while it answers nobody.
fn stalling() -> SocketAddr {
    let first = OnceLock::<Time>::new();
    server(move |request| {
        let now = Clock.now();
        let stall = *first.get_or_init(|| now) + STALL_AFTER;
        if now >= stall {
            sleep((stall + STALL).since(now));
        }
        right(request)
    })
}

#[allow(clippy::disallowed_methods, reason = "a thread of the test, which is to be slow")]
fn sleep(span: Duration) {
    thread::sleep(span);
}

fn options(addr: SocketAddr, rate: Option<f64>) -> Options {
    Options {
        system: System::Redis { replicas: 0 },
        targets: vec![Target { addr: addr.to_string(), store: None }],
        leaders: Vec::new(),
        servers: 1,
        pids: Vec::new(),
        clients: 4,
        pipeline: 1,
        rate,
        seconds: 1.5,
        warm_up_seconds: 0.1,
        read_share: 0.0,
        keys: 10,
        distribution: Distribution::Uniform,
        value_bytes: 24,
        fill: false,
        record: false,
        seed: 1,
    }
}

async fn run(options: Options) -> Report {
    star_bench::run(options, |_| {}).await.expect("a load")
}

fn us(part: &Part, percent: f64) -> f64 {
    let point = part.percentiles.iter().find(|point| (point.percent - percent).abs() < 1e-9);
    point.expect("a percentile").us
}

#[tokio::test]
async fn an_open_loop_shows_what_a_stall_held_up_and_a_closed_one_hides_it() {
    let closed = run(options(stalling(), None)).await.write;
    let report = run(options(stalling(), Some(1000.0))).await;
    let open = report.write;
    let most = [&closed, &open].map(|part| us(part, 100.0));
    assert!(most.iter().all(|us| *us > STALL_US * 0.9), "both met the stall: {closed:?} {open:?}");
    // It held up one operation of each client, of many; but a fifth of all that were due.
    assert!(us(&closed, 99.0) < STALL_US / 6.0, "the others were quick: {closed:?}");
    assert!(us(&open, 90.0) > STALL_US / 6.0, "what was due meanwhile waited as well: {open:?}");
    assert!(us(&open, 99.0) > STALL_US / 2.0, "{open:?}");
    let open_loop = report.open_loop.expect("a rate");
    assert_eq!((open_loop.wanted, open.ops + open_loop.not_done), (1500, 1500), "{open_loop:?}");
}

#[tokio::test]
async fn a_history_counts_from_when_an_operation_was_sent() {
    let one_client = Options { clients: 1, record: true, read_share: 0.5, ..options(stalling(), Some(500.0)) };
    let Report { read, write, mut history, .. } = run(one_client).await;
    assert!(read.ops > 0 && write.ops > 0 && history.len() as u64 >= read.ops + write.ops, "{read:?} {write:?}");
    history.sort_by_key(|recorded| recorded.call_ns);
    // One at a time: each was sent after the one before had its answer, however long it had been due.
    for pair in history.windows(2) {
        assert!(pair[0].return_ns.expect("an answer") <= pair[1].call_ns, "{pair:?}");
    }
}

#[tokio::test]
async fn what_had_no_room_is_not_done_and_has_waited() {
    let slow = server(|request| {
        sleep(Duration::from_millis(20));
        right(request)
    });
    let report = run(Options { clients: 2, warm_up_seconds: 1.0, ..options(slow, Some(1000.0)) }).await;
    let open_loop = report.open_loop.expect("a rate");
    assert_eq!((open_loop.wanted, open_loop.kept_up(report.write.ops), report.errors), (1500, false, 0));
    assert_eq!(report.write.ops + open_loop.not_done, 1500, "{report:?}");
    // At most 50 a second of each client: nothing that had to wait until the end is begun after it.
    assert!(report.write.ops <= 2 * 77, "{report:?}");
    // In that time it could not have done even what was due in the warm-up.
    assert!(report.write.ops > 30, "{report:?}");
    assert!(report.write.p50_us > 500_000.0, "half of what was due waited for long: {report:?}");
}

#[tokio::test]
async fn what_is_never_answered_is_not_done_and_has_waited() {
    let mute = server(|_| b"");
    let report = run(Options { seconds: 0.5, pipeline: 50, ..options(mute, Some(100.0)) }).await;
    let open_loop = report.open_loop.expect("a rate");
    assert_eq!((open_loop.wanted, open_loop.not_done, report.write.ops), (50, 50, 0));
    assert!(us(&report.write, 0.0) > 4_900_000.0, "for as long as the load did, 5 s after its end: {report:?}");
}

#[tokio::test]
async fn what_is_refused_is_not_done_and_has_no_latency() {
    let refusing = server(|_| b"-NO\r\n");
    let report = run(Options { seconds: 0.5, ..options(refusing, Some(100.0)) }).await;
    let open_loop = report.open_loop.expect("a rate");
    assert_eq!((open_loop.wanted, open_loop.not_done, report.write), (50, 50, Part::default()));
    assert_eq!(report.errors, 60, "those of the warm-up too");
}

#[tokio::test]
async fn a_load_ends_although_a_server_takes_nothing_in() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    let large = Options { seconds: 0.5, clients: 1, pipeline: 64, value_bytes: 1 << 20, ..options(addr, Some(200.0)) };
    let report = tokio::time::timeout(Duration::from_mins(1), run(large)).await.expect("an end");
    let open_loop = report.open_loop.expect("a rate");
    assert_eq!((open_loop.wanted, open_loop.not_done), (100, 100));
}

#[tokio::test]
async fn rates_that_make_no_sense_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1.1e7, 0.5] {
        let error = star_bench::run(options(addr, Some(rate)), |_| {}).await.expect_err("refused");
        assert!(error.to_string().contains("--rate"), "{rate}: {error}");
    }
}
