//! Reading records out of the ring. They are copied out at once: the ring is released in order, and one
//! that was held back would block every other server.

use std::{
    net::{Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
};

use aya::maps::{MapData, RingBuf};
use dormouse_abi::record::{self, HEADER_LEN, RecordHeader, SIZES};
use dormouse_packet::Class;

use super::Arrays;

/// Who knocked, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knock {
    pub slot: u32,
    pub class: Class,
    /// An IPv4 client is shown as IPv4.
    pub from: SocketAddr,
    pub server_port: u16,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
}

/// A packet that the door consumed: it must be replayed, or end as expired or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    pub knock: Knock,
    pub sequence: u64,
    pub ifindex: u32,
    /// Segment size of a GSO burst; 0 for a plain packet.
    pub gso_size: u32,
    /// The VLAN tag that the kernel carried beside the bytes: it belongs behind the link addresses.
    pub vlan: Option<VlanTag>,
    /// The whole frame.
    pub frame: Vec<u8>,
}

/// A VLAN tag (IEEE 802.1Q).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    pub protocol: u16,
    /// Priority and VLAN id.
    pub content: u16,
}

/// What the door hands over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Parked(Parked),
    Knock(Knock),
    /// A handshake whose SYN carried a player's first bytes, if it is true.
    FastOpen(Knock),
}

impl Record {
    pub fn knock(&self) -> &Knock {
        match self {
            Self::Parked(parked) => &parked.knock,
            Self::Knock(knock) | Self::FastOpen(knock) => knock,
        }
    }
}

/// The only reader of the ring.
pub struct RecordReader {
    ring: RingBuf<MapData>,
    arrays: Arc<Arrays>,
}

impl RecordReader {
    pub(super) fn new(ring: RingBuf<MapData>, arrays: Arc<Arrays>) -> Self {
        Self { ring, arrays }
    }
}

impl Iterator for RecordReader {
    type Item = Record;

    /// The next record, if there is one; its room in the ring and its quota are free again.
    fn next(&mut self) -> Option<Record> {
        loop {
            let item = self.ring.next()?;
            let Some((header, frame)) = RecordHeader::read(&item) else { continue };
            let record = decode(&header, frame);
            self.arrays.give_back(header.slot, header.source_bucket, reserved(&header));
            return Some(record);
        }
    }
}

impl AsRawFd for RecordReader {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

/// The bytes that the program took from the quotas for this record.
fn reserved(header: &RecordHeader) -> u32 {
    if header.kind != record::PARKED {
        return HEADER_LEN as u32;
    }
    let size = SIZES.into_iter().find(|size| header.len as usize <= *size).unwrap_or(SIZES[2]);
    (HEADER_LEN + size) as u32
}

fn decode(header: &RecordHeader, frame: &[u8]) -> Record {
    let address = Ipv6Addr::from(header.address).to_canonical();
    let knock = Knock {
        slot: header.slot,
        class: Class::from_number(header.class),
        from: SocketAddr::new(address, header.port),
        server_port: header.server_port,
        protocol: header.protocol,
        time_ns: header.time_ns,
    };
    match header.kind {
        record::PARKED => {}
        record::FAST_OPEN => return Record::FastOpen(knock),
        _ => return Record::Knock(knock),
    }
    let tag = VlanTag { protocol: header.vlan_protocol, content: header.vlan_tag };
    Record::Parked(Parked {
        knock,
        sequence: header.sequence,
        ifindex: header.ifindex,
        gso_size: header.gso_size,
        vlan: (tag.protocol != 0).then_some(tag),
        frame: frame.to_vec(),
    })
}

#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    if let Some((header, frame)) = RecordHeader::read(bytes) {
        assert!(reserved(&header) >= HEADER_LEN as u32);
        let _ = decode(&header, frame);
    }
}
