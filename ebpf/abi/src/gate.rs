//! The gate: what the door does with a sleeper's packets, and how many records are under way, in one u64.
//!
//! The program adds one to the count first and decides by the state that it read in the same operation; the
//! daemon leaves [`DRAINING`] only by compare-and-swap at count 0. Every record that was counted ends as
//! replayed, expired or refused, and takes its one back.

/// Pass: the server is awake, or nobody guards it.
pub const OPEN: u32 = 0;
/// Pass, and set the wake flag for what would wake: the server is on its way into or out of a doze.
pub const SIGNAL: u32 = 1;
/// Hold what wakes in the ring buffer.
pub const PARK: u32 = 2;
/// As [`PARK`], while the daemon replays what was held, so that nothing overtakes it.
pub const DRAINING: u32 = 3;

/// What the program adds before it decides.
pub const ONE_IN_FLIGHT: u64 = 1;

/// The state half of a gate word.
pub const fn state(word: u64) -> u32 {
    (word >> 32) as u32
}

/// The records that were counted and have not ended.
pub const fn in_flight(word: u64) -> u32 {
    word as u32
}

/// A gate word of a state and a count.
pub const fn word(state: u32, in_flight: u32) -> u64 {
    ((state as u64) << 32) | in_flight as u64
}
