//! Packet in, verdict out, through BPF_PROG_TEST_RUN: the programs as the kernel runs them.

mod shapes;
mod streams;

use std::{
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use aya::programs::{TestRun, TestRunOptions};
use dormouse_abi::{
    gate::{self, DRAINING, OPEN, PARK, SIGNAL},
    node,
    server::{ServerKey, ServerRef, server_flag},
};
use dormouse_daemon::door::{Arrays, Door, Record, RecordReader, TcHook, monotonic_ns};
use dormouse_packet::{Class, Game};

/// BPF_PROG_TEST_RUN runs TC programs as if received on `lo`.
const LOOPBACK: u64 = 1;
const PASS: u32 = u32::MAX; // TC_ACT_UNSPEC
const REDIRECT: u32 = 7;
const STOLEN: u32 = 4;
const SLOT: u32 = 3;

struct Bench {
    door: Door,
    reader: RecordReader,
    arrays: Arc<Arrays>,
    dir: PathBuf,
}

impl Bench {
    fn new(name: &str, hook: TcHook) -> Self {
        let dir = PathBuf::from(format!("/sys/fs/bpf/dormouse-test-{name}-{}", std::process::id()));
        let mut door = Door::load_with(&dir, hook).unwrap_or_else(|error| panic!("{error}"));
        let reader = door.take_reader().unwrap();
        door.configure(Duration::from_hours(1), Duration::from_hours(1), 0, 42);
        let arrays = door.arrays();
        arrays.reset(SLOT);
        Self { door, reader, arrays, dir }
    }

    fn watch(&mut self, port: u16, protocol: u8, game: Game, flags: u8) {
        let server = ServerRef { slot: SLOT, game: game as u8, flags, pad: [0; 2] };
        self.door.watch(ServerKey::new(LOOPBACK, port, protocol), server).unwrap();
    }

    fn run(&mut self, frame: &[u8]) -> u32 {
        let options = TestRunOptions { data_in: Some(frame), repeat: 1, ..TestRunOptions::default() };
        self.door.program("door").unwrap().test_run(options).unwrap().return_value
    }

    /// As the kernel hands over a burst that it will cut into segments later.
    fn run_burst(&mut self, frame: &[u8], segments: u32, size: u32) -> u32 {
        // `struct __sk_buff` of include/uapi/linux/bpf.h.
        const LEN: usize = 192;
        const SEGMENTS: usize = 164;
        const SIZE: usize = 176;
        let mut context = [0; LEN];
        context[SEGMENTS..SEGMENTS + 4].copy_from_slice(&segments.to_ne_bytes());
        context[SIZE..SIZE + 4].copy_from_slice(&size.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat: 1,
            ..TestRunOptions::default()
        };
        self.door.program("door").unwrap().test_run(options).unwrap().return_value
    }

    fn woken_by(&self) -> Option<Class> {
        self.arrays.state(SLOT).take_wake().map(|(_, class)| Class::from_number(class))
    }

    fn in_flight(&self) -> u32 {
        gate::in_flight(self.arrays.gate(SLOT))
    }

    fn player_seen(&self) -> bool {
        self.arrays.state(SLOT).last_player_ns.load(SeqCst) != 0
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn ipv4(protocol: u8, rest: &[u8]) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    f.extend((20 + rest.len() as u16).to_be_bytes());
    f.extend([0, 1, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 77, 10, 42, 0, 5]);
    f.extend(rest);
    f
}

fn udp(source: u16, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut u = Vec::new();
    u.extend(source.to_be_bytes());
    u.extend(port.to_be_bytes());
    u.extend((8 + payload.len() as u16).to_be_bytes());
    u.extend([0, 0]);
    u.extend(payload);
    ipv4(17, &u)
}

fn tcp(source: u16, port: u16, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut t = Vec::new();
    t.extend(source.to_be_bytes());
    t.extend(port.to_be_bytes());
    t.extend(sequence.to_be_bytes());
    t.extend(1u32.to_be_bytes());
    t.extend([0x50, flags, 1, 0, 0, 0, 0, 0]);
    t.extend(payload);
    ipv4(6, &t)
}

const SYN: u8 = 2;
const ACK: u8 = 16;

#[test]
fn a_stranger_passes_untouched() {
    let mut b = Bench::new("stranger", TcHook::Tcx);
    assert_eq!(b.run(&udp(1000, 4000, b"hello")), PASS);
    assert_eq!(b.door.counters(SLOT).unwrap().packets, 0);
}

#[test]
fn awake_passes_and_notes_the_player() {
    let mut b = Bench::new("awake", TcHook::Tcx);
    b.watch(30000, 17, Game::GenericUdp, 0);
    assert_eq!(b.run(&udp(1000, 30000, b"hello")), PASS);
    assert!(!b.player_seen(), "one datagram of a spoofable protocol is no player");
    assert_eq!(b.run(&udp(1000, 30000, b"hello")), PASS);
    assert!(b.player_seen());
    assert_eq!(b.door.counters(SLOT).unwrap().packets, 2);
    assert!(b.reader.next().is_none());
}

#[test]
fn a_bare_syn_is_nobody_and_payload_is_a_player() {
    let mut b = Bench::new("syn", TcHook::Tcx);
    b.watch(7001, 6, Game::GenericTcp, 0);
    assert_eq!(b.run(&tcp(1000, 7001, 99, SYN, b"")), PASS);
    assert_eq!(b.run(&tcp(1000, 7001, 100, ACK, b"")), PASS);
    assert!(!b.player_seen());
    assert_eq!(b.run(&tcp(1000, 7001, 100, ACK, b"x")), PASS);
    assert!(b.player_seen());
}

#[test]
fn mid_stream_bytes_are_never_judged() {
    let mut b = Bench::new("midstream", TcHook::Tcx);
    b.watch(7001, 6, Game::GenericTcp, 0);
    assert_eq!(b.run(&tcp(1000, 7001, 100, ACK, b"x")), PASS);
    assert!(!b.player_seen());
}

#[test]
fn asleep_parks_the_player_whole_and_counts_it_in_flight() {
    for (hook, consumed) in [(TcHook::Tcx, REDIRECT), (TcHook::Clsact, STOLEN)] {
        let mut b = Bench::new(&format!("park{consumed}"), hook);
        b.watch(30000, 17, Game::GenericUdp, 0);
        b.arrays.set_gate(SLOT, PARK);
        let frame = udp(1000, 30000, &[7; 1400]);
        assert_eq!(b.run(&frame), consumed);
        assert!(b.arrays.state(SLOT).take_wake().is_none(), "one datagram is nobody");
        assert_eq!(b.run(&frame), consumed);
        assert_eq!(gate::in_flight(b.arrays.gate(SLOT)), 2);
        assert!(b.arrays.state(SLOT).take_wake().is_some_and(|(_, class)| class == Class::Player as u8));
        for class in [Class::Undecided, Class::Player] {
            let Some(Record::Parked(parked)) = b.reader.next() else { panic!("no record") };
            assert_eq!((parked.knock.class, &parked.frame), (class, &frame));
            assert_eq!(parked.knock.from.to_string(), "192.0.2.77:1000");
            b.arrays.end_record(SLOT);
        }
        assert_eq!(b.arrays.state(SLOT).parked_bytes.load(SeqCst), 0, "the quota is given back");
        assert!(!b.arrays.open_if_drained(SLOT), "only a draining gate opens");
        b.arrays.set_gate(SLOT, DRAINING);
        assert!(b.arrays.open_if_drained(SLOT));
        assert_eq!(b.run(&frame), PASS);
    }
}

#[test]
fn asleep_a_tcp_player_passes_and_wakes_unless_something_is_held() {
    let mut b = Bench::new("tcpplayer", TcHook::Tcx);
    b.watch(7001, 6, Game::GenericTcp, 0);
    b.watch(30000, 17, Game::GenericUdp, 0);
    b.arrays.set_gate(SLOT, PARK);
    assert_eq!(b.run(&tcp(1000, 7001, 99, SYN, b"")), PASS);
    assert_eq!(b.run(&tcp(1000, 7001, 100, ACK, b"")), PASS);
    assert_eq!(b.run(&tcp(1000, 7001, 100, ACK, b"x")), PASS);
    assert_eq!(gate::in_flight(b.arrays.gate(SLOT)), 0);
    assert!(b.arrays.state(SLOT).take_wake().is_some_and(|(_, class)| class == Class::Player as u8));
    // The completed handshake is told of, then the player.
    assert!(matches!(b.reader.next(), Some(Record::Knock(k)) if k.class == Class::Undecided));
    assert!(matches!(b.reader.next(), Some(Record::Knock(k)) if k.class == Class::Player));
    assert_eq!(b.run(&udp(1000, 30000, b"hello")), REDIRECT);
    assert_eq!(b.run(&tcp(1000, 7001, 101, ACK, b"y")), REDIRECT, "nothing overtakes what is held");
}

#[test]
fn on_the_way_into_the_doze_packets_pass_and_flag() {
    let mut b = Bench::new("signal", TcHook::Tcx);
    b.watch(7001, 6, Game::GenericTcp, 0);
    b.arrays.set_gate(SLOT, SIGNAL);
    assert_eq!(b.run(&tcp(1000, 7001, 99, SYN, b"")), PASS);
    assert_eq!(b.run(&tcp(1000, 7001, 100, ACK, b"x")), PASS);
    assert!(b.arrays.state(SLOT).take_wake().is_some());
    assert_eq!(gate::in_flight(b.arrays.gate(SLOT)), 0);
}

#[test]
fn a_stale_heartbeat_passes_everything_and_flags() {
    let mut b = Bench::new("stale", TcHook::Tcx);
    b.watch(30000, 17, Game::GenericUdp, 0);
    b.arrays.set_gate(SLOT, PARK);
    b.arrays.node(node::STALE_AFTER_NS).store(1, SeqCst);
    assert_eq!(b.run(&udp(1000, 30000, b"hello")), PASS);
    assert!(b.arrays.state(SLOT).take_wake().is_some());
    assert_eq!(b.door.counters(SLOT).unwrap().fail_open, 1);
}

#[test]
fn a_full_quota_passes_and_flags() {
    let mut b = Bench::new("quota", TcHook::Tcx);
    b.watch(30000, 17, Game::GenericUdp, 0);
    b.arrays.set_gate(SLOT, PARK);
    let frame = udp(1000, 30000, &[7; 1000]);
    let mut consumed = 0;
    while b.run(&frame) == REDIRECT {
        consumed += 1;
        assert!(consumed < 100, "no quota holds");
    }
    // 32 KiB a source, 2048 + 64 bytes a record.
    assert_eq!(consumed, 15);
    assert_eq!(gate::in_flight(b.arrays.gate(SLOT)), 15, "the one that found no room is not counted");
    assert_eq!(b.door.counters(SLOT).unwrap().no_room, 1);
    let mut other = frame.clone();
    other[29] = 78;
    assert_eq!(b.run(&other), REDIRECT, "another source has its own quota");
}

#[test]
fn a_signal_only_road_never_parks() {
    let mut b = Bench::new("signalonly", TcHook::Tcx);
    b.watch(7001, 6, Game::GenericTcp, server_flag::SIGNAL_ONLY);
    b.arrays.set_gate(SLOT, PARK);
    assert_eq!(b.run(&tcp(1000, 7001, 99, SYN, b"")), PASS);
    assert_eq!(b.run(&tcp(1000, 7001, 100, ACK, b"x")), PASS);
    assert!(b.arrays.state(SLOT).take_wake().is_some());
}

/// This process's cgroup: BPF_PROG_TEST_RUN gives every packet a socket of its caller's.
fn own_cgroup() -> u64 {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    std::fs::metadata(dormouse_tests::cgroup::root().unwrap().join(path)).unwrap().ino()
}

const HTTP: &[u8] = b"GET /healthz HTTP/1.1\r\n\r\n";

#[test]
fn a_probers_probe_is_a_probe_and_its_login_a_player() {
    let mut b = Bench::new("prober", TcHook::Tcx);
    b.watch(7001, 6, Game::GenericTcp, 0);
    b.door.set_probers(&[own_cgroup()].into()).unwrap();
    for gate in [OPEN, PARK] {
        b.arrays.set_gate(SLOT, gate);
        assert_eq!(b.run(&tcp(1000, 7001, 99, SYN, b"")), PASS);
        assert_eq!(b.run(&tcp(1000, 7001, 100, ACK, b"")), PASS);
        let consumed = b.run(&tcp(1000, 7001, 100, ACK, HTTP));
        assert_eq!(consumed, if gate == OPEN { PASS } else { REDIRECT });
        assert!(!b.player_seen() && b.arrays.state(SLOT).take_wake().is_none());
    }
    assert!(matches!(b.reader.next(), Some(Record::Knock(k)) if k.class == Class::Probe));
    assert!(matches!(b.reader.next(), Some(Record::Parked(p)) if p.knock.class == Class::Probe));
    assert!(b.arrays.state(SLOT).take_query().is_some(), "it is answered as a query is");
    assert_eq!(b.door.counters(SLOT).unwrap().probe, 1);
    b.arrays.end_record(SLOT);

    assert_eq!(b.run(&tcp(1001, 7001, 99, SYN, b"")), PASS);
    assert_eq!(b.run(&tcp(1001, 7001, 100, ACK, b"login anna")), PASS);
    assert!(b.arrays.state(SLOT).take_wake().is_some(), "the cgroup alone makes no probe");
}

#[test]
fn a_strangers_http_is_no_probe() {
    let mut b = Bench::new("noprober", TcHook::Tcx);
    b.watch(7001, 6, Game::GenericTcp, 0);
    b.watch(25565, 6, Game::MinecraftJava, 0);
    b.door.set_probers(&[own_cgroup()].into()).unwrap();
    b.door.set_probers(&[own_cgroup() + 1].into()).unwrap();
    b.arrays.set_gate(SLOT, PARK);
    assert_eq!(b.run(&tcp(1000, 25565, 99, SYN, b"")), PASS);
    assert_eq!(b.run(&tcp(1000, 25565, 100, ACK, HTTP)), REDIRECT);
    assert_eq!(b.door.counters(SLOT).unwrap().noise, 1);
    assert_eq!(b.run(&tcp(1000, 7001, 99, SYN, b"")), PASS);
    assert_eq!(b.run(&tcp(1000, 7001, 100, ACK, HTTP)), PASS);
    assert!(b.arrays.state(SLOT).take_wake().is_some());
    assert_eq!(b.door.counters(SLOT).unwrap().probe, 0);
}

/// Passed and counted, awake and asleep; what is only not ours is not counted.
#[test]
fn what_can_not_be_parsed_is_counted_and_passes() {
    let mut b = Bench::new("unparsed", TcHook::Tcx);
    b.watch(7001, 6, Game::GenericTcp, 0);
    b.arrays.set_gate(SLOT, PARK);
    let good = tcp(1000, 7001, 100, ACK, b"x");
    let changed = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        frame
    };
    let ethernet = |ethertype: u16, rest: &[u8]| [&good[..12], &ethertype.to_be_bytes(), rest].concat();
    // Seven destination options, each of eight bytes, and no end.
    let mut chain = vec![0x60, 0, 0, 0, 0, 56, 60, 64];
    chain.extend([0; 32]);
    chain.extend([60, 0, 0, 0, 0, 0, 0, 0].repeat(7));
    let broken = [
        ("a header of 4 bytes", changed(14, 0x41)),
        ("version 5", changed(14, 0x55)),
        ("options beyond its end", [&changed(14, 0x4f)[..], &[]].concat()),
        ("cut in the IP header", good[..34].to_vec()),
        ("too many extension headers", ethernet(0x86dd, &chain)),
        ("a TCP header of 16 bytes", changed(46, 0x40)),
    ];
    for (count, (what, frame)) in broken.iter().enumerate() {
        assert_eq!(b.run(frame), PASS, "{what}");
        assert_eq!(b.door.unparsed().unwrap(), count as u64 + 1, "{what}");
    }
    let arp = [0, 1, 8, 0, 6, 4, 0, 1].into_iter().chain([0; 20]).collect::<Vec<u8>>();
    let icmp = ipv4(1, &[8, 0, 0, 0, 0, 1, 0, 1]);
    for frame in [ethernet(0x0806, &arp), icmp, udp(1000, 4000, b"nobody's")] {
        assert_eq!(b.run(&frame), PASS);
    }
    assert_eq!(b.door.unparsed().unwrap(), broken.len() as u64);
    assert!(b.arrays.state(SLOT).take_wake().is_none());
}

#[test]
fn the_path_probe_is_counted_and_consumed() {
    let mut b = Bench::new("probe", TcHook::Tcx);
    b.watch(9, 17, Game::GenericUdp, server_flag::PATH_PROBE);
    assert_eq!(b.run(&udp(1000, 9, b"x")), REDIRECT);
    assert_eq!(b.arrays.state(SLOT).path_probes.load(SeqCst), 1);
}

#[test]
fn an_open_gate_is_left_alone_by_a_replay_that_ends() {
    let b = Bench::new("gates", TcHook::Tcx);
    b.arrays.set_gate(SLOT, OPEN);
    assert_eq!(b.arrays.gate(SLOT), gate::word(OPEN, 0));
    assert!(monotonic_ns() > 0);
}
