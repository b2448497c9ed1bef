//! What the ring buffer carries: a fixed header, then the packet's bytes from its first header on.

/// Bytes before the packet.
pub const HEADER_LEN: usize = size_of::<RecordHeader>();

/// Ring records need a constant size to be reserved; a packet takes the smallest of these that holds it.
/// The largest holds a client's first burst (ten segments, RFC 6928) or a jumbo frame; two of it fit into a
/// source's quota. What is larger passes and wakes.
pub const SIZES: [usize; 3] = [256, 2048, 15 << 10];

/// The packet was consumed by the door: it must be replayed, or end as expired or refused.
pub const PARKED: u8 = 1;
/// Only a notice: the packet passed or was consumed as noise; no bytes follow.
pub const KNOCK: u8 = 2;
/// Only a notice: a handshake is complete whose SYN carried a player's first bytes (TCP Fast Open, RFC 7413).
/// Nothing proves yet that the server's kernel took it: a SYN and an ACK can be invented.
pub const FAST_OPEN: u8 = 3;

/// The head of a record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// `CLOCK_MONOTONIC` when the door saw the packet, nanoseconds.
    pub time_ns: u64,
    /// Order among the records of one server.
    pub sequence: u64,
    pub slot: u32,
    /// Where the door saw it, and where a replay goes.
    pub ifindex: u32,
    /// Bytes of packet that follow the header, link-layer header included.
    pub len: u32,
    /// From `__sk_buff`: segment size of a GSO burst, 0 for a plain packet.
    pub gso_size: u32,
    /// [`PARKED`], [`KNOCK`] or [`FAST_OPEN`].
    pub kind: u8,
    /// A number of the packet crate's `Class`.
    pub class: u8,
    /// The bucket of the source's quota, to take the bytes back from.
    pub source_bucket: u16,
    /// The client's port, host byte order.
    pub port: u16,
    /// The server's port, host byte order.
    pub server_port: u16,
    /// The client's address; an IPv4 address is mapped.
    pub address: [u8; 16],
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    pub pad: [u8; 3],
    /// EtherType of the VLAN tag that the kernel carries beside the packet's bytes; 0 = none.
    pub vlan_protocol: u16,
    /// That tag: priority and VLAN id, host byte order.
    pub vlan_tag: u16,
}

impl RecordHeader {
    /// Reads the header of a record out of the ring.
    ///
    /// # Errors
    /// `None` when the record is shorter than a header.
    pub fn read(record: &[u8]) -> Option<(Self, &[u8])> {
        if record.len() < HEADER_LEN {
            return None;
        }
        // SAFETY: the length was checked, and every bit pattern is a valid header (integers only).
        let header = unsafe { record.as_ptr().cast::<Self>().read_unaligned() };
        let end = HEADER_LEN.checked_add(header.len as usize)?;
        Some((header, record.get(HEADER_LEN..end)?))
    }
}

const _: () = assert!(HEADER_LEN == 64);
