//! Into a doze and out of it again, packet by packet: the order of steps in which no login can fall between
//! two of them (notes: gate = signal → grace period → freeze → look again → gate = park; out in reverse).
//!
//! One lock a server serialises the ways in and out; whoever finds it taken leaves a note, and the holder
//! acts on it before it lets go.

mod back;
mod enter;
mod queue;
mod rehearse;
mod sleeper;
mod thaw;
mod wake;
mod watch;

pub use back::{Back, Bringer};
pub use enter::{DozeAborted, Dozed};
pub use queue::Queue;
pub use sleeper::{Asleep, Clerk, Manners, Node, Sleeper, Tally, Ways};
pub use thaw::Thawed;
pub use wake::{WakeError, Woken};
pub use watch::{Report, Slots, go_first, watch};
