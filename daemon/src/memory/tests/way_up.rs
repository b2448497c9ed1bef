//! The way up: prefetch, what it leaves out, and the refill after it.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use super::MIB;
use super::victim::{Swap, Victim};
use crate::memory::page_out::{Bounds, write_out};
use crate::memory::pagemap::{Pagemap, State};
use crate::memory::prefetch::{Beside, Progress, drop_untouched, prefetch};
use crate::memory::refill::{End, refill};
use crate::memory::swap::Facts;
use crate::memory::working_set::{Looks, ProcessKey, Wake, WorkingSets};
use crate::memory::{Cancel, ranges};

/// What has not come by then will not come.
const HANGS: Duration = Duration::from_secs(30);

#[test]
fn what_a_learning_wake_asked_for_in_vain_goes_out_again() {
    let _swap = Swap::new();
    let mut victim = Victim::new(128, "plain");
    let sum = victim.ask("sum");
    victim.go_deep();
    let asleep = victim.weight();
    let sets = WorkingSets::default();
    let wake = victim.wake(&sets);
    assert_eq!(wake.wake, Wake::Learning);
    assert_eq!(victim.ask("touch 4"), "touched");
    let dropped = drop_untouched(victim.pid(), &sets).unwrap();
    eprintln!("{wake:?}, {} MiB dropped", dropped >> 20);
    assert!(dropped >= 100 * MIB, "4 of 64 parts were touched, {dropped} bytes dropped");
    if let (Some(asleep), Some(now)) = (asleep, victim.weight()) {
        assert!(now - asleep < 48 * MIB, "{} MiB more than asleep", (now - asleep) >> 20);
    }
    assert_eq!(victim.ask("sum"), sum);
}

#[test]
fn what_a_rehearsal_touches_or_makes_is_recorded_and_goes_out_again() {
    let _swap = Swap::new();
    let mut victim = Victim::new(128, "plain");
    let sum = victim.ask("sum");
    victim.freeze(true);
    let mut written =
        write_out(&victim.group, Bounds::default(), &Cancel::default(), &mut |_, _| Ok(())).unwrap();
    let mut looks = Looks::new(Wake::Learning);
    looks.leave_out_mapped(victim.pid()).unwrap();
    victim.freeze(false);
    assert_eq!(victim.ask("touch 8"), "touched");
    // As a collector does that moves the heap.
    assert_eq!(victim.ask("grow 16"), "grown");
    looks.look(victim.pid(), 1).unwrap();
    victim.freeze(true);
    let mut sets = WorkingSets::default();
    sets.record(looks);
    let recorded = sets.bytes();
    assert!((32 * MIB..64 * MIB).contains(&recorded), "8 of 64 parts, 16 new and an interpreter: {recorded}");
    written.again(&Cancel::default()).unwrap();
    let out = written.sweep(&Cancel::default()).unwrap();
    eprintln!("{out:?}, {} MiB recorded", recorded >> 20);
    assert!(out.anonymous >= (128 + 16) * MIB && out.paged_out * 100 >= out.anonymous * 99, "{out:?}");
    assert!(out.stopped.is_none() && out.handed_back.bytes * 10 >= out.anonymous * 9, "{out:?}");
    let wake = victim.wake(&sets);
    assert_eq!(wake.wake, Wake::Mapped, "the first wake has a record");
    assert!(wake.brought >= 16 * MIB, "{wake:?}");
    assert_eq!(victim.ask("sum"), sum);
}

#[test]
fn a_prefetch_takes_no_more_than_there_is_room() {
    let _swap = Swap::new();
    let mut victim = Victim::new(64, "plain");
    let sum = victim.ask("sum");
    let mut sets = WorkingSets::default();
    victim.record(&mut sets, Wake::Learning);
    victim.go_deep();
    let (progress, cancel) = (Progress::default(), Cancel::default());
    let done = prefetch(&[victim.pid()], &sets, Beside::Nobody, 16 * MIB, &progress, &cancel);
    assert_eq!(done.brought, 16 * MIB, "{done:?}");
    assert_eq!(done.no_room, done.wanted - 16 * MIB, "{done:?}");
    // One that has to be there first is bounded in time.
    let late = Cancel::at(Instant::now());
    let cut = prefetch(&[victim.pid()], &sets, Beside::Nobody, u64::MAX, &progress, &late);
    assert!(cut.cancelled, "{cut:?}");
    victim.freeze(false);
    assert_eq!(victim.ask("sum"), sum);
}

#[test]
fn while_a_server_answers_only_what_it_needed_first_comes() {
    let _swap = Swap::new();
    if Facts::read().unwrap().only_zram() {
        return; // A page is there at once: nothing is waited for.
    }
    let mut victim = Victim::new(64, "plain");
    let (mut sets, mut looks) = (WorkingSets::default(), Looks::new(Wake::Learning));
    victim.go_deep();
    victim.freeze(false);
    for (areas, number) in [(4, 0), (32, 5)] {
        victim.ask(&format!("touch {areas}"));
        looks.look(victim.pid(), number).unwrap();
    }
    sets.record(looks);
    let groups = sets.get(ProcessKey::of(victim.pid()).unwrap()).unwrap();
    let (first, rest) = (ranges::total(&groups[0]), ranges::total(&groups[5]));
    assert!(first >= 4 * MIB && rest >= 27 * MIB, "{first} {rest}");

    victim.go_deep();
    // A page of it may have stayed: one that somebody held just then.
    let first =
        ranges::total(&Pagemap::open(victim.pid()).unwrap().pages(State::Swapped, &groups[0]).unwrap());
    let (progress, cancel, answering) = (Progress::default(), Cancel::default(), AtomicBool::new(true));
    let is_answering = || answering.load(SeqCst);
    let (pids, beside) = ([victim.pid()], Beside::Server { answering: &is_answering });
    let done = thread::scope(|scope| {
        let work = scope.spawn(|| prefetch(&pids, &sets, beside, u64::MAX, &progress, &cancel));
        let begun = Instant::now();
        while progress.brought() < first && !work.is_finished() && begun.elapsed() < HANGS {
            thread::yield_now();
        }
        victim.freeze(false);
        // Four areas of them are among those that were needed later.
        let touched = victim.ask("touch 8");
        let meanwhile = progress.brought();
        answering.store(false, SeqCst);
        assert_eq!((touched.as_str(), meanwhile), ("touched", first), "the rest waits");
        work.join().unwrap()
    });
    assert_eq!(done.brought, done.wanted, "{done:?}");
    let early: u64 = done.early.iter().map(|(_, pages)| ranges::total(pages)).sum();
    assert!((4 * MIB..8 * MIB).contains(&early), "{early} of its own were needed for the answer");

    let (mut looks, key) = (Looks::new(Wake::Mapped), done.early[0].0);
    looks.look(victim.pid(), 0).unwrap();
    looks.early(key, done.early[0].1.clone());
    sets.record(looks);
    let groups = sets.get(key).unwrap();
    assert!(ranges::total(&groups[0]) >= first + early, "they come first the next time");
}

#[test]
fn a_refill_brings_all_of_a_running_server_and_stops_for_a_frozen_one() {
    let _swap = Swap::new();
    let mut victim = Victim::new(64, "plain");
    let sum = victim.ask("sum");
    victim.go_deep();
    assert_eq!(refill(&victim.group).end, End::Frozen);
    victim.freeze(false);
    let done = refill(&victim.group);
    eprintln!("{done:?}");
    // The machine's own pressure may end it early; then it says so.
    if done.end == End::Complete {
        assert!(done.bytes >= 60 * MIB && victim.bytes(State::Swapped) < 4 * MIB, "{done:?}");
    } else {
        assert_eq!(done.end, End::Pressure, "{done:?}");
    }
    assert_eq!(victim.ask("sum"), sum);
}
