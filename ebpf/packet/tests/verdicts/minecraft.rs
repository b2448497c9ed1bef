//! Minecraft Java: verdicts on real streams and on every way to cut or break them.

use dormouse_packet::{Class, Game};
use proptest::prelude::*;

use crate::common::{self, hex};

/// Said by minecraft-protocol 1.x (npm) to a listener on loopback.
const STATUS_1_20_1: &str = "1000fb05093132372e302e302e31a550010100";
const LOGIN_1_20_1: &str =
    "1000fb05093132372e302e302e31a550021800055374657665015627dd98e6be3c21b8a8e92344183641";
const LOGIN_1_8_9: &str = "0f002f093132372e302e302e31a550020700055374657665";

const PROXY_V1: &[u8] = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 25565\r\n";
/// As long as it may be.
const PROXY_V1_LONGEST: &[u8] = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c";
const PROXY_V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn verdict(bytes: &[u8]) -> Class {
    common::verdict(Game::MinecraftJava, bytes, 1)
}

/// What scanners send too.
fn is_part_of_signature(start: &[u8]) -> bool {
    (2..12).contains(&start.len()) && PROXY_V2.starts_with(start)
}

fn varint(mut value: u32) -> Vec<u8> {
    let mut bytes = vec![];
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn handshake(version: i32, host: &[u8], next: u32) -> Vec<u8> {
    let mut body = vec![0];
    body.extend(varint(version as u32));
    body.extend(varint(host.len() as u32));
    body.extend(host);
    body.extend([0x63, 0xdd]);
    body.extend(varint(next));
    [varint(body.len() as u32), body].concat()
}

#[test]
fn real_streams() {
    assert_eq!(verdict(&hex(STATUS_1_20_1)), Class::Query, "with the status request behind it");
    assert_eq!(verdict(&hex(STATUS_1_20_1)[..17]), Class::Query, "alone");
    assert_eq!(verdict(&hex(LOGIN_1_20_1)), Class::Player);
    assert_eq!(verdict(&hex(LOGIN_1_8_9)), Class::Player);
}

#[test]
fn next_states() {
    for (next, class) in [
        (0, Class::Noise),
        (1, Class::Query),
        (2, Class::Player),
        (3, Class::Player),
        (4, Class::Noise),
        (u32::MAX, Class::Noise),
    ] {
        assert_eq!(verdict(&handshake(767, b"play.example.org", next)), class, "next state {next}");
    }
    assert_eq!(verdict(&handshake(-1, b"play.example.org", 1)), Class::Query, "a pinger's version is -1");
    assert_eq!(verdict(&handshake(765, b"play.example.org\0FML3\0", 2)), Class::Player);
    assert_eq!(verdict(&handshake(765, b"", 2)), Class::Player);
}

#[test]
fn legacy_pings() {
    assert_eq!(verdict(&[0xfe]), Class::Query, "up to 1.3");
    assert_eq!(verdict(&[0xfe, 0x01]), Class::Query, "1.4 and 1.5");
    let ping_1_6 = hex(concat!(
        "fe01fa000b004d0043007c00500069006e00670048006f00730074",
        "001949000900310032003700 2e0030002e0030002e0031000063dd"
    )
    .replace(' ', "")
    .as_str());
    for end in 1..=ping_1_6.len() {
        assert_eq!(verdict(&ping_1_6[..end]), Class::Query, "1.6, {end} bytes");
    }
    // A length of 254 starts with the same two bytes.
    let host = [b'h'; 246];
    assert_eq!(handshake(765, &host, 2)[..2], [0xfe, 0x01]);
    assert_eq!(verdict(&handshake(765, &host, 2)), Class::Player);
}

#[test]
fn forwarded_logins_end_past_the_window() {
    let host = [b"play.example.org\x00203.0.113.9\0".as_slice(), &[b'x'; 900]].concat();
    let stream = handshake(765, &host, 2);
    assert_eq!(verdict(&stream[..511]), Class::Undecided);
    assert_eq!(verdict(&stream[..512]), Class::Player);
    assert_eq!(verdict(&stream), Class::Player);
}

#[test]
fn proxy_headers_are_skipped() {
    assert_eq!(PROXY_V1_LONGEST.len(), 107);
    for header in [PROXY_V1, PROXY_V1_LONGEST, b"PROXY UNKNOWN\r\n", PROXY_V2, PROXY_V2_LOCAL] {
        for end in (0..=header.len()).filter(|&end| !is_part_of_signature(&header[..end])) {
            assert_eq!(verdict(&header[..end]), Class::Undecided, "{:02x?}", &header[..end]);
        }
        let after = |stream: &[u8]| verdict(&[header, stream].concat());
        assert_eq!(after(&hex(STATUS_1_20_1)), Class::Query);
        assert_eq!(after(&hex(LOGIN_1_20_1)), Class::Player);
        assert_eq!(after(&[0xfe, 0x01]), Class::Query);
        assert_eq!(after(b"GET / HTTP/1.1\r\n"), Class::Noise);
    }
    assert_eq!(verdict(&[b"PROXY ".as_slice(), &[b'x'; 101]].concat()), Class::Noise, "no end");
    assert_eq!(verdict(b"PROXY TCP4 1.1.1.1\rx"), Class::Noise);
    assert_eq!(verdict(b"PROXIES"), Class::Noise);
    assert_eq!(verdict(b"\r\n\r\n\0\r\nQUIT\n\x11"), Class::Noise, "version 1 in the binary form");
    assert_eq!(verdict(b"\r\n\r\nGET"), Class::Noise);
}

#[test]
fn other_protocols_are_noise() {
    for stream in [
        b"GET / HTTP/1.1\r\n\r\n".as_slice(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00",
        b"\r\n\r\n",
        b"\r\n",
        b"\0",
        // More of what nmap's service detection sends.
        b"\x80\0\0\x28\x72\xfe\x1d\x13",
        b"\0\x1e\0\x06\x01\0\0\x01",
        b"l\0\x0b\0\0\0\0\0\0\0\0\0",
        b":\0\0\0\x2f\0\0\0\x02\0\0\x40",
        b"0\x84\0\0\0\x2d\x02\x01\x07c",
        b"\x12\x01\0\x34\0\0\0\0\0\0\x15",
        b"\x01default\n",
        b"HELP\r\n",
        b"JRMI\0\x02K",
        b"*1\r\n$4\r\nPING\r\n",
        b"EHLO x\r\n",
        b"\xff\xff\xff\xff\xff",
    ] {
        assert_eq!(verdict(stream), Class::Noise, "{stream:02x?}");
    }
}

#[test]
fn odd_numbers() {
    for (bytes, class, why) in [
        ("1080002f8900 68686868686868686863dd02", Class::Noise, "lengths disagree"),
        ("9000002f0968686868686868686863dd0200", Class::Noise, "a byte too many in the frame"),
        ("8f00002f0968686868686868686863dd02", Class::Player, "a length longer than it need be"),
        ("1080002f0968686868686868686863dd02", Class::Player, "an id longer than it need be"),
        ("10002f890068686868686868686863dd02", Class::Player, "a host length longer than it need be"),
        ("10002f0968686868686868686863dd8200", Class::Player, "a next state longer than it need be"),
        ("8080808000", Class::Noise, "a length of four bytes"),
        ("0f01", Class::Noise, "another packet first"),
        ("0f002fffffffff0f", Class::Noise, "a host of -1 bytes"),
        ("0f002f8080808080", Class::Noise, "a number of six bytes"),
        ("0f00ffffffffff", Class::Noise, "a version of six bytes"),
        ("0500000000", Class::Noise, "too short a frame"),
        ("0600000000", Class::Undecided, "the shortest frame"),
        ("06000000000001", Class::Query, "the shortest frame"),
        ("ffff7f00", Class::Undecided, "the longest frame"),
    ] {
        assert_eq!(verdict(&hex(&bytes.replace(' ', ""))), class, "{why}");
    }
}

fn any_header() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(vec![]),
        Just(PROXY_V1.to_vec()),
        Just(PROXY_V2.to_vec()),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(|tail| {
            let len = (tail.len() as u16).to_be_bytes();
            [&PROXY_V2[..14], &len, &tail].concat()
        }),
    ]
}

proptest! {
    #[test]
    fn a_prefix_is_undecided_or_says_the_same(
        header in any_header(),
        version in any::<i32>(),
        host in proptest::collection::vec(any::<u8>(), 0..700),
        next in 1_u32..4,
        tail in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let stream = [header.as_slice(), &handshake(version, &host, next), &tail].concat();
        let asked = if next == 1 { Class::Query } else { Class::Player };
        let last = verdict(&stream);
        let fits = header.len() + handshake(version, &host, next).len() <= 512;
        prop_assert_eq!(last, if fits { asked } else { Class::Player });
        let mut decided = Class::Undecided;
        for end in 0..=stream.len() {
            // Vanilla itself takes the first two for a whole legacy ping; no proxy splits its signature.
            if matches!(&stream[header.len().min(end)..end], [0xfe] | [0xfe, 0x01]) || is_part_of_signature(&stream[..end]) {
                continue;
            }
            let class = verdict(&stream[..end]);
            prop_assert!(decided == Class::Undecided || class == decided, "{end}: {decided:?}, then {class:?}");
            decided = class;
        }
        prop_assert_eq!(decided, last);
    }

    #[test]
    fn a_verdict_stays(bytes in proptest::collection::vec(any::<u8>(), 0..600), end in 0_usize..600) {
        let early = verdict(&bytes[..end.min(bytes.len())]);
        let cut = matches!(bytes[..end.min(bytes.len())], [0xfe] | [0xfe, 0x01]);
        prop_assert!(cut || early == Class::Undecided || early == verdict(&bytes));
    }
}

#[test]
fn random_bytes_are_noise() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = 0;
    let streams = 100_000;
    for _ in 0..streams {
        let mut bytes = [0; 64];
        for byte in &mut bytes {
            // xorshift64: the same streams every time.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 32) as u8;
        }
        let class = verdict(&bytes);
        assert_ne!(class, Class::Player, "{bytes:02x?}");
        noise += u32::from(class == Class::Noise);
    }
    assert!(noise > streams - streams / 500, "{noise} of {streams}");
}
