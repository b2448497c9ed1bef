//! What the device itself can do, past the page cache: the yardstick of page-outs and wakes.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;

/// O_DIRECT wants memory, places and lengths in the disk's blocks; none is larger than a page.
const ALIGNED: usize = 4096;
/// The longest single request.
const LONGEST: u64 = 1 << 20;

/// A place in a file, bytes.
pub type Piece = (u64, u64);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Read,
    Write,
}

/// Moves all `pieces`, up to `depth` at a time, in their order; how long it took.
pub fn transfer(path: &Path, way: Way, pieces: &[Piece], depth: usize) -> Result<Duration> {
    let file = File::options()
        .read(true)
        .write(way == Way::Write)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .with_context(|| path.display().to_string())?;
    let requests: Vec<Piece> = pieces.iter().flat_map(|piece| cut(*piece)).collect();
    let longest = requests.iter().map(|(_, length)| *length).max().context("something to move")? as usize;
    let mut memory = vec![0x5a_u8; longest * depth + ALIGNED];
    let start = memory.as_ptr().align_offset(ALIGNED);
    let buffers: Vec<&mut [u8]> = memory[start..].chunks_exact_mut(longest).collect();
    let mut queue = Queue::new(depth)?;
    let begun = Instant::now();
    let mut next = requests.iter();
    let mut idle: Vec<usize> = (0..buffers.len().min(depth)).collect();
    let mut under_way = 0;
    loop {
        while let Some(buffer) = idle.pop() {
            let Some((at, length)) = next.next() else {
                idle.push(buffer);
                break;
            };
            queue.submit(&file, way, buffers[buffer].as_ptr() as u64, *at, *length, buffer as u64)?;
            under_way += 1;
        }
        if under_way == 0 {
            return Ok(begun.elapsed());
        }
        let done = queue.completed()?;
        under_way -= done.len();
        idle.extend(done);
    }
}

fn cut((mut at, mut length): Piece) -> Vec<Piece> {
    let mut parts = vec![];
    while length > 0 {
        let part = length.min(LONGEST);
        parts.push((at, part));
        at += part;
        length -= part;
    }
    parts
}

/// The kernel's own asynchronous I/O (io_submit(2)): many requests under way without as many threads, on two cores.
struct Queue {
    context: u64,
    depth: usize,
}

/// `struct iocb` of linux/aio_abi.h, little-endian.
#[repr(C)]
#[derive(Default)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    length: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_file: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Done {
    data: u64,
    request: u64,
    result: i64,
    result2: i64,
}

impl Queue {
    fn new(depth: usize) -> Result<Self> {
        let mut context = 0u64;
        // SAFETY: the call writes one word, to which it gets a pointer for its own length.
        Errno::result(unsafe { libc::syscall(libc::SYS_io_setup, depth, &raw mut context) })?;
        Ok(Self { context, depth })
    }

    fn submit(&mut self, file: &File, way: Way, buffer: u64, at: u64, length: u64, data: u64) -> Result<()> {
        let mut request = Request {
            data,
            opcode: u16::from(way == Way::Write),
            file: u32::try_from(file.as_raw_fd())?,
            buffer,
            length,
            offset: i64::try_from(at)?,
            ..Request::default()
        };
        let mut list = [&raw mut request];
        // SAFETY: the kernel copies the request within the call; its buffer lives until `transfer` has collected all.
        let taken = unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1, list.as_mut_ptr()) };
        ensure!(Errno::result(taken)? == 1, "the kernel took no request");
        Ok(())
    }

    /// Waits for one at least; the `data` of those that are done.
    fn completed(&mut self) -> Result<Vec<usize>> {
        let mut done = vec![Done::default(); self.depth];
        let none: *mut libc::timespec = std::ptr::null_mut();
        let most = done.len();
        // SAFETY: `done` has room for `most` events and outlives the call.
        let count =
            unsafe { libc::syscall(libc::SYS_io_getevents, self.context, 1, most, done.as_mut_ptr(), none) };
        done.truncate(Errno::result(count)? as usize);
        ensure!(done.iter().all(|one| one.result > 0), "a request failed: {:?}", done[0].result);
        Ok(done.iter().map(|one| one.data as usize).collect())
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the context is ours; the call waits for what is still under way.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

/// A file of so many bytes, every block written.
pub fn make(path: &Path, bytes: u64) -> Result<()> {
    use std::io::Write;
    let mut file = File::create(path)?;
    let block = vec![1; 1 << 20];
    for _ in 0..bytes >> 20 {
        file.write_all(&block)?;
    }
    Ok(file.sync_all()?)
}
