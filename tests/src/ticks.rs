//! A server that ticks twenty times a second while something is done to it.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

/// 20 Hz.
pub const TICK: Duration = Duration::from_millis(50);
/// Who is not answered within this time has given up.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How its ticks went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ticks {
    pub all: u32,
    /// Longer than [`TICK`]: the next one was late.
    pub missed: u32,
    /// Not within [`PATIENCE`].
    pub unanswered: u32,
    pub worst: Duration,
}

/// Runs `work`, and beside it a `tick` every 50 ms.
///
/// # Errors
/// The server that ticks has ended.
pub fn beside<T>(
    mut tick: impl FnMut() -> Result<()> + Send,
    work: impl FnOnce() -> T,
) -> Result<(T, Ticks)> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let ticking = scope.spawn(|| {
            let mut ticks = Ticks::default();
            while !done.load(Relaxed) {
                let begun = Instant::now();
                tick()?;
                let took = begun.elapsed();
                ticks.all += 1;
                ticks.missed += u32::from(took > TICK);
                ticks.unanswered += u32::from(took > PATIENCE);
                ticks.worst = ticks.worst.max(took);
                thread::sleep(TICK.saturating_sub(took));
            }
            anyhow::Ok(ticks)
        });
        let result = work();
        done.store(true, Relaxed);
        Ok((result, ticking.join().map_err(|_| anyhow!("the ticking panicked"))??))
    })
}
