//! Frames by hand: what a client's kernel would not send, or not in this order.

use std::net::IpAddr;

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;
pub const FIN: u8 = 0x01;
pub const RST: u8 = 0x04;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// An Ethernet header.
pub fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend(from);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

/// Puts a VLAN tag (IEEE 802.1Q) into a frame, outside of those that it has.
pub fn tagged(frame: &[u8], protocol: u16, tag: u16) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    out.extend(protocol.to_be_bytes());
    out.extend(tag.to_be_bytes());
    out.extend(&frame[12..]);
    out
}

/// What stands in an IP header besides the addresses.
#[derive(Clone, Copy, Debug)]
pub struct Ip<'a> {
    pub from: IpAddr,
    pub to: IpAddr,
    pub protocol: u8,
    /// IPv4 options (a multiple of 4 bytes), or IPv6 extension headers whose last names `protocol` itself;
    /// the first one's number is `first_extension`.
    pub options: &'a [u8],
    pub first_extension: u8,
    pub id: u16,
    /// Offset in bytes (a multiple of 8) and whether more follow; IPv4 only.
    pub fragment: Option<(u16, bool)>,
}

impl Ip<'_> {
    pub fn new(from: IpAddr, to: IpAddr, protocol: u8) -> Self {
        Self { from, to, protocol, options: &[], first_extension: 0, id: 1, fragment: None }
    }

    /// The packet around a payload: header, options, payload.
    ///
    /// # Panics
    /// When the two addresses are of different families.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let len = 20 + self.options.len();
                let mut p = vec![0x40 | (len / 4) as u8, 0];
                p.extend(((len + payload.len()) as u16).to_be_bytes());
                p.extend(self.id.to_be_bytes());
                let (offset, more) = self.fragment.unwrap_or((0, false));
                p.extend(((offset / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
                p.extend([64, self.protocol, 0, 0]);
                p.extend(from.octets());
                p.extend(to.octets());
                p.extend(self.options);
                let sum = !fold(words(&p));
                p[10..12].copy_from_slice(&sum.to_be_bytes());
                p.extend(payload);
                p
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut p = vec![0x60, 0, 0, 0];
                p.extend(((self.options.len() + payload.len()) as u16).to_be_bytes());
                let next = if self.options.is_empty() { self.protocol } else { self.first_extension };
                p.extend([next, 64]);
                p.extend(from.octets());
                p.extend(to.octets());
                p.extend(self.options);
                p.extend(payload);
                p
            }
            _ => panic!("{} to {}: two families", self.from, self.to),
        }
    }

    /// A UDP datagram (header and payload) with its checksum.
    pub fn udp(&self, source: u16, port: u16, payload: &[u8]) -> Vec<u8> {
        let mut u = Vec::new();
        u.extend(source.to_be_bytes());
        u.extend(port.to_be_bytes());
        u.extend((8 + payload.len() as u16).to_be_bytes());
        u.extend([0, 0]);
        u.extend(payload);
        let sum = match self.checksum(&u) {
            0 => 0xffff,
            sum => sum,
        };
        u[6..8].copy_from_slice(&sum.to_be_bytes());
        u
    }

    /// A TCP segment (header and payload) with its checksum.
    pub fn tcp(&self, tcp: &Tcp<'_>) -> Vec<u8> {
        let mut t = Vec::new();
        t.extend(tcp.source.to_be_bytes());
        t.extend(tcp.port.to_be_bytes());
        t.extend(tcp.sequence.to_be_bytes());
        t.extend(tcp.acknowledgement.to_be_bytes());
        t.extend([(((20 + tcp.options.len()) / 4) << 4) as u8, tcp.flags, 0xff, 0xff, 0, 0, 0, 0]);
        t.extend(tcp.options);
        t.extend(tcp.payload);
        let sum = self.checksum(&t);
        t[16..18].copy_from_slice(&sum.to_be_bytes());
        t
    }

    fn checksum(&self, transport: &[u8]) -> u16 {
        let addresses = match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
            (from, to) => {
                let octets = |ip| match ip {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                [octets(from), octets(to)].concat()
            }
        };
        !fold(words(&addresses) + u64::from(self.protocol) + transport.len() as u64 + words(transport))
    }
}

/// A TCP segment's own fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp<'a> {
    pub source: u16,
    pub port: u16,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
    pub options: &'a [u8],
    pub payload: &'a [u8],
}

fn words(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|w| u64::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)]))).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
