use super::*;
use proptest::prelude::*;

fn frame(ethertype: u16, rest: &[&[u8]]) -> std::vec::Vec<u8> {
    let mut out = std::vec![0; 12];
    out.extend(ethertype.to_be_bytes());
    for part in rest {
        out.extend_from_slice(part);
    }
    out
}

fn ipv4_header(words: u8, total: u16, fragment: u16, protocol: u8) -> std::vec::Vec<u8> {
    let mut h = std::vec![0x40 | words, 0];
    h.extend(total.to_be_bytes());
    h.extend([0, 1]);
    h.extend(fragment.to_be_bytes());
    h.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    h.resize(usize::from(words) * 4, 1);
    h
}

fn ipv6_header(payload: u16, next: u8) -> std::vec::Vec<u8> {
    let mut h = std::vec![0x60, 0, 0, 0];
    h.extend(payload.to_be_bytes());
    h.extend([next, 64]);
    h.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    h.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    h
}

const UDP_HELLO: &[u8] = &[0x04, 0xd2, 0x63, 0xdd, 0, 13, 0, 0, b'h', b'e', b'l', b'l', b'o'];

#[test]
fn plain_ipv4_udp() {
    let f = frame(ETHERTYPE_IPV4, &[&ipv4_header(5, 33, 0, UDP), UDP_HELLO]);
    let p = ethernet(&f.as_slice()).unwrap();
    assert_eq!((p.source_port, p.destination_port), (1234, 25565));
    assert_eq!(source_address(&f.as_slice(), &p).unwrap()[10..], [0xff, 0xff, 10, 0, 0, 1]);
    assert_eq!(p.fragment, Fragment::Whole);
    assert_eq!(datagram(&p), (42, 5));
}

#[test]
fn padding_after_the_packet_is_no_payload() {
    let f = frame(ETHERTYPE_IPV4, &[&ipv4_header(5, 33, 0, UDP), UDP_HELLO, &[0; 13]]);
    assert_eq!(datagram(&ethernet(&f.as_slice()).unwrap()), (42, 5));
}

#[test]
fn ipv4_options_move_the_ports() {
    let f = frame(ETHERTYPE_IPV4, &[&ipv4_header(8, 45, 0, UDP), UDP_HELLO]);
    let p = ethernet(&f.as_slice()).unwrap();
    assert_eq!((p.transport, p.destination_port), (46, 25565));
}

#[test]
fn fragments_are_told_apart() {
    let first = frame(ETHERTYPE_IPV4, &[&ipv4_header(5, 33, 0x2000, UDP), UDP_HELLO]);
    let p = ethernet(&first.as_slice()).unwrap();
    assert_eq!((p.fragment, p.destination_port), (Fragment::First, 25565));
    let later = frame(ETHERTYPE_IPV4, &[&ipv4_header(5, 33, 0x2004, UDP), UDP_HELLO]);
    let p = ethernet(&later.as_slice()).unwrap();
    assert_eq!((p.fragment, p.destination_port), (Fragment::Later, 0));
}

#[test]
fn vlan_tags_are_skipped_up_to_two() {
    let ip = ipv4_header(5, 33, 0, UDP);
    let one = frame(0x8100, &[&[0, 7, 8, 0], &ip, UDP_HELLO]);
    assert_eq!(ethernet(&one.as_slice()).unwrap().destination_port, 25565);
    let two = frame(0x88a8, &[&[0, 7, 0x81, 0], &[0, 8, 8, 0], &ip, UDP_HELLO]);
    assert_eq!(ethernet(&two.as_slice()).unwrap().destination_port, 25565);
    let three = frame(0x88a8, &[&[0, 7, 0x81, 0], &[0, 8, 0x81, 0], &[0, 9, 8, 0], &ip, UDP_HELLO]);
    assert_eq!(ethernet(&three.as_slice()), Err(Unparsed::TooDeep));
}

#[test]
fn ipv6_with_extension_headers() {
    let plain = frame(ETHERTYPE_IPV6, &[&ipv6_header(13, UDP), UDP_HELLO]);
    let p = ethernet(&plain.as_slice()).unwrap();
    assert_eq!((p.destination_port, datagram(&p)), (25565, (62, 5)));
    let options = frame(
        ETHERTYPE_IPV6,
        &[&ipv6_header(29, 0), &[60, 0, 1, 4, 0, 0, 0, 0], &[UDP, 0, 1, 4, 0, 0, 0, 0], UDP_HELLO],
    );
    assert_eq!(datagram(&ethernet(&options.as_slice()).unwrap()), (78, 5));
    let fragment = frame(ETHERTYPE_IPV6, &[&ipv6_header(21, 44), &[UDP, 0, 0, 1, 0, 0, 0, 9], UDP_HELLO]);
    assert_eq!(ethernet(&fragment.as_slice()).unwrap().fragment, Fragment::First);
    let later = frame(ETHERTYPE_IPV6, &[&ipv6_header(21, 44), &[UDP, 0, 0, 9, 0, 0, 0, 9], UDP_HELLO]);
    assert_eq!(ethernet(&later.as_slice()).unwrap().fragment, Fragment::Later);
    let deep: std::vec::Vec<u8> = [0, 0, 1, 4, 0, 0, 0, 0].repeat(8);
    let f = frame(ETHERTYPE_IPV6, &[&ipv6_header(80, 0), &deep, UDP_HELLO]);
    assert_eq!(ethernet(&f.as_slice()), Err(Unparsed::TooDeep));
}

#[test]
fn a_length_that_ends_before_the_ports_is_no_packet() {
    // The ports stand there all the same, in what must be the link layer's padding.
    for total in [1, 19, 20, 27] {
        let f = frame(ETHERTYPE_IPV4, &[&ipv4_header(5, total, 0, UDP), UDP_HELLO]);
        assert_eq!(ethernet(&f.as_slice()), Err(Unparsed::Truncated), "{total}");
    }
    let f = frame(ETHERTYPE_IPV6, &[&ipv6_header(7, UDP), UDP_HELLO]);
    assert_eq!(ethernet(&f.as_slice()), Err(Unparsed::Truncated));
    let empty = frame(ETHERTYPE_IPV4, &[&ipv4_header(5, 28, 0, UDP), UDP_HELLO]);
    assert_eq!(datagram(&ethernet(&empty.as_slice()).unwrap()), (42, 0));
}

#[test]
fn what_is_not_for_us() {
    assert_eq!(ethernet(&frame(0x0806, &[&[0; 28]]).as_slice()), Err(Unparsed::NotIp));
    let icmp = frame(ETHERTYPE_IPV4, &[&ipv4_header(5, 28, 0, 1), &[8, 0, 0, 0, 0, 0, 0, 0]]);
    assert_eq!(ethernet(&icmp.as_slice()), Err(Unparsed::NotTcpOrUdp));
    let bad = frame(ETHERTYPE_IPV4, &[&ipv4_header(5, 33, 0, UDP)[..10]]);
    assert_eq!(ethernet(&bad.as_slice()), Err(Unparsed::Truncated));
    let mut short = ipv4_header(5, 33, 0, UDP);
    short[0] = 0x44;
    assert_eq!(ethernet(&frame(ETHERTYPE_IPV4, &[&short, UDP_HELLO]).as_slice()), Err(Unparsed::Malformed));
}

#[test]
fn tcp_payload_starts_behind_the_options() {
    let mut tcp = std::vec![0x04, 0xd2, 0x63, 0xdd];
    tcp.extend(7u32.to_be_bytes());
    tcp.extend(9u32.to_be_bytes());
    tcp.extend([0x80, ACK | 0x08, 1, 0, 0, 0, 0, 0]);
    tcp.extend([1; 12]);
    tcp.extend(b"abc");
    let f = frame(ETHERTYPE_IPV4, &[&ipv4_header(5, 55, 0, TCP), &tcp]);
    let p = ethernet(&f.as_slice()).unwrap();
    let s = segment(&f.as_slice(), &p).unwrap();
    assert_eq!((s.sequence, s.acknowledgement, s.payload, s.payload_len), (7, 9, 66, 3));
    for words in [4, 9, 15] {
        tcp[12] = words << 4;
        let f = frame(ETHERTYPE_IPV4, &[&ipv4_header(5, 55, 0, TCP), &tcp]);
        assert_eq!(segment(&f.as_slice(), &p), None, "a data offset of {words} words");
    }
}

proptest! {
    #[test]
    fn any_bytes_parse_without_a_panic_and_stay_inside(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let source = bytes.as_slice();
        if let Ok(p) = ethernet(&source) {
            prop_assert!(p.end <= source.len() as u32);
            if p.protocol == TCP {
                if let Some(s) = segment(&source, &p) {
                    prop_assert!(s.payload_len == 0 || s.payload + s.payload_len <= source.len() as u32);
                }
            } else {
                let (at, len) = datagram(&p);
                prop_assert!(len == 0 || at + len <= source.len() as u32);
            }
        }
    }

    #[test]
    fn every_cut_of_a_good_packet_is_told(cut in 0usize..47) {
        let f = frame(ETHERTYPE_IPV4, &[&ipv4_header(5, 33, 0, UDP), UDP_HELLO]);
        let outcome = ethernet(&&f[..cut.min(f.len())]);
        prop_assert!(outcome.is_ok() == (cut >= 42));
    }
}
