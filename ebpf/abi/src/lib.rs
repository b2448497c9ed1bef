//! The map keys and values that the BPF programs and user space share.
//!
//! Everything here is `repr(C)`, `Copy`, explicitly padded, and made of integers only: a bool or an enum
//! in a map value is undefined behaviour as soon as the other side writes a value that it does not name.
//! A change of any layout must change [`LAYOUT`]: pins of another layout are never adopted.
#![no_std]

pub mod gate;
pub mod record;
pub mod server;

/// Names the layout of every map; part of the pin path, so that two layouts never meet.
pub const LAYOUT: &str = "3";

/// How many servers one node can hold; the length of every array that a slot indexes.
pub const MAX_SERVERS: u32 = 4096;

/// The counters of what is no server's: a packet that can't be parsed has no port to tell whose it is.
pub const NO_SERVER: u32 = MAX_SERVERS;

/// How many cgroups may be probers.
pub const MAX_PROBERS: u32 = 1024;

/// Bytes of the ring buffer that carries parked packets and knocks (design §7).
pub const RING_BYTES: u32 = 16 << 20;
/// How much of the ring one server may hold at once.
pub const RING_QUOTA_SERVER: u64 = 256 << 10;
/// How much of the ring one source may hold at once.
pub const RING_QUOTA_SOURCE: u32 = 32 << 10;
/// Sources share this many quota counters, by a hash of (slot, address); a power of two.
pub const SOURCE_BUCKETS: u32 = 4096;

/// The index in the `NODE` array of each node-wide value.
///
/// `HEARTBEAT_NS`, `STALE_AFTER_NS` and `GUARD_LIMIT_NS` keep their places in every layout: the guard of one
/// release must see that the daemon of another lives.
pub mod node {
    /// `CLOCK_MONOTONIC` of the daemon's last heartbeat, nanoseconds.
    pub const HEARTBEAT_NS: u32 = 0;
    /// A heartbeat older than this many nanoseconds is stale: the door passes and only flags.
    pub const STALE_AFTER_NS: u32 = 1;
    /// The cookie of the daemon's replay socket; its packets skip the sleep gate (0 = none).
    pub const REPLAY_COOKIE: u32 = 2;
    /// Servers that are waiting for their first answer after a wake; 0 lets the answer hook return at once.
    pub const AWAITING_ANSWER: u32 = 3;
    /// Seeds the hash of the source quotas, so that nobody can choose whom to collide with.
    pub const SEED: u32 = 4;
    /// With a heartbeat stale for this many nanoseconds the guard wakes all (0 = the guard's own value).
    pub const GUARD_LIMIT_NS: u32 = 5;
    /// The length of the array.
    pub const LEN: u32 = 8;
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: repr(C), Copy, integers only, and no implicit padding (asserted beside each
    // type), so every byte of a value is initialised and every bit pattern is a valid value.
    unsafe impl aya::Pod for crate::server::ServerKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::server::ServerRef {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::server::ServerState {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::server::Counters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::server::FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::server::Flow {}
}
