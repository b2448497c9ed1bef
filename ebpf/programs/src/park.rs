//! Holding a packet in the ring buffer, and the notices that need no packet.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use dormouse_abi::{
    RING_QUOTA_SERVER, RING_QUOTA_SOURCE, SOURCE_BUCKETS,
    gate::{DRAINING, ONE_IN_FLIGHT, PARK, state},
    node,
    record::{FAST_OPEN, HEADER_LEN, KNOCK, PARKED, RecordHeader, SIZES},
    server::{FlowKey, ServerState},
};
use dormouse_packet::{Class, headers::Source as _};

use crate::{
    atomic::{fetch_add_u32, fetch_add_u64, fetch_sub_u64},
    maps::{QUOTAS, RING, gate, node_value},
    skb::{Skb, bounded},
};

/// How an attempt to hold a packet ended.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Parked {
    /// A record carries it: consume the packet.
    Yes,
    /// The gate moved on between the two looks: treat the packet as in `signal`.
    GateMoved,
    /// The ring or a quota is full.
    NoRoom,
}

/// Counts first and decides by the gate that the same operation read; then copies the packet.
#[inline(always)]
pub fn park(skb: Skb, key: &FlowKey, values: *mut ServerState, class: Class) -> Parked {
    let Some(word) = gate(key.slot) else { return Parked::NoRoom };
    let before = fetch_add_u64(word, ONE_IN_FLIGHT);
    if state(before) != PARK && state(before) != DRAINING {
        fetch_sub_u64(word, ONE_IN_FLIGHT);
        return Parked::GateMoved;
    }
    if record(skb, key, values, class) {
        return Parked::Yes;
    }
    fetch_sub_u64(word, ONE_IN_FLIGHT);
    Parked::NoRoom
}

/// Tells the daemon of a packet that it does not get. Lost when there is no room: the flags in the state
/// array are what a wake depends on.
#[inline(always)]
pub fn knock(skb: Skb, key: &FlowKey, values: *mut ServerState, class: Class) {
    notice(skb, key, values, class, KNOCK);
}

/// Tells the daemon of a handshake that a player's bytes came with, as far as can be seen from here.
#[inline(always)]
pub fn fast_open(skb: Skb, key: &FlowKey, values: *mut ServerState) {
    notice(skb, key, values, Class::Undecided, FAST_OPEN);
}

#[inline(always)]
fn notice(skb: Skb, key: &FlowKey, values: *mut ServerState, class: Class, kind: u8) {
    let Some(quota) = take_quota(key, values, HEADER_LEN as u32) else { return };
    let Some(mut entry) = RING.reserve::<RecordHeader>(0) else { return quota.give_back() };
    entry.write(header(skb, key, values, class, kind, 0, quota.bucket));
    entry.submit(0);
}

#[inline(always)]
fn record(skb: Skb, key: &FlowKey, values: *mut ServerState, class: Class) -> bool {
    let len = skb.len();
    if len as usize <= SIZES[0] {
        sized::<{ SIZES[0] }>(skb, key, values, class, len)
    } else if len as usize <= SIZES[1] {
        sized::<{ SIZES[1] }>(skb, key, values, class, len)
    } else {
        sized::<{ SIZES[2] }>(skb, key, values, class, len)
    }
}

/// A record as it lies in the ring.
#[repr(C)]
struct Record<const N: usize> {
    header: RecordHeader,
    bytes: [u8; N],
}

#[inline(always)]
fn sized<const N: usize>(skb: Skb, key: &FlowKey, values: *mut ServerState, class: Class, len: u32) -> bool {
    // The verifier wants the bound on the very register that is used as the length.
    let Some(len) = bounded(len, N as u64) else { return false };
    let Some(quota) = take_quota(key, values, size_of::<Record<N>>() as u32) else { return false };
    let Some(mut entry) = RING.reserve::<Record<N>>(0) else {
        quota.give_back();
        return false;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: `record` points at a reserved entry of exactly this size; len <= N.
    let copied = unsafe {
        (*record).header = header(skb, key, values, class, PARKED, len as u32, quota.bucket);
        skb.copy_to(0, (&raw mut (*record).bytes).cast(), len as u32)
    };
    if copied {
        entry.submit(0);
    } else {
        entry.discard(0);
        quota.give_back();
    }
    copied
}

#[inline(always)]
fn header(
    skb: Skb,
    key: &FlowKey,

    values: *mut ServerState,
    class: Class,
    kind: u8,
    len: u32,
    bucket: u32,
) -> RecordHeader {
    // SAFETY: a live map value.
    let sequence = fetch_add_u64(unsafe { &raw mut (*values).sequence }, 1);
    let (vlan_protocol, vlan_tag) = skb.vlan();
    RecordHeader {
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        sequence,
        slot: key.slot,
        ifindex: skb.ifindex(),
        len,
        gso_size: skb.gso_size(),
        kind,
        class: class as u8,
        source_bucket: bucket as u16,
        port: key.port,
        server_port: key.server_port,
        address: key.address,
        protocol: key.protocol,
        pad: [0; 3],
        vlan_protocol,
        vlan_tag,
    }
}

/// Room in the ring that was taken for one record; the daemon gives it back when it has read the record.
struct Quota {
    server: *mut u64,
    source: *mut u32,
    bucket: u32,
    bytes: u32,
}

impl Quota {
    #[inline(always)]
    fn give_back(&self) {
        fetch_sub_u64(self.server, u64::from(self.bytes));
        let _ = fetch_add_u32(self.source, self.bytes.wrapping_neg());
    }
}

#[inline(always)]
fn take_quota(key: &FlowKey, values: *mut ServerState, bytes: u32) -> Option<Quota> {
    let bucket = source_bucket(key);
    let source = QUOTAS.get_ptr_mut(bucket)?;
    // SAFETY: a live map value.
    let of_server = unsafe { &raw mut (*values).parked_bytes };
    let quota = Quota { server: of_server, source, bucket, bytes };
    let server_had = fetch_add_u64(of_server, u64::from(bytes));
    let source_had = fetch_add_u32(source, bytes);
    if server_had + u64::from(bytes) > RING_QUOTA_SERVER || source_had + bytes > RING_QUOTA_SOURCE {
        quota.give_back();
        return None;
    }
    Some(quota)
}

/// The quota counter of a source at a server: a seeded mix (the finaliser of MurmurHash3), so that nobody
/// can choose whom to share one with.
#[inline(always)]
fn source_bucket(key: &FlowKey) -> u32 {
    let a = &key.address;
    let words = [
        u32::from_ne_bytes([a[0], a[1], a[2], a[3]]),
        u32::from_ne_bytes([a[4], a[5], a[6], a[7]]),
        u32::from_ne_bytes([a[8], a[9], a[10], a[11]]),
        u32::from_ne_bytes([a[12], a[13], a[14], a[15]]),
        key.slot,
    ];
    let mut hash = node_value(node::SEED) as u32;
    for word in words {
        hash ^= word;
        hash ^= hash >> 16;
        hash = hash.wrapping_mul(0x85eb_ca6b);
        hash ^= hash >> 13;
        hash = hash.wrapping_mul(0xc2b2_ae35);
        hash ^= hash >> 16;
    }
    hash & (SOURCE_BUCKETS - 1)
}
