//! The guard: wakes sleeping servers when the daemon cannot.
//!
//! A process of its own, since one OOM kill or one force delete would take both otherwise. It reads the
//! pinned maps and the undo log and nothing else, and it writes only what wakes: `cgroup.freeze` 0 and
//! `cpu.max` back. It never marks anything in the undo log as done: a daemon that is slow and not dead may be
//! between writing a change down and making it.

pub mod off;
mod pins;
mod presence;
mod run;
mod sleepers;
pub mod status;
mod watch;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::door::layout;
pub use pins::{PinError, Pins};
pub use presence::is_running;
pub use run::run;
pub use sleepers::{Sleeper, sleepers};

/// Where dormouse keeps its things on this node.
#[derive(Clone, Debug, clap::Args)]
pub struct Paths {
    /// The undo log lives here, on tmpfs
    #[arg(long, global = true, default_value = "/run/dormouse")]
    pub run_dir: PathBuf,
    /// What outlives a reboot, the off marker among it
    #[arg(long, global = true, default_value = "/var/lib/dormouse")]
    pub state_dir: PathBuf,
    /// The folder of dormouse's own in a bpffs
    #[arg(long, global = true, default_value = "/sys/fs/bpf/dormouse")]
    pub pin_dir: PathBuf,
}

/// When the guard steps in.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Timing {
    /// A heartbeat older than this is stale; the door's own value, when it can be read, counts instead
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub stale_after: Duration,
    /// With a heartbeat stale for this long, every sleeper is woken; the door's own value counts instead as well
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
    pub guard_limit: Duration,
}

// === impl Paths ===

impl Paths {
    /// Exists while dormouse is off. The daemon looks for it at its start, before every doze and again after
    /// the freeze, and then leaves every server awake.
    pub fn off_marker(&self) -> PathBuf {
        self.state_dir.join("off")
    }

    pub fn is_off(&self) -> bool {
        self.off_marker().exists()
    }

    /// The pins of this layout of the maps.
    pub fn pins(&self) -> PathBuf {
        pins_of(&self.pin_dir)
    }
}

fn pins_of(pin_dir: &Path) -> PathBuf {
    pin_dir.join(layout::name())
}
