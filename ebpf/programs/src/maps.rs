//! The maps. All are pinned: a restarted daemon adopts them, and the guard reads three.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use dormouse_abi::{
    MAX_PROBERS, MAX_SERVERS, NO_SERVER, RING_BYTES, SOURCE_BUCKETS, node,
    server::{Counters, Flow, FlowKey, ServerKey, ServerRef, ServerState},
};
use dormouse_packet::window::WINDOW;

/// `BPF_F_MMAPABLE` (Linux 5.5): user space reads and changes these without a system call.
const MMAPABLE: u32 = 1 << 10;

/// Conversations that are remembered; the least recently used makes room.
const FLOW_ENTRIES: u32 = 65_536;
/// Undecided TCP streams whose first bytes are kept.
const PREFIX_ENTRIES: u32 = 1024;

#[map]
pub static NODE: Array<u64> = Array::pinned(node::LEN, MMAPABLE);
#[map]
pub static SERVERS: HashMap<ServerKey, ServerRef> = HashMap::pinned(4 * MAX_SERVERS, 0);
#[map]
pub static GATES: Array<u64> = Array::pinned(MAX_SERVERS, MMAPABLE);
#[map]
pub static STATES: Array<ServerState> = Array::pinned(MAX_SERVERS, MMAPABLE);
#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::pinned(NO_SERVER + 1, 0);
#[map]
pub static QUOTAS: Array<u32> = Array::pinned(SOURCE_BUCKETS, MMAPABLE);
#[map]
pub static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::pinned(FLOW_ENTRIES, 0);
#[map]
pub static PREFIXES: LruHashMap<FlowKey, Prefix> = LruHashMap::pinned(PREFIX_ENTRIES, 0);
#[map]
pub static SCRATCH: PerCpuArray<Prefix> = PerCpuArray::pinned(1, 0);
/// The ids of the cgroups whose processes probe servers; the value says nothing.
#[map]
pub static PROBERS: HashMap<u64, u64> = HashMap::pinned(MAX_PROBERS, 0);
#[map]
pub static RING: RingBuf = RingBuf::pinned(RING_BYTES, 0);

/// The first bytes of a stream. Twice the window, so that "an offset below the window plus a length up to
/// the window" is provably inside.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Prefix {
    pub bytes: [u8; 2 * WINDOW],
}

/// The gate word of a server.
#[inline(always)]
pub fn gate(slot: u32) -> Option<*mut u64> {
    GATES.get_ptr_mut(slot)
}

#[inline(always)]
pub fn state(slot: u32) -> Option<*mut ServerState> {
    STATES.get_ptr_mut(slot)
}

/// A node-wide value; 0 when it was never set.
#[inline(always)]
pub fn node_value(index: u32) -> u64 {
    match NODE.get_ptr(index) {
        // SAFETY: a live element of an array; user space writes whole aligned words.
        Some(value) => unsafe { value.read_volatile() },
        None => 0,
    }
}

/// One more packet that could not be parsed.
#[inline(always)]
pub fn count_unparsed() {
    count(NO_SERVER, |counters| counters.unparsed += 1);
}

/// Changes a server's counters on this CPU.
#[inline(always)]
pub fn count(slot: u32, change: impl FnOnce(&mut Counters)) {
    if let Some(counters) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: a per-CPU element; BPF programs of one CPU do not interrupt one another at this hook.
        change(unsafe { &mut *counters });
    }
}
