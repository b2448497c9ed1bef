//! What the end-to-end suites, the demo and the benches stand on: topologies in network namespaces, real game
//! servers in cgroups, and real clients that say how long they waited and what they got.
//!
//! Needs root; run through `scripts/test`. Everything here removes itself on drop, and [`owner::sweep`] clears
//! away what a killed run left behind.

pub mod cgroup;
pub mod chance;
pub mod clients;
pub mod cpus;
pub mod daemon;
pub mod databases;
pub mod frame;
pub mod herd;
pub mod lossy;
pub mod netns;
pub mod owner;
pub mod packet_socket;
pub mod process;
pub mod programs;
pub mod servers;
pub mod stand;
pub mod steps;
pub mod swap;
pub mod ticks;
pub mod topology;
pub mod weight;

use std::io::{self, Write};
use std::path::PathBuf;

/// `tests/fixtures` of the source tree this was built from.
pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Says that the calling test can't run here, and why; the test then returns. `scripts/test` counts these lines,
/// which are written past the test harness's capture.
pub fn skip(reason: &str) {
    let _ = io::stderr().write_all(format!("\nSKIP {reason}\n").as_bytes());
}
