//! The open loop, against a server that does not answer for a while.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use star_bench::{Distribution, Options, Report, System, Target};

const STALL: Duration = Duration::from_millis(400);
const STALL_US: f64 = 400_000.0;

/// Answers each `SET` with `OK` as Redis does, after what `before` does with the number of commands so far.
fn server(mut before: impl FnMut(u64) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        answer(stream, &mut before);
    });
    addr
}

fn answer(mut stream: TcpStream, before: &mut impl FnMut(u64)) {
    stream.set_nodelay(true).expect("an option");
    let (mut buffer, mut commands) = ([0; 4096], 0);
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        // Each command begins with the one star in it.
        for _ in buffer[..read].iter().filter(|byte| **byte == b'*') {
            commands += 1;
            before(commands);
            if stream.write_all(b"+OK\r\n").is_err() {
                return;
            }
        }
    }
}

/// One that does not answer for once, when the load is a quarter of a second old.
fn stalling() -> SocketAddr {
    let (mut begin, mut stalled) = (None, false);
    server(move |_| {
        let begin = *begin.get_or_insert_with(Instant::now);
        if !stalled && begin.elapsed() > Duration::from_millis(250) {
            stalled = true;
            thread::sleep(STALL);
        }
    })
}

async fn load(addr: SocketAddr, rate: Option<f64>) -> Report {
    let options = Options {
        system: System::Redis { replicas: 0 },
        targets: vec![Target { addr: addr.to_string(), store: None }],
        leaders: Vec::new(),
        servers: 1,
        pids: Vec::new(),
        clients: 1,
        pipeline: 1,
        rate,
        seconds: 1.2,
        warm_up_seconds: 0.0,
        read_share: 0.0,
        keys: 10,
        distribution: Distribution::Uniform,
        value_bytes: 24,
        fill: false,
        record: true,
        seed: 1,
    };
    star_bench::run(options, |_| {}).await.expect("a load")
}

fn us(report: &Report, percent: f64) -> f64 {
    let found = report.write.percentiles.iter().find(|percentile| (percentile.percent - percent).abs() < 1e-9);
    found.expect("a percentile").us
}

#[tokio::test]
async fn an_open_loop_shows_what_a_stall_holds_up_and_a_closed_one_hides_it() {
    let closed = load(stalling(), None).await;
    let open = load(stalling(), Some(500.0)).await;
    assert!(us(&closed, 100.0) >= STALL_US && us(&open, 100.0) >= STALL_US, "both met it: {closed:?} {open:?}");
    // A third of the time, and so of what was due.
    assert!(us(&closed, 75.0) < STALL_US / 8.0, "all the others were quick: {closed:?}");
    assert!(us(&open, 75.0) > STALL_US / 8.0, "what was due meanwhile waited: {open:?}");
    let open_loop = open.open_loop.expect("a rate");
    let wanted = open.write.ops + open_loop.not_done;
    assert!(wanted.abs_diff(600) <= 1, "{wanted} operations of 500 a second for 1.2 s");
    assert_eq!(closed.open_loop, None);
}

#[tokio::test]
async fn a_history_counts_from_when_an_operation_was_sent() {
    let report = load(stalling(), Some(500.0)).await;
    let mut history = report.history;
    history.sort_by_key(|recorded| recorded.call_ns);
    // One at a time: each was sent after the one before had its answer, however long it had been due.
    for pair in history.windows(2) {
        assert!(pair[0].return_ns.expect("an answer") <= pair[1].call_ns, "{pair:?}");
    }
}

#[tokio::test]
async fn what_a_slow_server_leaves_undone_is_counted_and_has_waited() {
    let slow = server(|_| thread::sleep(Duration::from_millis(20)));
    let report = load(slow, Some(1000.0)).await;
    let open_loop = report.open_loop.expect("a rate");
    assert!(report.write.ops <= 61 && (report.write.ops + open_loop.not_done).abs_diff(1200) <= 1, "{report:?}");
    assert!(!open_loop.kept_up(report.write.ops));
    assert!(report.write.p50_us > 300_000.0, "half of what was due waited for long: {report:?}");
    assert_eq!(report.errors, 0, "nothing was refused");
}
