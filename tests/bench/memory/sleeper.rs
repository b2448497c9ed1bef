//! A process that holds memory, asleep by the daemon's own code: frozen, paged out, swept, prefetched.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dormouse_daemon::memory::Cancel;
use dormouse_daemon::memory::group::Group;
use dormouse_daemon::memory::page_out::{Bounds, PagedOut, page_out};
use dormouse_daemon::memory::pagemap::{Pagemap, State};
use dormouse_daemon::memory::prefetch::{Beside, Prefetched, Progress, prefetch};
use dormouse_daemon::memory::ranges::{Span, page_size, total};
use dormouse_daemon::memory::working_set::WorkingSets;
use dormouse_tests::cgroup::Cgroup;
use dormouse_tests::servers::echo::sibling;
use nix::time::{ClockId, clock_gettime};

use super::disk::Piece;
use super::weight::Weight;

/// A memory-server and its cgroup; killed on drop.
pub struct Sleeper {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub group: Group,
    pub cgroup: Cgroup,
    pub weight: Option<Weight>,
    /// Where its memory is.
    pub memory: Span,
}

/// What a wake was like.
pub struct Wake {
    /// From the knock to the last page touched.
    pub took: Duration,
    /// The longest that one touch took.
    pub worst: Duration,
    pub prefetched: Option<Prefetched>,
}

impl Sleeper {
    pub fn new(arguments: &[&str]) -> Result<Self> {
        let cgroup = Cgroup::create("memory")?;
        let mut command = Command::new(sibling("memory-server")?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let weight = Weight::new()?;
        let procs = File::options().write(true).open(cgroup.path().join("cgroup.procs"))?;
        let weighed = weight.as_ref().map(Weight::procs).transpose()?;
        let enter = move || {
            procs.write_at(b"0", 0)?;
            weighed.as_ref().map_or(Ok(0), |weighed| weighed.write_at(b"0", 0)).map(drop)
        };
        // SAFETY: write(2) on descriptors opened before; it allocates nothing and takes no lock.
        unsafe { command.pre_exec(enter) };
        let mut child = command.spawn()?;
        let input = child.stdin.take().context("its input")?;
        let output = BufReader::new(child.stdout.take().context("its output")?);
        let group = Group::new(cgroup.path());
        let mut sleeper = Self { child, input, output, group, cgroup, weight, memory: Span::new(0, 0) };
        ensure!(sleeper.answer()? == "ready", "memory-server did not start");
        let place = numbers(&sleeper.ask("place")?)?;
        sleeper.memory = Span::new(place[0], place[0] + place[1]);
        Ok(sleeper)
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    fn tell(&mut self, command: &str) -> Result<()> {
        Ok(writeln!(self.input, "{command}")?)
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    pub fn ask(&mut self, command: &str) -> Result<String> {
        self.tell(command)?;
        self.answer()
    }

    /// Into deep; it stays frozen.
    pub fn sleep(&self) -> Result<PagedOut> {
        self.cgroup.freeze(true)?;
        self.page_out()
    }

    /// From frozen into deep.
    pub fn page_out(&self) -> Result<PagedOut> {
        // Its own demand paging is pressure, and must not stop the next round.
        let bounds = Bounds { pressure: 100.0, ..Bounds::default() };
        Ok(page_out(&self.group, bounds, &Cancel::default(), &mut |_, _| Ok(()))?)
    }

    /// Thaws it to touch its set, and brings back what `sets` has recorded beside it.
    pub fn wake(&mut self, sets: Option<&WorkingSets>) -> Result<Wake> {
        self.tell("go")?;
        let pids = [self.pid()];
        let knocked: Duration = clock_gettime(ClockId::CLOCK_MONOTONIC)?.into();
        let prefetched = thread::scope(|scope| {
            let back = |sets| {
                prefetch(
                    &pids,
                    sets,
                    Beside::SERVER,
                    self.group.room(),
                    &Progress::default(),
                    &Cancel::default(),
                )
            };
            let work = sets.map(|sets| scope.spawn(move || back(sets)));
            self.cgroup.freeze(false)?;
            work.map(|work| work.join().map_err(|_| anyhow::anyhow!("the prefetch panicked"))).transpose()
        })?;
        let went = numbers(&self.answer()?)?;
        let took = Duration::from_nanos(went[0]).saturating_sub(knocked);
        Ok(Wake { took, worst: Duration::from_nanos(went[1]), prefetched })
    }

    /// Thaws it to touch its set, and nothing else.
    pub fn wake_by_demand(&mut self) -> Result<Wake> {
        self.wake(None)
    }

    /// Its pages on swap.
    pub fn swapped(&self) -> Result<Vec<Span>> {
        Ok(Pagemap::open(self.pid())?.pages(State::Swapped, &[self.memory])?)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.cgroup.freeze(false);
        let _ = self.child.wait();
    }
}

pub fn numbers(line: &str) -> Result<Vec<u64>> {
    line.split(' ').map(|word| word.parse().with_context(|| format!("{line:?}"))).collect()
}

/// Where on the swap device these pages of a process are, sorted and joined (pagemap.rst: bits 5 to 54 of a swapped page).
pub fn on_device(pid: i32, pages: &[Span]) -> Result<Vec<Piece>> {
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let page = page_size();
    let mut slots = Vec::with_capacity((total(pages) / page) as usize);
    for span in pages {
        let mut entries = vec![0u8; (span.bytes() / page * 8) as usize];
        pagemap.read_exact_at(&mut entries, span.start / page * 8)?;
        for entry in entries.chunks_exact(8) {
            let word = u64::from_ne_bytes(entry.try_into()?);
            ensure!(word >> 62 & 1 == 1, "a page is not on swap");
            slots.push((word & ((1 << 55) - 1)) >> 5);
        }
    }
    slots.sort_unstable();
    let mut pieces: Vec<Piece> = vec![];
    for slot in slots {
        match pieces.last_mut() {
            Some((at, length)) if *at + *length == slot * page => *length += page,
            _ => pieces.push((slot * page, page)),
        }
    }
    Ok(pieces)
}
