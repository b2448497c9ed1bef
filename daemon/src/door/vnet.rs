//! A parked packet as it goes back: whole again, one or several frames, each with the virtio header that tells
//! the kernel what is left to be done.

use dormouse_packet::headers::{self, ETHERNET_LEN, Fragment, Packet, TCP};

use super::{Parked, ring::VlanTag};

/// `struct virtio_net_hdr` of include/uapi/linux/virtio_net.h, as PACKET_VNET_HDR wants it before a frame.
pub const VNET_LEN: usize = 10;
const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;
/// The CWR flag: a burst that carries it must be segmented with ECN in mind.
const CWR: u8 = 0x80;

const UDP_HEADER: usize = 8;

/// One frame, ready to be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub header: [u8; VNET_LEN],
    pub frame: Vec<u8>,
}

/// What to send for a parked packet. A burst of datagrams becomes one frame each: kernels before 6.2 know no
/// `VIRTIO_NET_HDR_GSO_UDP_L4`.
///
/// # Errors
/// The frame is no packet.
pub fn prepare(parked: &mut Parked) -> Result<Vec<Outgoing>, headers::Unparsed> {
    let packet = headers::ethernet(&parked.frame.as_slice())?;
    let mut frame = std::mem::take(&mut parked.frame);
    // What the link layer filled up would be taken for payload by whoever computes a checksum over the rest.
    frame.truncate(packet.end as usize);
    let each = parked.gso_size as usize;
    let payload = packet.transport as usize + UDP_HEADER;
    let mut frames = vec![];
    let is_whole = packet.fragment == Fragment::Whole;
    if packet.protocol != TCP && is_whole && each != 0 && frame.len() > payload + each {
        for (number, part) in frame[payload..].chunks(each).enumerate() {
            let mut one = frame[..payload].to_vec();
            one.extend_from_slice(part);
            set_lengths(&mut one, &packet, number as u16);
            let packet = Packet { end: one.len() as u32, ..packet };
            let header = ask_for_checksum(&mut one, &packet);
            frames.push((header, one));
        }
    } else {
        let header = vnet_header(&mut frame, &packet, parked.gso_size);
        frames.push((header, frame));
    }
    Ok(frames.into_iter().map(|(header, frame)| tagged(header, frame, parked.vlan)).collect())
}

/// The virtio header for a frame.
///
/// Only a checksum that was parked unfinished (a local sender's, or one that the kernel merged out of several
/// segments) is left to the kernel: it then holds the pseudo header's sum. A finished one goes back as it is, so
/// that a packet that was damaged on its way is still refused by the server's kernel. So does a first fragment,
/// whose checksum covers the whole datagram, and a UDP datagram without one (RFC 768).
fn vnet_header(frame: &mut [u8], packet: &Packet, gso_size: u32) -> [u8; VNET_LEN] {
    let transport = packet.transport as usize;
    let field = checksum_field(packet);
    if packet.fragment != Fragment::Whole || frame.len() < field + 2 {
        return [0; VNET_LEN];
    }
    let is_tcp = packet.protocol == TCP;
    let header_len = if is_tcp { usize::from(frame[transport + 12] >> 4) * 4 } else { UDP_HEADER };
    let is_burst = is_tcp && gso_size != 0 && frame.len() > transport + header_len + gso_size as usize;
    let sum = pseudo_header_sum(frame, packet);
    let held = u16::from_be_bytes([frame[field], frame[field + 1]]);
    // Zero has two forms in one's complement (RFC 1071).
    let is_unfinished = held != 0 && held % 0xffff == sum % 0xffff;
    if !is_unfinished && !is_burst {
        return [0; VNET_LEN];
    }
    let mut header = ask_for_checksum(frame, packet);
    if is_burst {
        header[1] = if packet.is_ipv6 { GSO_TCPV6 } else { GSO_TCPV4 };
        if frame[transport + 13] & CWR != 0 {
            header[1] |= GSO_ECN;
        }
        header[2..4].copy_from_slice(&((transport + header_len) as u16).to_ne_bytes());
        header[4..6].copy_from_slice(&(gso_size as u16).to_ne_bytes());
    }
    header
}

/// Sets the checksum field to the pseudo header's sum and leaves the rest to the kernel. A datagram without a
/// checksum stays without.
fn ask_for_checksum(frame: &mut [u8], packet: &Packet) -> [u8; VNET_LEN] {
    let mut header = [0; VNET_LEN];
    let field = checksum_field(packet);
    if packet.protocol != TCP && frame[field..field + 2] == [0, 0] {
        return header;
    }
    let sum = pseudo_header_sum(frame, packet);
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    let transport = packet.transport as usize;
    header[0] = NEEDS_CSUM;
    header[6..8].copy_from_slice(&(transport as u16).to_ne_bytes());
    header[8..10].copy_from_slice(&((field - transport) as u16).to_ne_bytes());
    header
}

const fn checksum_field(packet: &Packet) -> usize {
    packet.transport as usize + if packet.protocol == TCP { 16 } else { 6 }
}

/// Puts the tag where it stands on a wire. The kernel's offsets count from the frame's start.
fn tagged(mut header: [u8; VNET_LEN], mut frame: Vec<u8>, vlan: Option<VlanTag>) -> Outgoing {
    const TAG: u16 = 4;
    if let Some(vlan) = vlan {
        let [a, b] = vlan.protocol.to_be_bytes();
        let [c, d] = vlan.content.to_be_bytes();
        let at = ETHERNET_LEN as usize - 2;
        frame.splice(at..at, [a, b, c, d]);
        for offset in [2..4, 6..8] {
            let old = u16::from_ne_bytes([header[offset.start], header[offset.start + 1]]);
            if old != 0 {
                header[offset].copy_from_slice(&(old + TAG).to_ne_bytes());
            }
        }
    }
    Outgoing { header, frame }
}

/// The lengths, identification and header checksum of the `number`th datagram of a burst, as the kernel's own
/// segmentation sets them (`__udp_gso_segment`, `inet_gso_segment`).
fn set_lengths(frame: &mut [u8], packet: &Packet, number: u16) {
    let (network, transport) = (packet.network as usize, packet.transport as usize);
    let udp_len = (frame.len() - transport) as u16;
    frame[transport + 4..transport + 6].copy_from_slice(&udp_len.to_be_bytes());
    if packet.is_ipv6 {
        let len = (frame.len() - network - 40) as u16;
        frame[network + 4..network + 6].copy_from_slice(&len.to_be_bytes());
        return;
    }
    let len = (frame.len() - network) as u16;
    frame[network + 2..network + 4].copy_from_slice(&len.to_be_bytes());
    let id = u16::from_be_bytes([frame[network + 4], frame[network + 5]]).wrapping_add(number);
    frame[network + 4..network + 6].copy_from_slice(&id.to_be_bytes());
    frame[network + 10..network + 12].fill(0);
    let sum = !folded(words(&frame[network..transport]));
    frame[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
}

/// The folded, not inverted sum over the pseudo header (RFC 9293 §3.1, RFC 8200 §8.1): what a partial
/// checksum holds.
fn pseudo_header_sum(frame: &[u8], packet: &Packet) -> u16 {
    let network = packet.network as usize;
    let addresses = if packet.is_ipv6 { network + 8..network + 40 } else { network + 12..network + 20 };
    let length = u64::from(packet.end - packet.transport);
    folded(u64::from(packet.protocol) + length + words(&frame[addresses]))
}

fn words(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

fn folded(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Whatever was parked can be given back, and no byte of it is made up.
#[cfg(fuzzing)]
pub fn fuzz(gso_size: u32, frame: &[u8]) {
    use dormouse_packet::Class;

    use super::Knock;

    let knock = Knock {
        slot: 0,
        class: Class::Undecided,
        from: ([192, 0, 2, 1], 1).into(),
        server_port: 1,
        protocol: TCP,
        time_ns: 0,
    };
    let mut parked = Parked { knock, sequence: 0, ifindex: 1, gso_size, vlan: None, frame: frame.to_vec() };
    if let Ok(frames) = prepare(&mut parked) {
        assert!(frames.iter().all(|outgoing| outgoing.frame.len() <= frame.len()));
    }
}

#[cfg(test)]
mod tests;
