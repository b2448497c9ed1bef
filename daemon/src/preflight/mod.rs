//! What this machine has and lacks. Everything is tried for real where that leaves nothing behind: what the
//! kernel's version promises is not always there. No check ends the others, and none changes a server.
//!
//! Blocks for up to three seconds (a second of it reads the disk): not for an async worker thread.

mod bpf;
mod capabilities;
mod cgroup;
mod companions;
pub mod disk;
pub mod features;
mod kernel;
mod probe;
pub mod swap;
#[cfg(test)]
mod tests;

use std::path::Path;

use dormouse_api::preflight::{Check, CheckResult, Preflight};

use crate::config::Node;
pub use companions::{guard_pid, helper_path};

/// Looks at the machine as the daemon with these settings would use it.
pub fn preflight(node: &Node) -> Preflight {
    let swap = swap::Swap::read(Path::new("/proc"), Path::new("/sys"));
    let mut checks = of_kernel(node);
    checks.extend(bpf::checks(&node.pin_dir));
    checks.extend(capabilities::checks());
    checks.extend(swap.checks());
    checks.extend(companions::checks(node));
    let measured = swap.devices.first().map(|device| disk::measure(&device.swap));
    checks.extend(measured.as_ref().map(disk::check));
    Preflight { checks, disk: measured.and_then(Result::ok) }
}

/// What the kernel has, and what this machine lets dormouse use of it. Quick.
fn of_kernel(node: &Node) -> Vec<Check> {
    let mut checks = kernel::checks();
    checks.extend(cgroup::checks(node));
    checks.extend(probe::checks());
    checks
}

pub fn ok(name: &str, found: impl Into<String>) -> Check {
    Check { name: name.to_owned(), result: CheckResult::Ok, found: found.into(), remedy: None }
}

/// Works, but less well than it could.
pub fn warn(name: &str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { result: CheckResult::Warn, remedy: Some(remedy.into()), ..ok(name, found) }
}

/// Something that dormouse is for will not work.
fn fail(name: &str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { result: CheckResult::Fail, ..warn(name, found, remedy) }
}

/// An error with all its sources.
fn whole(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}
