use dormouse_packet::Class;
use proptest::prelude::*;

use super::*;
use crate::door::Knock;

/// 10.0.0.1 + 10.0.0.2 + 17 + 13: what an unfinished checksum of [`udp_frame`] holds.
const UNFINISHED: u16 = 0x0a00 + 1 + 0x0a00 + 2 + 17 + 13;

fn udp_frame(checksum: u16, flags: u16) -> Vec<u8> {
    let mut f = vec![0; 12];
    f.extend([8, 0, 0x45, 0, 0, 33, 0, 1]);
    f.extend(flags.to_be_bytes());
    f.extend([64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    f.extend([0x04, 0xd2, 0x63, 0xdd, 0, 13]);
    f.extend(checksum.to_be_bytes());
    f.extend(b"hello");
    f
}

fn tcp_burst(payload: usize) -> Vec<u8> {
    let mut f = vec![0; 12];
    f.extend([8, 0, 0x45, 0]);
    f.extend((52 + payload as u16).to_be_bytes());
    f.extend([0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    f.extend([0x04, 0xd2, 0x63, 0xdd, 0, 0, 0, 1, 0, 0, 0, 2, 0x80, 0x90, 1, 0, 0, 0, 0, 0]);
    f.extend([1; 12]);
    f.resize(f.len() + payload, 7);
    f
}

fn parked(frame: Vec<u8>, gso_size: u32, vlan: Option<VlanTag>) -> Parked {
    let knock = Knock {
        slot: 1,
        class: Class::Player,
        from: ([192, 0, 2, 7], 1234).into(),
        server_port: 25565,
        protocol: 17,
        time_ns: 0,
    };
    Parked { knock, sequence: 0, ifindex: 2, gso_size, vlan, frame }
}

fn one(frame: Vec<u8>, gso_size: u32) -> Outgoing {
    let mut all = prepare(&mut parked(frame, gso_size, None)).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn an_unfinished_checksum_is_left_to_the_kernel() {
    let out = one(udp_frame(UNFINISHED, 0), 0);
    assert_eq!(out.header, [1, 0, 0, 0, 0, 0, 34, 0, 6, 0]);
    assert_eq!(out.frame, udp_frame(UNFINISHED, 0));
}

/// Also a wrong one: the server's kernel must see that the datagram was damaged.
#[test]
fn a_finished_checksum_goes_back_as_it_is() {
    for frame in [udp_frame(0, 0), udp_frame(0x1234, 0), udp_frame(UNFINISHED, 0x2000)] {
        let out = one(frame.clone(), 0);
        assert_eq!((out.header, out.frame), ([0; VNET_LEN], frame));
    }
}

#[test]
fn padding_does_not_come_along() {
    let mut frame = udp_frame(UNFINISHED, 0);
    frame.resize(60, 0xee);
    assert_eq!(one(frame, 0).frame, udp_frame(UNFINISHED, 0));
}

#[test]
fn a_burst_is_segmented_again() {
    let out = one(tcp_burst(3000), 1448);
    assert_eq!(out.header[..2], [NEEDS_CSUM, GSO_TCPV4 | GSO_ECN]);
    assert_eq!(out.header[2..6], [66, 0, 0xa8, 0x05]);
}

#[test]
fn a_tag_stands_behind_the_addresses_and_moves_the_offsets() {
    let tag = VlanTag { protocol: 0x8100, content: 0xe007 };
    let all = prepare(&mut parked(tcp_burst(3000), 1448, Some(tag))).unwrap();
    assert_eq!(all[0].frame[12..18], [0x81, 0, 0xe0, 7, 8, 0]);
    assert_eq!(all[0].header[2..4], [70, 0]);
    assert_eq!(all[0].header[6..8], [38, 0]);
    let packet = headers::ethernet(&all[0].frame.as_slice()).unwrap();
    assert_eq!((packet.network, packet.destination_port), (18, 25565));
    let plain = prepare(&mut parked(udp_frame(0x1234, 0), 0, Some(tag))).unwrap();
    assert_eq!(plain[0].header, [0; VNET_LEN]);
}

#[test]
fn a_burst_of_datagrams_becomes_datagrams() {
    let mut frame = udp_frame(1, 0);
    frame.truncate(42);
    frame.extend((0..250u8).collect::<Vec<_>>());
    let total = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    let all = prepare(&mut parked(frame, 100, None)).unwrap();
    let mut payload = vec![];
    for (number, out) in all.iter().enumerate() {
        let packet = headers::ethernet(&out.frame.as_slice()).unwrap();
        assert_eq!(packet.end as usize, out.frame.len());
        assert_eq!(out.header[0], NEEDS_CSUM);
        assert_eq!(out.frame[18..20], [0, 1 + number as u8]);
        assert_eq!(folded(words(&out.frame[14..34])), 0xffff, "the header's checksum");
        let (at, len) = headers::datagram(&packet);
        assert_eq!(out.frame[38..40], (len as u16 + 8).to_be_bytes());
        payload.extend_from_slice(&out.frame[at as usize..]);
    }
    assert_eq!((all.len(), payload), (3, (0..250u8).collect()));
}

proptest! {
    /// Whatever the door handed over, the watch thread must not stumble over it.
    #[test]
    fn any_frame_is_prepared_or_refused(
        start in proptest::sample::select(vec![udp_frame(UNFINISHED, 0), tcp_burst(100), vec![]]),
        changes in proptest::collection::vec((0usize..80, any::<u8>()), 0..6),
        cut in 0usize..200,
        gso_size in prop_oneof![Just(0u32), 1u32..2000],
        tag in any::<bool>(),
    ) {
        let mut frame = start;
        for (at, byte) in changes {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        frame.truncate(cut);
        let vlan = tag.then_some(VlanTag { protocol: 0x8100, content: 7 });
        if let Ok(all) = prepare(&mut parked(frame, gso_size, vlan)) {
            prop_assert!(all.iter().all(|out| out.frame.len() >= 14));
        }
    }
}
