//! What a packet may look like on its way to a sleeping server: tags, options, extension headers, fragments, sizes,
//! bursts; and what can't be parsed, which passes.

use std::net::IpAddr;

use dormouse_abi::gate::PARK;
use dormouse_daemon::door::{Record, TcHook};
use dormouse_packet::{Class, Game};
use dormouse_tests::{
    chance::Chance,
    frame::{Ip, TCP, Tcp, UDP, ethernet, tagged},
    topology::CLIENT,
};

use crate::{Bench, PASS, REDIRECT};

const PORT: u16 = 30000;
const STREAM: u16 = 7001;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

fn ip4(protocol: u8) -> Ip<'static> {
    Ip::new(CLIENT[0], IpAddr::from([10, 42, 0, 5]), protocol)
}

fn ip6(protocol: u8) -> Ip<'static> {
    Ip::new(CLIENT[1], IpAddr::from([0xfd42, 0, 0, 0, 0, 0, 0, 5]), protocol)
}

fn wire(ip: &Ip<'_>, payload: &[u8]) -> Vec<u8> {
    ethernet(MACS[0], MACS[1], if ip.from.is_ipv4() { IPV4 } else { IPV6 }, &ip.packet(payload))
}

fn datagram(ip: &Ip<'_>, payload: &[u8]) -> Vec<u8> {
    wire(ip, &ip.udp(1000, PORT, payload))
}

/// A sleeping server with a UDP and a TCP port.
fn asleep(name: &str) -> Bench {
    let mut bench = Bench::new(name, TcHook::Tcx);
    bench.watch(PORT, UDP, Game::GenericUdp, 0);
    bench.watch(STREAM, TCP, Game::GenericTcp, 0);
    bench.arrays.set_gate(crate::SLOT, PARK);
    bench
}

/// Padding options (RFC 8200 §4.2) in an extension header of eight bytes that leads to `next`.
const fn padding(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

#[test]
fn every_shape_of_a_datagram_is_parked_whole_and_the_second_wakes() {
    let plain = datagram(&ip4(UDP), b"hello");
    let mut no_checksum = plain.clone();
    no_checksum[40..42].fill(0);
    let mut padded = datagram(&ip4(UDP), b"");
    padded.resize(60, 0);
    let extensions = |first, bytes: &[u8]| {
        let ip = Ip { options: bytes, first_extension: first, ..ip6(UDP) };
        datagram(&ip, b"hello")
    };
    let chain = [padding(ROUTING), [DESTINATION, 0, 4, 0, 0, 0, 0, 0], padding(UDP)].concat();
    let shapes = [
        ("IPv4", plain.clone()),
        ("no checksum", no_checksum),
        ("no payload, padded to the least frame", padded),
        ("odd: one byte", datagram(&ip4(UDP), b"x")),
        ("odd: 255 bytes", datagram(&ip4(UDP), &[7; 255])),
        ("the largest of the first bucket", datagram(&ip4(UDP), &[7; 256 - 42])),
        ("the smallest of the second", datagram(&ip4(UDP), &[7; 257 - 42])),
        ("an Ethernet MTU", datagram(&ip4(UDP), &[7; 1472])),
        ("the largest of the second bucket", datagram(&ip4(UDP), &[7; 2048 - 42])),
        ("the smallest of the third", datagram(&ip4(UDP), &[7; 2049 - 42])),
        ("a large one", datagram(&ip4(UDP), &[7; 3000])),
        ("IPv4 options", datagram(&Ip { options: &[1; 4], ..ip4(UDP) }, b"hello")),
        ("all the options there is room for", datagram(&Ip { options: &[1; 40], ..ip4(UDP) }, b"hello")),
        ("a first fragment", datagram(&Ip { fragment: Some((0, true)), ..ip4(UDP) }, &[7; 64])),
        ("VLAN", tagged(&plain, VLAN, 7)),
        ("QinQ", tagged(&tagged(&plain, VLAN, 7), QINQ, 8)),
        ("IPv6", datagram(&ip6(UDP), b"hello")),
        ("hop by hop", extensions(HOP_BY_HOP, &padding(UDP))),
        ("destination options", extensions(DESTINATION, &padding(UDP))),
        ("routing", extensions(ROUTING, &[UDP, 0, 4, 0, 0, 0, 0, 0])),
        ("three extension headers", extensions(HOP_BY_HOP, &chain)),
        ("an atomic fragment", extensions(FRAGMENT, &[UDP, 0, 0, 0, 0, 0, 0, 9])),
        ("an IPv6 first fragment", extensions(FRAGMENT, &[UDP, 0, 0, 1, 0, 0, 0, 9])),
        ("VLAN, IPv6, options", tagged(&extensions(DESTINATION, &padding(UDP)), VLAN, 7)),
    ];
    let mut bench = asleep("shapes");
    for (number, (name, frame)) in shapes.into_iter().enumerate() {
        // A flow of its own: the source port stands where the destination port's two bytes are not.
        let mut frame = frame;
        let ports = [1000u16.to_be_bytes(), PORT.to_be_bytes()].concat();
        let at = frame.windows(4).position(|w| w == ports).unwrap();
        frame[at..at + 2].copy_from_slice(&(2000 + number as u16).to_be_bytes());
        assert_eq!(bench.run(&frame), REDIRECT, "{name}");
        assert_eq!(bench.woken_by(), None, "{name}: one datagram is nobody");
        assert_eq!(bench.run(&frame), REDIRECT, "{name}");
        assert_eq!(bench.woken_by(), Some(Class::Player), "{name}");
        for _ in 0..2 {
            let Some(Record::Parked(parked)) = bench.reader.next() else { panic!("{name}: no record") };
            assert_eq!(parked.frame, frame, "{name}");
            assert_eq!(parked.knock.from.port(), 2000 + number as u16, "{name}");
            assert_eq!((parked.gso_size, parked.vlan), (0, None), "{name}");
            bench.arrays.end_record(crate::SLOT);
        }
    }
    assert_eq!(bench.in_flight(), 0);
}

#[test]
fn a_stream_is_recognised_behind_tags_and_options() {
    let options = [1u8; 40];
    let extension = padding(TCP);
    let shapes: [(&str, Ip<'_>, bool); 5] = [
        ("IPv4 options", Ip { options: &options, ..ip4(TCP) }, false),
        ("VLAN", ip4(TCP), true),
        ("IPv6", ip6(TCP), false),
        ("IPv6 options", Ip { options: &extension, first_extension: DESTINATION, ..ip6(TCP) }, false),
        ("all", Ip { options: &extension, first_extension: HOP_BY_HOP, ..ip6(TCP) }, true),
    ];
    let mut bench = asleep("streamshapes");
    for (number, (name, ip, tag)) in shapes.iter().enumerate() {
        let source = 3000 + number as u16;
        for (sequence, flags, payload, wakes) in [
            (99, crate::SYN, &b""[..], false),
            (100, crate::ACK, &b""[..], false),
            (100, crate::ACK, &b"hello"[..], true),
        ] {
            let tcp = Tcp { source, port: STREAM, sequence, flags, payload, ..Tcp::default() };
            let mut frame = wire(ip, &ip.tcp(&tcp));
            if *tag {
                frame = tagged(&frame, VLAN, 7);
            }
            assert_eq!(bench.run(&frame), PASS, "{name}");
            assert_eq!(bench.woken_by().is_some(), wakes, "{name} {flags}");
        }
    }
}

#[test]
fn what_is_not_ours_or_no_packet_passes_and_wakes_nobody() {
    let plain = datagram(&ip4(UDP), b"hello");
    let later = |offset| Ip { fragment: Some((offset, true)), ..ip4(UDP) };
    let extensions = |first, bytes: &[u8]| {
        let ip = Ip { options: bytes, first_extension: first, ..ip6(UDP) };
        datagram(&ip, b"hello")
    };
    let change = |at: usize, byte: u8| {
        let mut frame = plain.clone();
        frame[at] = byte;
        frame
    };
    // RFC 792: "fragmentation needed", around the first bytes of a datagram from the server's port.
    let mut needed = vec![3, 4, 0, 0, 0, 0, 5, 0];
    needed.extend(&plain[14..42]);
    let mut too_big = vec![2, 0, 0, 0, 0, 0, 5, 0];
    too_big.extend(&datagram(&ip6(UDP), b"")[14..]);
    let shapes = [
        ("ARP", ethernet(MACS[0], MACS[1], 0x0806, &[0; 28])),
        ("LLDP", ethernet(MACS[0], MACS[1], 0x88cc, &[0; 46])),
        ("MPLS", ethernet(MACS[0], MACS[1], 0x8847, &plain[14..])),
        ("PPPoE", ethernet(MACS[0], MACS[1], 0x8864, &plain[14..])),
        ("an 802.3 length", ethernet(MACS[0], MACS[1], 46, &[0; 46])),
        ("ping", wire(&ip4(1), &[8, 0, 0, 0, 0, 1, 0, 1])),
        ("PMTU", wire(&ip4(1), &needed)),
        ("ICMPv6 too big", wire(&ip6(58), &too_big)),
        ("neighbour solicitation", wire(&ip6(58), &[135; 24])),
        ("neighbour advertisement", wire(&ip6(58), &[136; 24])),
        ("SCTP", wire(&ip4(132), &ip4(UDP).udp(1000, PORT, b"hello"))),
        ("UDP-Lite", wire(&ip4(136), &ip4(UDP).udp(1000, PORT, b"hello"))),
        ("ESP", wire(&ip6(50), &ip6(UDP).udp(1000, PORT, b"hello"))),
        ("no next header", extensions(DESTINATION, &padding(59))),
        ("a later fragment", wire(&later(1480), &ip4(UDP).udp(1000, PORT, b"hello"))),
        ("a later fragment, near", wire(&later(8), &ip4(UDP).udp(1000, PORT, b"hello"))),
        ("an IPv6 later fragment", extensions(FRAGMENT, &[UDP, 0, 0, 9, 0, 0, 0, 9])),
        ("three tags", tagged(&tagged(&tagged(&plain, VLAN, 1), VLAN, 2), QINQ, 3)),
        (
            "seven extension headers",
            extensions(HOP_BY_HOP, &{
                let mut chain = [padding(DESTINATION); 6].concat();
                chain.extend(padding(UDP));
                chain
            }),
        ),
        ("an extension header beyond the end", extensions(DESTINATION, &[UDP, 255, 0, 0, 0, 0, 0, 0])),
        ("version 5", change(14, 0x55)),
        ("a header of four words", change(14, 0x44)),
        ("a header longer than the packet", change(14, 0x4f)),
        ("a length before the header's end", change(17, 10)),
        ("a length before the ports", change(17, 20)),
        ("a length inside the ports", change(17, 23)),
    ];
    let mut bench = asleep("unparsed");
    for (name, frame) in &shapes {
        for _ in 0..3 {
            assert_eq!(bench.run(frame), PASS, "{name}");
        }
        assert_eq!((bench.woken_by(), bench.in_flight()), (None, 0), "{name}");
    }
    // A TCP header that is no whole one, in a segment that would otherwise be a player's.
    let tcp = Tcp { source: 9, port: STREAM, flags: crate::ACK, payload: b"hello", ..Tcp::default() };
    for offset in [0, 4, 7, 15] {
        let mut segment = ip4(TCP).tcp(&tcp);
        segment[12] = offset << 4;
        assert_eq!(bench.run(&wire(&ip4(TCP), &segment)), PASS, "a data offset of {offset}");
    }
    for len in 8..20 {
        let segment = &ip4(TCP).tcp(&tcp)[..len];
        assert_eq!(bench.run(&wire(&ip4(TCP), segment)), PASS, "{len} bytes of a TCP header");
    }
    assert_eq!((bench.woken_by(), bench.in_flight()), (None, 0));
    assert!(bench.reader.next().is_none());
}

/// Whatever is changed in a good packet: it passes, or it is parked and handed over as it came.
#[test]
fn a_damaged_packet_is_passed_or_parked_as_it_is() {
    const ROUNDS: u64 = 3000;
    let mut bench = asleep("damaged");
    let mut chance = Chance::new(4);
    let extension = padding(UDP);
    let whole = [
        datagram(&ip4(UDP), &[7; 100]),
        datagram(&Ip { options: &[1; 12], ..ip4(UDP) }, &[7; 100]),
        datagram(&Ip { options: &extension, first_extension: DESTINATION, ..ip6(UDP) }, &[7; 100]),
        tagged(&datagram(&ip6(UDP), &[7; 100]), VLAN, 7),
    ];
    let mut parked = 0;
    for _ in 0..ROUNDS {
        let mut frame = whole[chance.below(4) as usize].clone();
        for _ in 0..=chance.below(3) {
            let at = 12 + chance.below(60) as usize;
            frame[at] = chance.below(256) as u8;
        }
        // BPF_PROG_TEST_RUN refuses frames that end inside their IP header (Linux 6.18).
        frame.truncate(54 + chance.below(frame.len() as u64 - 53) as usize);
        match bench.run(&frame) {
            PASS => {}
            verdict => {
                assert_eq!(verdict, REDIRECT);
                let Some(Record::Parked(record)) = bench.reader.next() else { panic!("no record") };
                assert_eq!(record.frame, frame);
                bench.arrays.end_record(crate::SLOT);
                parked += 1;
            }
        }
        for record in bench.reader.by_ref() {
            assert!(!matches!(record, Record::Parked(_)));
        }
    }
    assert_eq!(bench.in_flight(), 0);
    assert!(parked > ROUNDS / 20, "only {parked} were parked: the test tests nothing");
}

#[test]
fn a_burst_of_datagrams_counts_each_of_them() {
    let mut bench = asleep("udpburst");
    let frame = datagram(&ip4(UDP), &[7; 300]);
    assert_eq!(bench.run_burst(&frame, 3, 100), REDIRECT);
    assert_eq!(bench.woken_by(), Some(Class::Player), "three datagrams are more than one");
    let Some(Record::Parked(parked)) = bench.reader.next() else { panic!("no record") };
    assert_eq!((parked.gso_size, parked.frame), (100, frame));
}

#[test]
fn a_stream_s_burst_is_parked_with_its_segment_size_behind_what_is_held() {
    let mut bench = asleep("tcpburst");
    assert_eq!(bench.run(&datagram(&ip4(UDP), b"held")), REDIRECT);
    let frame = |sequence, flags, payload: &[u8]| {
        let tcp = Tcp { source: 9, port: STREAM, sequence, flags, payload, ..Tcp::default() };
        wire(&ip4(TCP), &ip4(TCP).tcp(&tcp))
    };
    assert_eq!(bench.run(&frame(99, crate::SYN, b"")), PASS);
    let burst = frame(100, crate::ACK, &[7; 3000]);
    assert_eq!(bench.run_burst(&burst, 3, 1448), REDIRECT);
    assert_eq!(bench.woken_by(), Some(Class::Player));
    let parked: Vec<_> = bench.reader.by_ref().collect();
    let Some(Record::Parked(last)) = parked.last() else { panic!("no record") };
    assert_eq!((last.gso_size, &last.frame), (1448, &burst));
}
