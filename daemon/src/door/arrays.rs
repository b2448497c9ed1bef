//! The memory-mapped arrays: user space reads and changes them without a system call, beside the programs.

use std::{
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
};

use aya::maps::MapData;
use dormouse_abi::{
    MAX_SERVERS, SOURCE_BUCKETS,
    gate::{self, DRAINING, OPEN},
    node,
    server::ServerState,
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// [`ServerState`] as both sides write it at once.
#[repr(C)]
pub struct StateCells {
    pub last_player_ns: AtomicU64,
    pub wake_ns: AtomicU64,
    pub wake_class: AtomicU64,
    pub query_ns: AtomicU64,
    pub sequence: AtomicU64,
    pub parked_bytes: AtomicU64,
    pub await_answer_ns: AtomicU64,
    pub answer_ns: AtomicU64,
    pub path_probes: AtomicU64,
    pad: [AtomicU64; 7],
}

const _: () = assert!(size_of::<StateCells>() == size_of::<ServerState>());

impl StateCells {
    /// Takes the wake flag: when it was set and the class that set it.
    pub fn take_wake(&self) -> Option<(u64, u8)> {
        let at = self.wake_ns.swap(0, SeqCst);
        (at != 0).then(|| (at, self.wake_class.load(SeqCst) as u8))
    }

    /// Takes the query flag: when the first waiting query came.
    pub fn take_query(&self) -> Option<u64> {
        let at = self.query_ns.swap(0, SeqCst);
        (at != 0).then_some(at)
    }
}

/// An array map, mapped.
struct Mapped<T> {
    base: NonNull<T>,
    len: usize,
}

// SAFETY: the memory is shared with the kernel anyway; every T used here is made of atomics.
unsafe impl<T: Sync> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Mapped<T> {}

impl<T> Mapped<T> {
    fn new(map: BorrowedFd<'_>, len: u32) -> nix::Result<Self> {
        let len = len as usize;
        let bytes = std::num::NonZeroUsize::new(len * size_of::<T>()).ok_or(nix::Error::EINVAL)?;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice; the kernel refuses a length
        // beyond the map. Elements are 8-byte multiples, laid out without gaps (kernel/bpf/arraymap.c).
        let base = unsafe {
            mmap(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, map, 0)?
        };
        Ok(Self { base: base.cast(), len })
    }

    fn at(&self, index: u32) -> &T {
        assert!((index as usize) < self.len, "slot {index} is outside of the map");
        // SAFETY: inside the mapping, which lives as long as `self`; T is made of atomics only, so that the
        // kernel's writes are no data race.
        unsafe { self.base.add(index as usize).as_ref() }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: our own mapping; no reference outlives `self`.
        let _ = unsafe { munmap(self.base.cast(), self.len * size_of::<T>()) };
    }
}

/// The arrays of the door.
pub struct Arrays {
    node: Mapped<AtomicU64>,
    gates: Mapped<AtomicU64>,
    states: Mapped<StateCells>,
    /// Elements of an array map take multiples of 8 bytes; a quota is the first half of one.
    quotas: Mapped<[AtomicU32; 2]>,
}

impl Arrays {
    /// Maps the four arrays.
    ///
    /// # Errors
    /// What mmap(2) says; `EPERM` when a map was made without `BPF_F_MMAPABLE`.
    pub fn new(node: &MapData, gates: &MapData, states: &MapData, quotas: &MapData) -> nix::Result<Self> {
        Ok(Self {
            node: Mapped::new(node.fd().as_fd(), node::LEN)?,
            gates: Mapped::new(gates.fd().as_fd(), MAX_SERVERS)?,
            states: Mapped::new(states.fd().as_fd(), MAX_SERVERS)?,
            quotas: Mapped::new(quotas.fd().as_fd(), SOURCE_BUCKETS)?,
        })
    }

    /// A node-wide value, by its index in [`dormouse_abi::node`].
    pub fn node(&self, index: u32) -> &AtomicU64 {
        self.node.at(index)
    }

    /// One server less is waiting for its first answer.
    pub fn answer_came(&self) {
        let waiting = self.node.at(node::AWAITING_ANSWER);
        let _ = waiting.fetch_update(SeqCst, SeqCst, |count| count.checked_sub(1));
    }

    pub fn state(&self, slot: u32) -> &StateCells {
        self.states.at(slot)
    }

    /// The gate word of a server: state and in-flight count.
    pub fn gate(&self, slot: u32) -> u64 {
        self.gates.at(slot).load(SeqCst)
    }

    /// Sets the state of a gate and leaves its count alone.
    pub fn set_gate(&self, slot: u32, state: u32) {
        let word = self.gates.at(slot);
        let mut now = word.load(SeqCst);
        while let Err(changed) =
            word.compare_exchange(now, gate::word(state, gate::in_flight(now)), SeqCst, SeqCst)
        {
            now = changed;
        }
    }

    /// Opens a draining gate if no record is under way; whether it is open now.
    pub fn open_if_drained(&self, slot: u32) -> bool {
        self.gates
            .at(slot)
            .compare_exchange(gate::word(DRAINING, 0), gate::word(OPEN, 0), SeqCst, SeqCst)
            .is_ok()
    }

    /// One record has ended: replayed, expired or refused. Never below zero: what an earlier daemon took
    /// along was written off.
    pub fn end_record(&self, slot: u32) {
        let word = self.gates.at(slot);
        let mut now = word.load(SeqCst);
        while gate::in_flight(now) != 0 {
            match word.compare_exchange(now, now - gate::ONE_IN_FLIGHT, SeqCst, SeqCst) {
                Ok(_) => return,
                Err(changed) => now = changed,
            }
        }
    }

    /// Writes off the records that nobody will end any more. Only with the gate not parking, and after a
    /// grace period: then no program is between counting and handing over.
    pub fn write_off(&self, slot: u32) -> u32 {
        let word = self.gates.at(slot);
        let mut now = word.load(SeqCst);
        loop {
            match word.compare_exchange(now, gate::word(gate::state(now), 0), SeqCst, SeqCst) {
                Ok(_) => return gate::in_flight(now),
                Err(changed) => now = changed,
            }
        }
    }

    /// Gives back the room that a record held in the ring.
    pub fn give_back(&self, slot: u32, bucket: u16, bytes: u32) {
        self.state(slot).parked_bytes.fetch_sub(u64::from(bytes), SeqCst);
        self.quotas.at(u32::from(bucket))[0].fetch_sub(bytes, SeqCst);
    }

    /// Makes a slot as good as new, for a server that starts to use it.
    pub fn reset(&self, slot: u32) {
        self.gates.at(slot).store(gate::word(OPEN, 0), SeqCst);
        let state = self.state(slot);
        if state.await_answer_ns.load(SeqCst) != 0 || state.answer_ns.load(SeqCst) != 0 {
            self.node(node::AWAITING_ANSWER).fetch_sub(1, SeqCst);
        }
        for cell in [
            &state.last_player_ns,
            &state.wake_ns,
            &state.wake_class,
            &state.query_ns,
            &state.sequence,
            &state.parked_bytes,
            &state.await_answer_ns,
            &state.answer_ns,
            &state.path_probes,
        ] {
            cell.store(0, SeqCst);
        }
    }
}
