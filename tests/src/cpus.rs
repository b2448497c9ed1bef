//! The CPUs of this machine, and threads that stay on one of them: what a thread sends over a veth pair runs
//! through the kernel on the thread's own CPU.

use std::{panic::resume_unwind, thread};

use anyhow::{Context, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// The CPUs that this thread may run on.
///
/// # Errors
/// The kernel has more CPUs than a `CpuSet` can name.
pub fn allowed() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("ask which CPUs there are")?;
    Ok((0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect())
}

/// The calling thread runs on this CPU only, from now on.
///
/// # Errors
/// There is no such CPU, or it may not be used.
pub fn stay_on(cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &only))
        .with_context(|| format!("stay on CPU {cpu}"))
}

/// Runs `work` on a thread that stays on this CPU.
///
/// # Errors
/// As [`stay_on`], and as `work`.
///
/// # Panics
/// As `work`.
pub fn on<T: Send>(cpu: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let there = || stay_on(cpu).and_then(|()| work());
    thread::scope(|scope| scope.spawn(there).join()).unwrap_or_else(|panic| resume_unwind(panic))
}
