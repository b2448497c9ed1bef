//! Three clocks meet in the daemon: the door's (`CLOCK_MONOTONIC`, nanoseconds), the stage machine's
//! (`CLOCK_BOOTTIME`) and people's (milliseconds since 1970).

use std::{
    sync::atomic::{AtomicI64, Ordering::SeqCst},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::time::{ClockId, clock_gettime};

use crate::door::monotonic_ns;

/// The boot clock: goes on while the machine is suspended.
pub fn boot_now() -> Duration {
    // `clock_gettime` fails for an unknown clock only.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// A time of the door's clock on the boot clock; 0 is "never".
pub fn boot_from_monotonic(ns: u64) -> Option<Duration> {
    if ns == 0 {
        return None;
    }
    let ago = Duration::from_nanos(monotonic_ns().saturating_sub(ns));
    Some(boot_now().saturating_sub(ago))
}

/// Milliseconds since 1970.
pub fn unix_now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// A time of the boot clock for people: the same answer however often it is asked, unless the wall clock was
/// set meanwhile. Who compares two answers must not find a change where nothing happened.
pub fn unix_from_boot_ms(at: Duration) -> u64 {
    let unix = at.as_nanos() as i64 + unix_minus_boot();
    (unix / 1_000_000).max(0) as u64
}

/// How far the two clocks are apart, nanoseconds. Kept until they differ by more than reading them one after
/// the other and slewing (adjtimex(2), at most 0.5 ms a second) explain: then the wall clock was set.
fn unix_minus_boot() -> i64 {
    const SET: u64 = 1_000_000_000;
    static KEPT: AtomicI64 = AtomicI64::new(0);
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = unix.as_nanos() as i64 - boot_now().as_nanos() as i64;
    let kept = KEPT.load(SeqCst);
    if now.abs_diff(kept) < SET {
        return kept;
    }
    // Whoever was first decides for all.
    match KEPT.compare_exchange(kept, now, SeqCst, SeqCst) {
        Ok(_) => now,
        Err(other) => other,
    }
}

/// A time of the door's clock for people.
pub fn unix_from_monotonic_ms(ns: u64) -> u64 {
    unix_now_ms().saturating_sub(monotonic_ns().saturating_sub(ns) / 1_000_000)
}

/// A time of day on the boot clock.
pub fn boot_from_system(at: SystemTime) -> Duration {
    match at.duration_since(SystemTime::now()) {
        Ok(ahead) => boot_now() + ahead,
        Err(past) => boot_now().saturating_sub(past.duration()),
    }
}

/// The node's local weekday (0 = Monday) and minute after midnight.
pub fn local_weekday_and_minute() -> (u8, u16) {
    let now = (unix_now_ms() / 1000) as libc::time_t;
    // SAFETY: an all-zero tm is valid; localtime_r writes it and keeps no pointer.
    let tm = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        libc::localtime_r(&raw const now, &raw mut tm);
        tm
    };
    // tm_wday counts from Sunday.
    (((tm.tm_wday + 6) % 7) as u8, (tm.tm_hour * 60 + tm.tm_min) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_for_people_is_one_time_however_often_it_is_asked() {
        let at = boot_now();
        let first = unix_from_boot_ms(at);
        for _ in 0..100_000 {
            assert_eq!(unix_from_boot_ms(at), first);
        }
    }

    #[test]
    fn the_clocks_agree_on_now() {
        let near = |a: u64, b: u64| a.abs_diff(b) < 1000;
        assert!(near(unix_from_boot_ms(boot_now()), unix_now_ms()));
        assert!(near(unix_from_monotonic_ms(monotonic_ns()), unix_now_ms()));
        assert!(boot_from_monotonic(0).is_none());
        let hour = Duration::from_hours(1);
        assert!(near(unix_from_boot_ms(boot_now() + hour), unix_now_ms() + 3_600_000));
    }
}
