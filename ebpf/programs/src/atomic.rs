//! Atomics on map values. `core::sync::atomic` has no `fetch_add` on BPF targets, the intrinsics do
//! (`-C target-cpu=v3`, Linux 5.12).

use core::intrinsics::{AtomicOrdering, atomic_xadd};

/// Adds and returns what was there.
#[inline(always)]
pub fn fetch_add_u64(at: *mut u64, add: u64) -> u64 {
    // SAFETY: callers pass a pointer into a map value that they got from a lookup and checked for null; the
    // verifier proves the same.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(at, add) }
}

/// Takes away what was added.
#[inline(always)]
pub fn fetch_sub_u64(at: *mut u64, sub: u64) {
    let _ = fetch_add_u64(at, sub.wrapping_neg());
}

/// Adds and returns what was there.
#[inline(always)]
pub fn fetch_add_u32(at: *mut u32, add: u32) -> u32 {
    // SAFETY: as above.
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(at, add) }
}
