//! What the suite found, over all its tests; printed when the last has ended.

use std::{
    collections::BTreeSet,
    sync::{Mutex, Once, PoisonError},
    time::Duration,
};

#[derive(Default)]
struct Tally {
    points: BTreeSet<String>,
    stuck: u32,
    refused: u32,
    unrestored: usize,
    entries: Vec<Duration>,
}

static TALLY: Mutex<Option<Tally>> = Mutex::new(None);

fn with(note: impl FnOnce(&mut Tally)) {
    static AT_END: Once = Once::new();
    AT_END.call_once(|| {
        // SAFETY: a plain function without arguments, which stays where it is.
        unsafe { libc::atexit(print) };
    });
    note(TALLY.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default());
}

/// Somebody or something was killed here.
pub fn point(name: &str) {
    with(|tally| {
        tally.points.insert(name.to_owned());
    });
}

/// A server was frozen for longer than the guard allows: counted, and the end of this test.
///
/// # Panics
/// Always.
pub fn stuck(what: &str) -> ! {
    with(|tally| tally.stuck += 1);
    panic!("stuck: {what}");
}

/// A player did not get in: counted, and the end of this test.
///
/// # Panics
/// Always.
pub fn refused(what: &str) -> ! {
    with(|tally| tally.refused += 1);
    panic!("refused: {what}");
}

/// A player got in, so long after the first packet.
pub fn entered(after: Duration) {
    with(|tally| tally.entries.push(after));
}

/// What the node was before, and what `off` left it as; `said` tells of `off`.
///
/// # Panics
/// They differ; so many bytes are counted.
pub fn restored(before: &str, after: &str, said: &str) {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let differ: usize = lines(before).symmetric_difference(&lines(after)).map(String::len).sum();
    with(|tally| tally.unrestored += differ);
    assert_eq!(before, after, "not restored: {said}");
}

extern "C" fn print() {
    let mut tally = TALLY.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(tally) = tally.as_mut() else { return };
    tally.entries.sort();
    let at = |part: usize| tally.entries.get(tally.entries.len() * part / 100).copied().unwrap_or_default();
    println!(
        "kill: {} kill points: {} servers stuck, {} players refused, {} bytes of state not restored by off",
        tally.points.len(),
        tally.stuck,
        tally.refused,
        tally.unrestored,
    );
    println!(
        "kill: {} players got in just after a death: p50 {:.0?}, p99 {:.0?}, latest {:.0?} after their first packet",
        tally.entries.len(),
        at(50),
        at(99),
        tally.entries.last().copied().unwrap_or_default(),
    );
}
