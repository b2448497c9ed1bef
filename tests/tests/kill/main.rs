//! Everything dies, everywhere: the daemon, the guard, both, the server, at every step. The property, checked
//! after every case: no server stays frozen for longer than the guard's limit, no player is refused, and `off`
//! restores every byte.

mod case;
mod deaths;
mod restarts;
mod steps;
mod tally;
