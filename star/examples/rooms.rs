//! Prints what storing a large value costs a process of a server's machine, by `set` and by `create` and `seal`:
//! `cargo run --release -p star-replication --example rooms [MiB] [servers]`.
//!
//! Three servers, unless another number is given, and the client in this process, all on this machine's processors. Both
//! begin with bytes that lie elsewhere, as those of a file do: `set` copies them into its value, the other into the room.
//! They take turns in one run.

use std::{env, error::Error, time::Duration};

use bytes::Bytes;
use star::{StarClient, StarCluster};
use star_core::Clock;

const TURNS: usize = 31;

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

async fn in_place(client: &StarClient, source: &[u8]) -> Result<(Duration, Duration), Box<dyn Error>> {
    let begin = Clock.now();
    let mut room = client.create("in place", source.len()).await?;
    if !room.is_in_place() {
        return Err("no mapped store can be written here".into());
    }
    room.copy_from_slice(source);
    let written = Clock.now();
    room.seal().await?;
    Ok((Clock.now().since(begin), Clock.now().since(written)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mebibytes: usize = env::args().nth(1).map_or(Ok(16), |word| word.parse())?;
    let servers: usize = env::args().nth(2).map_or(Ok(3), |word| word.parse())?;
    let source: Vec<u8> = (0..mebibytes << 20).map(|i| (i / 7) as u8).collect();
    let cluster = StarCluster::start_local(servers).await?;
    let client = cluster.connect().await?;
    let (mut sets, mut seals, mut only_seals) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let begin = Clock.now();
        client.set("sent", Bytes::copy_from_slice(&source)).await?;
        sets.push(Clock.now().since(begin));
        let (whole, seal) = in_place(&client, &source).await?;
        seals.push(whole);
        only_seals.push(seal);
    }
    let (set, whole, seal) = (median(&mut sets), median(&mut seals), median(&mut only_seals));
    println!(
        "{servers} servers, {mebibytes} MiB, median of {TURNS}, in ms: set {set:.2}, create + write + seal {whole:.2}, seal {seal:.2}"
    );
    println!("set takes {:.2} times as long", set / whole);
    Ok(())
}
