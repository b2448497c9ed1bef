//! What the door costs an awake server: nanoseconds a packet above an empty program, and throughput with and
//! without it.

use std::{path::PathBuf, sync::atomic::Ordering::SeqCst, time::Duration};

use anyhow::{Result, ensure};
use aya::programs::{TestRun, TestRunOptions};
use dormouse_abi::{
    node,
    server::{ServerKey, ServerRef},
};
use dormouse_daemon::door::{Door, monotonic_ns};
use dormouse_packet::{
    Game,
    headers::{ACK, SYN, TCP},
};
use dormouse_tests::{daemon::mount_bpffs, owner};

use crate::{
    report::{Figure, Goal},
    stats::median_of_rounds,
    throughput,
};

/// Packets an arm.
const REPEAT: u32 = 1_000_000;
/// BPF_PROG_TEST_RUN runs TC programs as if on `lo` (net/bpf/test_run.c).
const LOOPBACK: u64 = 1;
/// Somebody plays here: the flow is looked up once in a tick of the coarse clock, as in real life.
const PLAYED: (u32, u16) = (0, 7001);
/// Nobody plays here: a query's flow is looked up with every packet, as the first of each millisecond.
const QUERIED: (u32, u16) = (1, 25565);

/// A loaded door with pins of its own.
pub struct Stand {
    pub door: Door,
    dir: PathBuf,
}

impl Stand {
    pub fn new() -> Result<Self> {
        mount_bpffs()?;
        let dir = PathBuf::from("/sys/fs/bpf").join(owner::unique("fastpath"));
        let door = Door::load(&dir)?;
        door.configure(Duration::from_hours(1), Duration::from_hours(1), 0, 42);
        Ok(Self { door, dir })
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Measures.
pub fn run(quick: bool) -> Result<Vec<Figure>> {
    let mut figures = programs(if quick { 10 } else { 30 })?;
    figures.extend(throughput::run(if quick { 10 } else { 100 })?);
    Ok(figures)
}

fn programs(rounds: usize) -> Result<Vec<Figure>> {
    let mut stand = Stand::new()?;
    stand.door.program("empty")?.load()?;
    let arrays = stand.door.arrays();
    for ((slot, port), game) in [(PLAYED, Game::GenericTcp), (QUERIED, Game::MinecraftJava)] {
        arrays.reset(slot);
        let server = ServerRef { slot, game: game as u8, flags: 0, pad: [0; 2] };
        stand.door.watch(ServerKey::new(LOOPBACK, port, TCP), server)?;
    }
    let player = conversation(&mut stand, PLAYED.1, &[b'x'; 64])?;
    // Handshake for a status and the request (minecraft.wiki, Java Edition protocol).
    let query = conversation(&mut stand, QUERIED.1, b"\x0f\x00\xf2\x05\x09127.0.0.1\x63\xdd\x01\x01\x00")?;
    ensure!(arrays.state(PLAYED.0).last_player_ns.load(SeqCst) != 0, "the player is not taken for one");
    ensure!(arrays.state(QUERIED.0).last_player_ns.load(SeqCst) == 0, "the query is taken for a player");
    let mut one = |program: &str, frame: &[u8]| -> Result<f64> {
        // The daemon beats on; here nobody does.
        arrays.node(node::HEARTBEAT_NS).store(monotonic_ns(), SeqCst);
        let options = TestRunOptions { data_in: Some(frame), repeat: REPEAT, ..TestRunOptions::default() };
        Ok(stand.door.program(program)?.test_run(options)?.duration.as_nanos() as f64)
    };
    let (mut awake, mut looked_up) = (vec![], vec![]);
    for _ in 0..rounds {
        // A B C C B A: a drift within the round falls on all three alike.
        let mut arms = [0.0; 3];
        for arm in [0, 1, 2, 2, 1, 0] {
            arms[arm] += match arm {
                0 => one("empty", &player)?,
                1 => one("door", &player)?,
                _ => one("door", &query)?,
            } / 2.0;
        }
        awake.push(arms[1] - arms[0]);
        looked_up.push(arms[2] - arms[0]);
    }
    println!("ns above the empty program, by round: awake {awake:?}, with flow lookup {looked_up:?}");
    Ok(vec![
        Figure::new("ns_per_packet", median_of_rounds(&awake), Goal::AtMost(50.0)),
        Figure::new("ns_with_flow_lookup", median_of_rounds(&looked_up), Goal::Reported),
    ])
}

/// Lets the door see a handshake and the first payload; gives back the next segment.
fn conversation(stand: &mut Stand, port: u16, first: &[u8]) -> Result<Vec<u8>> {
    for frame in [segment(port, 99, SYN, &[]), segment(port, 100, ACK, &[]), segment(port, 100, ACK, first)] {
        let options = TestRunOptions { data_in: Some(&frame), repeat: 1, ..TestRunOptions::default() };
        stand.door.program("door")?.test_run(options)?;
    }
    Ok(segment(port, 100 + first.len() as u32, ACK, &[b'x'; 64]))
}

fn segment(port: u16, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend((40 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 1, 0, 0, 64, TCP, 0, 0, 192, 0, 2, 77, 10, 42, 0, 5]);
    frame.extend(40_000u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend(sequence.to_be_bytes());
    frame.extend(1u32.to_be_bytes());
    frame.extend([0x50, flags, 1, 0, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
}
