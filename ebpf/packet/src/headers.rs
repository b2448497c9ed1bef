//! Link, network and transport headers, down to the payload.
//!
//! IPv4 options, IPv6 extension headers, inline VLAN tags and fragments are parsed, not assumed away: what
//! can't be parsed is passed by the door and counted, so a wrong guess here would be a hole or a lost player.

/// Where bytes come from: an skb in the kernel, a slice on the host.
pub trait Source {
    /// The packet's length in bytes.
    fn len(&self) -> u32;
    /// The `N` bytes at `at`; `None` past the end.
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]>;
    /// [`Source::load`] for an offset that is one of a few numbers known beforehand: a kernel may have a
    /// quicker way to these.
    #[inline(always)]
    fn load_front<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.load(at)
    }
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Source for &[u8] {
    fn len(&self) -> u32 {
        (**self).len() as u32
    }

    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.get(at as usize..)?.first_chunk::<N>().copied()
    }
}

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
pub const ETHERNET_LEN: u32 = 14;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// RFC 8200 puts no bound on a chain of extension headers; no sender needs more than these.
const MAX_EXTENSIONS: usize = 6;

/// Why a packet has no (address, port, protocol). The door passes all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unparsed {
    /// ARP, LLDP, …: not for us.
    NotIp,
    /// ICMP, SCTP, …: never parked (design §3).
    NotTcpOrUdp,
    /// Shorter than its own headers say.
    Truncated,
    /// A header field that no valid packet carries.
    Malformed,
    /// More extension headers or VLAN tags than we follow.
    TooDeep,
}

impl Unparsed {
    /// It claims to be a packet of ours and can't be followed: to be counted. The others are none of ours.
    pub const fn is_broken(self) -> bool {
        matches!(self, Self::Truncated | Self::Malformed | Self::TooDeep)
    }
}

/// Where in a datagram a packet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    Whole,
    /// It has the ports; the rest follows.
    First,
    /// It has no ports.
    Later,
}

/// The ports and offsets of a TCP or UDP packet. Its addresses are read when they are asked for
/// ([`source_address`]): most packets' are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Host byte order; 0 in a later fragment.
    pub source_port: u16,
    pub destination_port: u16,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    pub fragment: Fragment,
    pub is_ipv6: bool,
    /// Offset of the IP header.
    pub network: u32,
    /// Offset of the TCP or UDP header.
    pub transport: u32,
    /// Where the IP packet ends: link-layer padding may follow.
    pub end: u32,
}

/// The payload of a TCP segment and what is said about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub sequence: u32,
    pub acknowledgement: u32,
    /// The flag bits of RFC 9293 §3.1.
    pub flags: u8,
    pub payload: u32,
    pub payload_len: u32,
}

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

const fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

const fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Parses an Ethernet frame.
pub fn ethernet<S: Source>(source: &S) -> Result<Packet, Unparsed> {
    let head = source.load::<14>(0).ok_or(Unparsed::Truncated)?;
    network(source, ETHERNET_LEN, u16_at(&head, 12))
}

/// Parses from the network header at `at`, whose type is `ethertype`; VLAN tags may still stand before it.
#[inline(always)]
pub fn network<S: Source>(source: &S, at: u32, ethertype: u16) -> Result<Packet, Unparsed> {
    let (mut at, mut ethertype) = (at, ethertype);
    for _ in 0..2 {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
            break;
        }
        let tag = source.load::<4>(at).ok_or(Unparsed::Truncated)?;
        ethertype = u16_at(&tag, 2);
        at += 4;
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(source, at),
        ETHERTYPE_IPV6 => ipv6(source, at),
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => Err(Unparsed::TooDeep),
        _ => Err(Unparsed::NotIp),
    }
}

#[inline(always)]
fn ipv4<S: Source>(source: &S, at: u32) -> Result<Packet, Unparsed> {
    // Without options (nearly always) the ports stand right behind the 20 bytes of header.
    let head = source.load_front::<24>(at).ok_or(Unparsed::Truncated)?;
    let words = u32::from(head[0] & 0x0f);
    if head[0] >> 4 != 4 || words < 5 {
        return Err(Unparsed::Malformed);
    }
    let protocol = head[9];
    if protocol != TCP && protocol != UDP {
        return Err(Unparsed::NotTcpOrUdp);
    }
    let transport = at + words * 4;
    let fragment = match u16_at(&head, 6) {
        bits if bits & 0x1fff != 0 => Fragment::Later,
        bits if bits & 0x2000 != 0 => Fragment::First,
        _ => Fragment::Whole,
    };
    let ports = if words == 5 {
        [head[20], head[21], head[22], head[23]]
    } else {
        source.load::<4>(transport).ok_or(Unparsed::Truncated)?
    };
    // A GSO burst above 64 KiB says 0 (BIG TCP, Linux 6.3): then the skb's own length counts.
    let end = match u32::from(u16_at(&head, 2)) {
        0 => source.len(),
        total => (at + total).min(source.len()),
    };
    let packet = Packet {
        source_port: 0,
        destination_port: 0,
        protocol,
        fragment,
        is_ipv6: false,
        network: at,
        transport,
        end,
    };
    with_ports(packet, ports)
}

#[inline(always)]
fn ipv6<S: Source>(source: &S, at: u32) -> Result<Packet, Unparsed> {
    let head = source.load_front::<40>(at).ok_or(Unparsed::Truncated)?;
    if head[0] >> 4 != 6 {
        return Err(Unparsed::Malformed);
    }
    // A jumbo burst says 0 (BIG TCP over IPv6, Linux 5.19).
    let end = match u32::from(u16_at(&head, 4)) {
        0 => source.len(),
        payload => (at + 40 + payload).min(source.len()),
    };
    let (mut protocol, mut transport, mut fragment) = (head[6], at + 40, Fragment::Whole);
    for _ in 0..MAX_EXTENSIONS {
        // RFC 8200 §4: hop-by-hop 0, routing 43, fragment 44, destination options 60.
        match protocol {
            0 | 43 | 60 => {
                let extension = source.load::<2>(transport).ok_or(Unparsed::Truncated)?;
                protocol = extension[0];
                transport += (u32::from(extension[1]) + 1) * 8;
            }
            44 => {
                let extension = source.load::<4>(transport).ok_or(Unparsed::Truncated)?;
                protocol = extension[0];
                transport += 8;
                let bits = u16_at(&extension, 2);
                if bits >> 3 != 0 {
                    fragment = Fragment::Later;
                    break;
                } else if bits & 1 != 0 {
                    fragment = Fragment::First;
                }
            }
            _ => break,
        }
    }
    match protocol {
        TCP | UDP => {}
        0 | 43 | 44 | 60 if !matches!(fragment, Fragment::Later) => return Err(Unparsed::TooDeep),
        _ => return Err(Unparsed::NotTcpOrUdp),
    }
    let packet = Packet {
        source_port: 0,
        destination_port: 0,
        protocol,
        fragment,
        is_ipv6: true,
        network: at,
        transport,
        end,
    };
    if matches!(fragment, Fragment::Later) {
        return Ok(packet);
    }
    let ports = source.load::<4>(transport).ok_or(Unparsed::Truncated)?;
    with_ports(packet, ports)
}

/// Who sent it; an IPv4 address is mapped (`::ffff:a.b.c.d`, RFC 4291 §2.5.5.2).
#[inline(always)]
pub fn source_address<S: Source>(source: &S, packet: &Packet) -> Option<[u8; 16]> {
    if packet.is_ipv6 {
        return source.load(packet.network + 8);
    }
    let mut address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0];
    address[12..].copy_from_slice(&source.load::<4>(packet.network + 12)?);
    Some(address)
}

/// The least that a first fragment carries, and the whole of a UDP header.
const LEAST_TRANSPORT: u32 = 8;

#[inline(always)]
fn with_ports(mut packet: Packet, ports: [u8; 4]) -> Result<Packet, Unparsed> {
    if !matches!(packet.fragment, Fragment::Later) {
        // A length field may end the packet before its ports, which were then read from the padding behind it.
        if packet.end < packet.transport + LEAST_TRANSPORT {
            return Err(Unparsed::Truncated);
        }
        packet.source_port = u16_at(&ports, 0);
        packet.destination_port = u16_at(&ports, 2);
    }
    Ok(packet)
}

/// The TCP header of a packet whose protocol is [`TCP`] and which is no later fragment; `None` when it is no whole
/// header (a tiny first fragment, a false data offset): nothing can be said of such a segment.
#[inline(always)]
pub fn segment<S: Source>(source: &S, packet: &Packet) -> Option<Segment> {
    let head = source.load::<14>(packet.transport)?;
    let header_len = u32::from(head[12] >> 4) * 4;
    let payload = packet.transport + header_len;
    if header_len < 20 || payload > packet.end {
        return None;
    }
    Some(Segment {
        sequence: u32_at(&head, 4),
        acknowledgement: u32_at(&head, 8),
        flags: head[13],
        payload,
        payload_len: packet.end - payload,
    })
}

/// Offset and length of the payload of a packet whose protocol is [`UDP`].
#[inline(always)]
pub const fn datagram(packet: &Packet) -> (u32, u32) {
    let payload = packet.transport + 8;
    (payload, packet.end.saturating_sub(payload))
}

#[cfg(test)]
mod tests;
