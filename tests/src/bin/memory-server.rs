//! A process that does nothing but hold memory, and touch it when told to: what the benches of deep sleep put to
//! sleep. It reads commands from its standard input, or from whoever connects to its `--port`, one after the other, and
//! answers each with a line:
//!
//! - `place`: where its memory begins and how long it is, bytes.
//! - `dirty`: writes to every page, so that a page-out has to write every one.
//! - `set runs|scattered|all SEED`: which pages `go` will touch, and in which order.
//! - `go`: touches them, every other one by a write: when the last was there (`CLOCK_MONOTONIC`, ns), and the longest
//!   that any one of them took (ns).
//! - `check`: how many bytes are not what was written at the start.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use nix::time::{ClockId, clock_gettime};

const PAGE: usize = 4096;
/// Of each page, this many bytes are random and the rest repeat: a third, as game heaps compress.
const RANDOM: usize = PAGE / 3;
/// One page in this many is random throughout.
const INCOMPRESSIBLE: usize = 3;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    mib: usize,
    /// Maps this file too and reads all of it.
    #[arg(long)]
    file: Option<std::path::PathBuf>,
    /// Takes its commands by TCP.
    #[arg(long)]
    port: Option<u16>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut memory = vec![0u8; (args.mib << 20) + PAGE];
    let start = memory.as_ptr().align_offset(PAGE);
    let memory = &mut memory[start..start + (args.mib << 20)];
    for (number, page) in memory.chunks_exact_mut(PAGE).enumerate() {
        page.copy_from_slice(&content(number));
    }
    let file = args.file.as_deref().map(mapped::File::open).transpose()?;
    let mut held = Held { memory, order: vec![], file };
    let Some(port) = args.port else {
        let mut out = std::io::stdout();
        writeln!(out, "ready")?;
        return held.serve(std::io::stdin().lock(), out);
    };
    let listener = TcpListener::bind(("::", port)).with_context(|| format!("listen on TCP {port}"))?;
    for client in listener.incoming() {
        let client = client?;
        client.set_nodelay(true)?;
        // Who hangs up in the middle is no concern of the others'.
        let _ = held.serve(BufReader::new(client.try_clone()?), client);
    }
    Ok(())
}

struct Held<'a> {
    memory: &'a mut [u8],
    /// What `go` touches.
    order: Vec<u32>,
    file: Option<mapped::File>,
}

impl Held<'_> {
    fn serve(&mut self, commands: impl BufRead, mut out: impl Write) -> Result<()> {
        for line in commands.lines() {
            writeln!(out, "{}", self.answer(&line?)?)?;
        }
        Ok(())
    }

    fn answer(&mut self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split(' ').collect();
        Ok(match words[..] {
            ["place"] => format!("{} {}", self.memory.as_ptr() as usize, self.memory.len()),
            ["dirty"] => {
                self.memory.chunks_exact_mut(PAGE).for_each(dirty);
                "dirty".to_owned()
            }
            ["set", shape, seed] => {
                self.order = set(shape, self.memory.len() / PAGE, seed.parse()?)?;
                format!("set {}", self.order.len())
            }
            ["go"] => {
                let (end, worst) = touch(self.memory, &self.order)?;
                format!("{} {}", end.as_nanos(), worst.as_nanos())
            }
            ["check"] => {
                let pages = self.memory.chunks_exact(PAGE).enumerate();
                let wrong: usize = pages.map(|(number, page)| usize::from(page != content(number))).sum();
                format!("{wrong} {}", self.file.as_ref().map_or(0, mapped::File::read))
            }
            _ => bail!("what is {line:?}?"),
        })
    }
}

/// xorshift64* (Vigna, 2016).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound
    }
}

fn content(number: usize) -> [u8; PAGE] {
    let mut random = Random::new(number as u64 + 1);
    let mut page = [number as u8 | 1; PAGE];
    let length = if number.is_multiple_of(INCOMPRESSIBLE) { PAGE } else { RANDOM };
    for word in page[..length].chunks_exact_mut(4) {
        word.copy_from_slice(&(random.next() as u32).to_ne_bytes());
    }
    page
}

/// A write that changes nothing.
fn dirty(page: &mut [u8]) {
    page[0] = black_box(page[0]);
}

/// A fifth of all pages in runs of 1 to 63, a fifth one by one, or all of them; in random order.
fn set(shape: &str, pages: usize, seed: u64) -> Result<Vec<u32>> {
    let mut random = Random::new(seed);
    let mut set: Vec<u32> = match shape {
        "all" => (0..pages as u32).collect(),
        "runs" => {
            let mut set = vec![];
            let mut at = 0;
            while at < pages {
                let run = 1 + random.below(63);
                set.extend((at..pages.min(at + run)).map(|page| page as u32));
                at += run + 1 + random.below(8 * 32 - 2);
            }
            set
        }
        "scattered" => {
            let mut all: Vec<u32> = (0..pages as u32).collect();
            shuffle(&mut all, &mut random);
            all.truncate(pages / 5);
            all
        }
        other => bail!("no set called {other}"),
    };
    shuffle(&mut set, &mut random);
    Ok(set)
}

/// Fisher and Yates.
fn shuffle(set: &mut [u32], random: &mut Random) {
    for last in (1..set.len()).rev() {
        set.swap(last, random.below(last + 1));
    }
}

fn touch(memory: &mut [u8], order: &[u32]) -> Result<(Duration, Duration)> {
    let mut worst = Duration::ZERO;
    let mut begun = Instant::now();
    for (count, number) in order.iter().enumerate() {
        let at = *number as usize * PAGE;
        let page = memory.get_mut(at..at + PAGE).context("a page of the set")?;
        if count % 2 == 0 {
            dirty(page);
        } else {
            black_box(page[PAGE / 2]);
        }
        let now = Instant::now();
        worst = worst.max(now - begun);
        begun = now;
    }
    Ok((clock_gettime(ClockId::CLOCK_MONOTONIC)?.into(), worst))
}

/// A file mapped read-only, as jars and libraries are.
mod mapped {
    use std::num::NonZero;
    use std::path::Path;

    use anyhow::{Context, Result};
    use nix::sys::mman::{MapFlags, ProtFlags, mmap};

    use super::PAGE;

    pub struct File {
        start: usize,
        length: usize,
    }

    impl File {
        pub fn open(path: &Path) -> Result<Self> {
            let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
            let length = NonZero::new(file.metadata()?.len() as usize).context("an empty file")?;
            // SAFETY: a fresh mapping at an address that the kernel chooses takes nothing from anybody.
            let at = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, &file, 0) }?;
            let mapped = Self { start: at.as_ptr() as usize, length: length.get() };
            mapped.read();
            Ok(mapped)
        }

        /// Reads a byte of each page; how many pages.
        pub fn read(&self) -> usize {
            let mut pages = 0;
            for at in (0..self.length).step_by(PAGE) {
                // SAFETY: inside the mapping, which lives as long as the process; its file is not made shorter.
                unsafe { ((self.start + at) as *const u8).read_volatile() };
                pages += 1;
            }
            pages
        }
    }
}
