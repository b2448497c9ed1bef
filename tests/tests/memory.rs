//! Deep sleep where the kernel counts a server alone: a pure cgroup v2 with swap. Made for the VM (`tests/vm/memory`);
//! elsewhere each test says that it was skipped.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use dormouse_daemon::memory::Cancel;
use dormouse_daemon::memory::cold::page_out_cold;
use dormouse_daemon::memory::group::Group;
use dormouse_daemon::memory::page_out::{Bounds, Stop, page_out};
use dormouse_daemon::memory::prefetch::{Beside, Progress, prefetch};
use dormouse_daemon::memory::ranges::page_size;
use dormouse_daemon::memory::swap::Facts;
use dormouse_daemon::memory::working_set::{Looks, Wake, WorkingSets};
use dormouse_tests::cgroup::Cgroup;
use dormouse_tests::servers::echo::sibling;
use dormouse_tests::skip;
use dormouse_tests::ticks;

const MIB: u64 = 1 << 20;

/// A memory-server in a cgroup of its own.
struct Holder {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    cgroup: Cgroup,
    group: Group,
}

impl Holder {
    fn new(arguments: &[&str]) -> Self {
        let cgroup = Cgroup::create("memory").unwrap();
        let procs = cgroup.path().join("cgroup.procs");
        let mut child = Command::new("sh")
            .args(["-c", "echo $$ >$0; exec \"$@\"", procs.to_str().unwrap()])
            .arg(sibling("memory-server").unwrap())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let group = Group::new(cgroup.path());
        let mut holder = Self { child, input, output, cgroup, group };
        assert_eq!(holder.answer(), "ready");
        holder
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        self.answer()
    }

    fn whole(&mut self) {
        let answer = self.ask("check");
        assert!(answer.starts_with("0 "), "pages are not what was written: {answer}");
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.cgroup.freeze(false);
        let _ = self.child.wait();
    }
}

/// The machine's memory is one: a test at a time. `None`, and a word about it, where this is no machine for it.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let probe = Cgroup::create("probe").unwrap();
    if !Group::new(probe.path()).has_memory_controller() {
        skip("no v2 memory controller: tests/vm/memory runs this in a VM");
        return None;
    }
    if Facts::read().unwrap().size() == 0 {
        skip("no swap: tests/vm/memory runs this in a VM with some");
        return None;
    }
    Some(turn)
}

#[test]
fn what_is_booked_is_what_the_kernel_counts_under_a_neighbours_pressure() {
    let Some(_turn) = turn() else { return };
    let mut holder = Holder::new(&["--mib", "128"]);
    let mut neighbour = Holder::new(&["--mib", "96"]);
    let mut whole = 0;
    for round in 0..8 {
        holder.ask("dirty");
        holder.cgroup.freeze(true).unwrap();
        let before = holder.group.current().unwrap();
        let done = AtomicBool::new(false);
        let out = thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    neighbour.ask("dirty");
                }
            });
            let out = page_out(&holder.group, Bounds::default(), &Cancel::default(), &mut |_, _| Ok(()));
            done.store(true, Relaxed);
            out.unwrap()
        });
        thread::sleep(Duration::from_secs(2));
        let measured = before.saturating_sub(holder.group.current().unwrap());
        let (ratio, error) = (
            measured as f64 / out.anonymous as f64,
            (out.handed_back.bytes as f64 - measured as f64).abs() / measured as f64,
        );
        println!("round {round}: handed_back_ratio {ratio:.3} book_error {error:.3}");
        println!("{out:?}");
        assert!(!out.handed_back.estimated);
        assert!(error <= 0.05, "{out:?}, {measured} measured");
        holder.cgroup.freeze(false).unwrap();
        holder.whole();
        // An emulated machine may be so slow that the page-out stops for its neighbours' sake, as it has to.
        if out.stopped == Some(Stop::Pressure) {
            continue;
        }
        assert!(ratio >= 0.9, "{out:?}, {measured} measured");
        whole += 1;
        if whole == 3 {
            return;
        }
    }
    panic!("too much pressure for three whole page-outs in eight");
}

#[test]
fn a_throttled_server_keeps_ticking_and_gives_what_it_does_not_touch() {
    let Some(_turn) = turn() else { return };
    let mut holder = Holder::new(&["--mib", "128"]);
    if holder.group.anonymous_only().is_none() {
        let refused = page_out_cold(&holder.group, Bounds::default(), &Cancel::default(), &mut |_, _| Ok(()));
        println!("refused as it should be: {}", refused.unwrap_err());
        return;
    }
    // A fifth is touched 20 times a second; the rest is cold.
    let touched: u64 = holder.ask("set runs 1").strip_prefix("set ").unwrap().parse().unwrap();
    let cpu = holder.cgroup.path().join("cpu.max");
    fs::write(&cpu, "50000 100000").unwrap();
    let before = holder.group.stat("anon").unwrap().unwrap();
    let group = holder.group.clone();
    let tick = || {
        ensure!(!holder.ask("go").is_empty(), "it has ended");
        Ok(())
    };
    let go_cold =
        || page_out_cold(&group, Bounds::default(), &Cancel::default(), &mut |_, _| Ok(())).unwrap();
    let (out, ticks) = ticks::beside(tick, go_cold).unwrap();
    let untouched = before - touched * page_size();
    let ratio = out.handed_back.bytes as f64 / untouched as f64;
    println!("handed_back_ratio {ratio:.3} {ticks:?}");
    println!("{out:?}");
    assert!(ratio >= 0.5, "{out:?} of {untouched} that are not touched");
    assert_eq!(ticks.unanswered, 0, "{ticks:?}");
    fs::write(&cpu, "max").unwrap();
    holder.whole();
}

#[test]
fn a_working_set_comes_back_on_this_kernel_and_within_the_limit() {
    let Some(_turn) = turn() else { return };
    let mut holder = Holder::new(&["--mib", "96"]);
    holder.ask("set runs 3");
    let pid = holder.child.id().cast_signed();
    let pages_out = |holder: &Holder| {
        holder.cgroup.freeze(true).unwrap();
        let out = page_out(&holder.group, Bounds::default(), &Cancel::default(), &mut |_, _| Ok(())).unwrap();
        assert!(out.handed_back.bytes * 10 >= out.anonymous * 9, "{out:?}");
    };
    let mut sets = WorkingSets::default();
    for round in 0..2 {
        pages_out(&holder);
        let wake = sets.next_wake();
        let room = holder.group.room();
        let done = prefetch(&[pid], &sets, Beside::Nobody, room, &Progress::default(), &Cancel::default());
        holder.cgroup.freeze(false).unwrap();
        holder.ask("go");
        println!("round {round}: {done:?}");
        assert!(done.failed.is_empty() && done.no_room == 0, "{done:?}");
        let mut looks = Looks::new(wake);
        looks.look(pid, 0).unwrap();
        sets.record(looks);
        if wake == Wake::Mapped {
            assert!(done.wanted > 8 * MIB && done.brought * 100 >= done.wanted * 99, "{done:?}");
        }
    }
    // A limit that has room for little: it is kept, and nobody is killed.
    pages_out(&holder);
    let limit = holder.group.current().unwrap() + 8 * MIB;
    fs::write(holder.cgroup.path().join("memory.max"), limit.to_string()).unwrap();
    let room = holder.group.room();
    assert!(room <= 8 * MIB, "{room}");
    let done = prefetch(&[pid], &sets, Beside::Nobody, room, &Progress::default(), &Cancel::default());
    assert!(done.no_room > 0 && done.brought <= 8 * MIB, "{done:?}");
    fs::write(holder.cgroup.path().join("memory.max"), "max").unwrap();
    holder.cgroup.freeze(false).unwrap();
    holder.whole();
}
