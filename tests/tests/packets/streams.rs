//! What a TCP connection may do while its server sleeps, and crowds of them.

use std::net::{IpAddr, Ipv4Addr};

use dormouse_abi::gate::{PARK, SIGNAL};
use dormouse_daemon::door::{Record, TcHook};
use dormouse_packet::{Class, Game};
use dormouse_tests::frame::{ACK, FIN, Ip, RST, SYN, TCP, Tcp, UDP, ethernet};

use crate::{Bench, PASS, REDIRECT, SLOT};

const PORT: u16 = 7001;
/// RFC 9293 §3.2 and RFC 7323: maximum segment size, SACK permitted, timestamps, window scale.
const OPTIONS: &[u8] = &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
const TIMESTAMPS: &[u8] = &[1, 1, 8, 10, 0, 0, 0, 2, 0, 0, 0, 1];

fn asleep(name: &str, game: Game) -> Bench {
    let mut bench = Bench::new(name, TcHook::Tcx);
    bench.watch(PORT, TCP, game, 0);
    bench.arrays.set_gate(SLOT, PARK);
    bench
}

fn from(address: u32, tcp: Tcp<'_>) -> Vec<u8> {
    let ip = Ip::new(Ipv4Addr::from(address).into(), IpAddr::from([10, 42, 0, 5]), TCP);
    let tcp = Tcp { port: PORT, ..tcp };
    ethernet([2; 6], [4; 6], 0x0800, &ip.packet(&ip.tcp(&tcp)))
}

/// One segment of the client 192.0.2.77:1000.
fn segment(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    from(0xc000_024d, Tcp { source: 1000, sequence, flags, payload, ..Tcp::default() })
}

#[test]
fn with_and_without_options() {
    let mut bench = asleep("tcpoptions", Game::GenericTcp);
    for (number, (with_syn, later)) in
        [(&[][..], &[][..]), (&OPTIONS[..4], &[][..]), (OPTIONS, TIMESTAMPS)].into_iter().enumerate()
    {
        let source = 1000 + number as u16;
        let tcp = |sequence, flags, options, payload| {
            from(1, Tcp { source, sequence, flags, options, payload, ..Tcp::default() })
        };
        // The sequence number goes around at its end.
        assert_eq!(bench.run(&tcp(u32::MAX, SYN, with_syn, b"")), PASS);
        assert_eq!(bench.run(&tcp(0, ACK, later, b"")), PASS);
        assert_eq!(bench.woken_by(), None);
        assert_eq!(bench.run(&tcp(0, ACK, later, b"hello")), PASS);
        assert_eq!(bench.woken_by(), Some(Class::Player), "{number}");
    }
}

#[test]
fn a_fin_wakes_nobody_unless_it_carries_payload() {
    let mut bench = asleep("fin", Game::GenericTcp);
    for frame in [segment(99, SYN, b""), segment(100, ACK, b""), segment(100, FIN | ACK, b"")] {
        assert_eq!(bench.run(&frame), PASS);
    }
    assert_eq!((bench.woken_by(), bench.in_flight()), (None, 0));
    assert_eq!(bench.run(&segment(199, SYN, b"")), PASS);
    assert_eq!(bench.run(&segment(200, FIN | ACK, b"all at once")), PASS);
    assert_eq!(bench.woken_by(), Some(Class::Player));
}

/// A reset may explain itself (RFC 9293 §3.5.3): its words are no payload.
#[test]
fn a_reset_wakes_nobody_whatever_it_carries() {
    let mut bench = asleep("rst", Game::GenericTcp);
    assert_eq!(bench.run(&segment(99, SYN, b"")), PASS);
    assert_eq!(bench.run(&segment(100, ACK, b"")), PASS);
    assert_eq!(bench.run(&segment(100, RST, b"")), PASS);
    assert_eq!(bench.run(&segment(100, RST | ACK, b"because")), PASS);
    // Of a connection that nobody knows.
    assert_eq!(bench.run(&from(7, Tcp { flags: RST, payload: b"because", ..Tcp::default() })), PASS);
    assert_eq!((bench.woken_by(), bench.in_flight()), (None, 0));
}

#[test]
fn a_client_that_gives_up_leaves_nothing_behind() {
    let mut bench = asleep("givesup", Game::MinecraftJava);
    assert_eq!(bench.run(&segment(99, SYN, b"")), PASS);
    assert_eq!(bench.run(&segment(100, ACK, b"")), PASS);
    // Half a handshake packet: undecided, held.
    assert_eq!(bench.run(&segment(100, ACK, &[16, 0])), REDIRECT);
    assert_eq!(bench.run(&segment(102, RST, b"")), PASS);
    assert_eq!((bench.woken_by(), bench.in_flight()), (None, 1));
    let records: Vec<_> = bench.reader.by_ref().filter(|r| matches!(r, Record::Parked(_))).collect();
    assert_eq!(records.len(), 1);
    bench.arrays.end_record(SLOT);
    assert_eq!(bench.in_flight(), 0);
}

/// Both sides call each other at once (RFC 9293 §3.5): the client's SYN-ACK and its ACK say nothing, its payload does.
#[test]
fn a_simultaneous_open_is_a_connection_like_any_other() {
    let mut bench = asleep("simultaneous", Game::GenericTcp);
    for frame in [segment(99, SYN, b""), segment(99, SYN | ACK, b""), segment(100, ACK, b"")] {
        assert_eq!(bench.run(&frame), PASS);
        assert_eq!(bench.woken_by(), None);
    }
    assert_eq!(bench.run(&segment(100, ACK, b"hello")), PASS);
    assert_eq!(bench.woken_by(), Some(Class::Player));
}

/// TCP Fast Open (RFC 7413): the login may come with the SYN, and then nothing more. Anybody can invent that, so the
/// daemon is told to look whether the server's kernel took it.
#[test]
fn a_login_inside_a_syn_is_told_and_wakes_nobody_yet() {
    let mut bench = asleep("fastopen", Game::GenericTcp);
    assert_eq!(bench.run(&segment(99, SYN, b"hello")), PASS);
    assert!(bench.reader.next().is_none(), "a SYN alone says nothing");
    assert_eq!(bench.run(&segment(105, ACK, b"")), PASS);
    assert_eq!((bench.woken_by(), bench.in_flight()), (None, 0));
    assert!(matches!(bench.reader.next(), Some(Record::FastOpen(knock)) if knock.from.port() == 1000));
    // A server that does not know Fast Open: the bytes are sent again.
    assert_eq!(bench.run(&segment(99, SYN, b"hello")), PASS);
    assert_eq!(bench.run(&segment(100, ACK, b"")), PASS);
    assert_eq!(bench.run(&segment(100, ACK, b"hello")), PASS);
    assert_eq!(bench.woken_by(), Some(Class::Player));
}

#[test]
fn noise_inside_a_syn_is_noise() {
    let mut bench = asleep("fastnoise", Game::MinecraftJava);
    assert_eq!(bench.run(&segment(99, SYN, b"GET / HTTP/1.1\r\n\r\n")), PASS);
    assert_eq!(bench.run(&segment(118, ACK, b"")), PASS);
    assert!(!bench.reader.by_ref().any(|record| matches!(record, Record::FastOpen(_))));
    assert_eq!(bench.woken_by(), None);
}

#[test]
fn thousands_of_flows_are_told_apart() {
    const FLOWS: u32 = 5000;
    let mut bench = Bench::new("crowd", TcHook::Tcx);
    bench.watch(PORT, TCP, Game::GenericTcp, 0);
    bench.watch(PORT, UDP, Game::GenericUdp, 0);
    bench.arrays.set_gate(SLOT, SIGNAL);
    let stream = |n: u32, sequence, flags, payload| {
        let source = 1024 + (n % 50_000) as u16;
        from(0x0a00_0000 + n / 7, Tcp { source, sequence, flags, payload, ..Tcp::default() })
    };
    let datagram = |n: u32| {
        let ip = Ip::new(Ipv4Addr::from(0x0b00_0000 + n / 7).into(), IpAddr::from([10, 42, 0, 5]), UDP);
        ethernet([2; 6], [4; 6], 0x0800, &ip.packet(&ip.udp(1024 + n as u16, PORT, b"hello")))
    };
    // All at once: every one has begun before the first goes on.
    for n in 0..FLOWS {
        assert_eq!(bench.run(&stream(n, n, SYN, b"")), PASS);
        assert_eq!(bench.run(&datagram(n)), PASS);
    }
    assert_eq!(bench.woken_by(), None);
    for n in 0..FLOWS {
        assert_eq!(bench.run(&stream(n, n + 1, ACK, b"hello")), PASS);
        assert_eq!(bench.run(&datagram(n)), PASS);
        // The ring is read as the daemon does.
        while bench.reader.next().is_some() {}
    }
    let counters = bench.door.counters(SLOT).unwrap();
    assert_eq!((counters.player, counters.undecided), (u64::from(2 * FLOWS), u64::from(FLOWS)));
    assert_eq!(bench.woken_by(), Some(Class::Player));
    assert_eq!(bench.in_flight(), 0);
}
