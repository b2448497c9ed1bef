//! The door, seen from user space: the BPF object, its maps, where it is attached, and what it hands over.

mod arrays;
mod attach;
pub mod layout;
mod object;
mod proof;
mod replay;
mod ring;
mod vnet;
#[cfg(fuzzing)]
pub use ring::fuzz as fuzz_record;
#[cfg(fuzzing)]
pub use vnet::fuzz as fuzz_replay;

pub use arrays::{Arrays, StateCells};
pub use attach::Attachment;
pub use object::{Door, DoorError, TcHook};
pub use proof::PROBE_PORT;
pub use replay::{ReplayError, Replayer};
pub use ring::{Knock, Parked, Record, RecordReader};

/// `CLOCK_MONOTONIC` in nanoseconds: the clock of `bpf_ktime_get_ns`.
pub fn monotonic_ns() -> u64 {
    // `clock_gettime` fails for an unknown clock only.
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC exists");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}
