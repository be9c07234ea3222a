//! Values that processes of a server's machine write in place: create, seal, abort.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use star::{BlockingClient, CasOutcome, ClientError, ObjectRef, Options, Room, StarClient, StarCluster};
use star_core::{
    Clock, ErrorCode, Key, RequestId, Version,
    message::{Capacity, Condition, Local, Response, ResponseBody, Wire, frame::FrameKind},
    network::{ClientOptions, TcpClient},
    store::Encoding,
};
use star_objstore::Claim;

/// Long after anything here should have happened, on whatever machine.
const LATE: Duration = Duration::from_mins(2);
const LARGE: usize = 16 << 20;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn patient() -> Options {
    let network = ClientOptions { request_timeout: LATE, ..ClientOptions::default() };
    Options { network, give_up_after: LATE, ..Options::default() }
}

async fn client(addrs: &[String], options: Options) -> StarClient {
    StarClient::connect(addrs, options).await.expect("the cluster answers")
}

fn addrs(cluster: &StarCluster) -> Vec<String> {
    cluster.servers().map(|server| server.addr().to_owned()).collect()
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

async fn create(client: &StarClient, key: &str, bytes: usize) -> Room {
    let room = client.create(key, bytes).await.expect("there is room");
    assert!(room.is_in_place() && room.len() == bytes);
    room
}

/// Waits until a server's store is as it was: what producers let go of comes back a moment later.
async fn settles(client: &StarClient, wanted: Capacity) {
    let end = Clock.now() + LATE;
    loop {
        let found = client.capacity().await.expect("an answer");
        let found = Capacity { largest_free_bytes: wanted.largest_free_bytes, ..found };
        if found == wanted {
            return;
        }
        assert!(Clock.now() < end, "{found:?} is not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Not a test by itself: a process that reads an object in place, or that begins to write one until it is killed.
#[test]
fn other_process() {
    let (Ok(task), Ok(addrs)) = (std::env::var("STAR_TEST_TASK"), std::env::var("STAR_TEST_ADDRS")) else { return };
    let addrs: Vec<String> = addrs.split(',').map(str::to_owned).collect();
    block_on(async {
        let client = client(&addrs, patient()).await;
        if task == "read" {
            let end = Clock.now() + LATE;
            loop {
                let object = client.get_ref("large").await.expect("a read").expect("an object");
                assert!(*object == pattern(LARGE), "the bytes are what was written");
                // It is a copy while the store's server has no lease, as on a machine that is busy.
                if matches!(object, ObjectRef::InPlace(_)) {
                    return eprintln!("read in place");
                }
                assert!(Clock.now() < end, "the mapped store does not answer");
            }
        }
        let mut room = create(&client, "never", 3 << 20).await;
        eprintln!("writing");
        for round in 0_u8.. {
            room.fill(round % 251);
        }
    });
}

fn spawn(task: &str, cluster: &StarCluster) -> Child {
    Command::new(std::env::current_exe().expect("a name"))
        .args(["other_process", "--exact", "--nocapture"])
        .envs([("STAR_TEST_TASK", task.to_owned()), ("STAR_TEST_ADDRS", addrs(cluster).join(","))])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process")
}

fn wait_for(child: &mut Child, word: &str) {
    let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let mut said = Vec::new();
    for line in lines.map_while(Result::ok) {
        if line == word {
            return;
        }
        said.push(line);
    }
    panic!("the process did not say {word:?}: {said:?}");
}

#[test]
fn a_large_object_written_in_place_is_read_everywhere() {
    block_on(async {
        let cluster = StarCluster::start_local(3).await.expect("the cluster starts");
        let client = client(&addrs(&cluster), patient()).await;
        let mut room = create(&client, "large", LARGE).await;
        room.copy_from_slice(&pattern(LARGE));
        assert!(!client.contains("large").await.expect("an answer"));
        assert_eq!(room.seal().await.expect("it is sealed"), Version(1));
        assert!(client.contains("large").await.expect("an answer"));
        for server in cluster.servers() {
            let one = Options { give_up_after: LATE, ..Options::one_server() };
            let one = StarClient::connect(&[server.addr().to_owned()], one).await.expect("the server answers");
            let object = one.get("large").await.expect("a read").expect("an object");
            assert!(object.version == Version(1) && object.value == pattern(LARGE), "at {}", server.name());
        }
        let mut reader = spawn("read", &cluster);
        wait_for(&mut reader, "read in place");
        assert!(reader.wait().expect("it ends").success());
    });
}

#[test]
fn sealing_is_a_write_like_others() {
    block_on(async {
        let cluster = StarCluster::start_local(3).await.expect("the cluster starts");
        let client = client(&addrs(&cluster), patient()).await;
        for (number, in_place) in [(1_u64, true), (3, false)] {
            let bytes = if in_place { 100_000 } else { 100 };
            let mut room = client.create("k", bytes).await.expect("there is room");
            assert_eq!(room.is_in_place(), in_place, "what is small is sent");
            room.fill(number as u8);
            let absent = room.seal_if(Condition::IfVersion(Version(number - 1))).await.expect("an answer");
            assert_eq!(absent, CasOutcome::Written(Version(number)));
            let mut room = client.create("k", bytes).await.expect("there is room");
            room.fill(99);
            let refused = room.seal_if(Condition::IfAbsent).await.expect("an answer");
            assert_eq!(refused, CasOutcome::Conflict(Version(number)));
            assert_eq!(client.set("k", "between").await.expect("a write"), Version(number + 1));
        }
        let tcp = Options { transport: star::Transport::Tcp, ..patient() };
        let far = self::client(&addrs(&cluster), tcp).await;
        let mut room = far.create("far", LARGE).await.expect("a buffer");
        assert!(!room.is_in_place(), "without a mapped store it is a buffer");
        room.fill(5);
        room.seal().await.expect("it is sealed");
        assert!(client.get("far").await.expect("a read").expect("an object").value == vec![5; LARGE]);
    });
}

#[test]
fn what_is_not_sealed_comes_back() {
    block_on(async {
        let cluster = StarCluster::start_local(1).await.expect("the cluster starts");
        let client = client(&addrs(&cluster), patient()).await;
        let empty = client.capacity().await.expect("an answer");
        assert_eq!((empty.objects, empty.used_bytes, empty.room_bytes), (0, 0, 0));
        let room = create(&client, "k", LARGE).await;
        let used = client.capacity().await.expect("an answer");
        assert!(used.room_bytes >= LARGE as u64 && used.used_bytes >= LARGE as u64, "{used:?}");
        room.abort().await.expect("an answer");
        settles(&client, empty).await;
        drop(create(&client, "k", LARGE).await);
        settles(&client, empty).await;
        for _ in 0..20 {
            let mut producer = spawn("write", &cluster);
            wait_for(&mut producer, "writing");
            assert!(client.capacity().await.expect("an answer").room_bytes > 3 << 20);
            producer.kill().expect("it lives");
            producer.wait().expect("it ends");
        }
        settles(&client, empty).await;
        assert_eq!(client.get("never").await.expect("a read"), None);
    });
}

/// The server whose store the room is in ends: the write goes another way, with the bytes from the room.
#[test]
fn a_seal_goes_on_where_the_servers_are() {
    block_on(async {
        let mut cluster = StarCluster::start_local(3).await.expect("the cluster starts");
        let client = client(&addrs(&cluster), patient()).await;
        let mut room = create(&client, "k", 1 << 20).await;
        room.fill(7);
        let mut with_rooms = Vec::new();
        for server in cluster.servers() {
            let one = self::client(&[server.addr().to_owned()], Options { only_given: true, ..patient() }).await;
            if one.capacity().await.expect("an answer").room_bytes > 0 {
                with_rooms.push(server.name().to_owned());
            }
        }
        let [name] = with_rooms.as_slice() else { panic!("one server has the room: {with_rooms:?}") };
        assert!(cluster.stop_server(name));
        assert_eq!(room.seal().await.expect("it is sealed"), Version(1));
        let object = client.get("k").await.expect("a read").expect("an object");
        assert!(object.version == Version(1) && object.value == vec![7; 1 << 20]);
    });
}

async fn ask(client: &TcpClient, question: &Local) -> ResponseBody {
    let mut header = Vec::new();
    question.encode_header(&mut header);
    let answer = client.exchange_within(FrameKind::Local, &header, Bytes::new(), LATE).await;
    let (kind, header, tail) = answer.expect("an answer");
    assert_eq!(kind, FrameKind::Response);
    Response::decode(&header, tail).expect("a response").body
}

fn code(body: &ResponseBody) -> ErrorCode {
    let ResponseBody::Error(failure) = body else { panic!("{body:?} is no refusal") };
    failure.code
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    block_on(async {
        let cluster = StarCluster::start_local(1).await.expect("the cluster starts");
        let client = client(&addrs(&cluster), patient()).await;
        let refused = |result: Result<Room, ClientError>| match result {
            Err(ClientError::Refused(failure)) => failure.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(client.create("k", 65 << 20).await), ErrorCode::TooLarge);
        assert_eq!(refused(client.create(&"k".repeat(2000), 1 << 20).await), ErrorCode::TooLarge);
        assert_eq!(refused(client.create("", 1 << 20).await), ErrorCode::BadRequest);
        let mut rooms = Vec::new();
        // Open rooms take half of the 512 MiB at most.
        let full = loop {
            match client.create("k", 60 << 20).await {
                Ok(room) => rooms.push(room),
                Err(error) => break refused(Err(error)),
            }
        };
        assert!(full == ErrorCode::NoSpace && full.retry() && rooms.len() == 4, "{full}, {}", rooms.len());
        rooms.clear();

        let server = TcpClient::new(addrs(&cluster)[0].clone(), ClientOptions::default());
        let path = store_path(&client).await;
        let claim = Claim::take(&path).expect("a lock");
        let key = Key::new("k");
        let create = |value_bytes, lock| Local::Create { key: key.clone(), encoding: Encoding::Raw, value_bytes, lock };
        let seal = |room| Local::Seal { room, condition: Condition::Always, request_id: RequestId::Unnamed };
        assert_eq!(code(&ask(&server, &create(100, claim.lock())).await), ErrorCode::BadRequest);
        assert_eq!(code(&ask(&server, &create(100_000, 255)).await), ErrorCode::NotServing);
        assert_eq!(code(&ask(&server, &seal(1)).await), ErrorCode::BadRequest);
        assert_eq!(code(&ask(&server, &Local::Abort { room: 1 }).await), ErrorCode::BadRequest);
        let ResponseBody::Room(place) = ask(&server, &create(100_000, claim.lock())).await else { panic!("no room") };
        let room = claim.enter(&place, 100_000).expect("a room");
        let sealed = ask(&server, &seal(place.room)).await;
        assert!(matches!(sealed, ResponseBody::Written { version: Version(1) }), "{sealed:?}");
        for again in [seal(place.room), Local::Abort { room: place.room }] {
            let answer = ask(&server, &again).await;
            assert!(code(&answer) == ErrorCode::BadRequest && format!("{answer:?}").contains("sealed before"));
        }
        drop(room);
        let (kind, header, _) =
            server.exchange_within(FrameKind::Local, &[0xff; 40], Bytes::from_static(b"garbage"), LATE).await.unwrap();
        assert_eq!(kind, FrameKind::Response);
        assert_eq!(code(&Response::decode(&header, Bytes::new()).unwrap().body), ErrorCode::BadRequest);
        assert!(client.get("k").await.expect("the server lives").is_some());
    });
}

/// Where the first server keeps its store, as its status says.
async fn store_path(client: &StarClient) -> String {
    let (_, status) = client.status().await.remove(0);
    let status: serde_json::Value = serde_json::from_str(&status.expect("a status")).expect("JSON");
    status["cluster"]["servers"][0]["store"].as_str().expect("a path").to_owned()
}

const WIRE: &str = include_str!("../../DESIGN/wire.md");

/// The program of `DESIGN/wire.md` that writes in place, in a language that has none of our code.
#[test]
fn any_language_can_write_in_place() {
    block_on(async {
        let cluster = StarCluster::start_local(1).await.expect("the cluster starts");
        let client = client(&addrs(&cluster), patient()).await;
        let addr = addrs(&cluster).remove(0);
        let port = addr.rsplit(':').next().expect("a port");
        let programs = WIRE.split("```python\n").skip(1).filter_map(|rest| rest.split("```").next());
        let program = programs.filter(|program| program.contains("CREATE")).collect::<String>().replace("7000", port);
        let output = Command::new("python3").args(["-c", &program]).output().expect("this test needs python3");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "{'status': 'OK', 'version': 1}\n");
        let object = client.get("tensor").await.expect("a read").expect("an object");
        assert!(object.value == vec![b'x'; 1 << 20]);
        let end = Clock.now() + LATE;
        while client.capacity().await.expect("an answer").room_bytes > 0 {
            assert!(Clock.now() < end, "the room is not given back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

/// The same calls for programs without an async runtime.
#[test]
fn a_blocking_client_writes_in_place() {
    let cluster = block_on(StarCluster::start_local(1)).expect("the cluster starts");
    let client = BlockingClient::connect(&addrs(&cluster), patient()).expect("the cluster answers");
    let fill = |key| {
        let mut room = client.create(key, LARGE).expect("there is room");
        assert!(room.is_in_place());
        room.copy_from_slice(&pattern(LARGE));
        room
    };
    assert_eq!(client.seal(fill("sealed")).expect("an answer"), Version(1));
    let again = client.seal_if(fill("sealed"), Condition::IfAbsent).expect("an answer");
    assert_eq!(again, CasOutcome::Conflict(Version(1)));
    client.abort(fill("aborted")).expect("an answer");
    assert!(client.contains("sealed").expect("an answer") && !client.contains("aborted").expect("an answer"));
    assert!(*client.get_ref("sealed").expect("a read").expect("an object") == *pattern(LARGE));
    assert!(client.capacity().expect("an answer").capacity_bytes > LARGE as u64);
}
