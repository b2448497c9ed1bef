//! A link that loses packets and lets them overtake each other: two TAP devices in two namespaces and a thread
//! between them (the bench's kernel has no netem).

use std::{
    collections::BinaryHeap,
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::OpenOptionsExt,
    },
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{chance::Chance, netns::Netns};

/// What happens to frames on the way, each for itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub lost_in_thousand: u64,
    /// Held back for up to `late_by`, so that those behind it are there first.
    pub late_in_thousand: u64,
    pub late_by: Duration,
}

/// Both TAP devices are gone when this is dropped.
pub struct LossyLink {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    weather: Mutex<Weather>,
    stop: AtomicBool,
    lost: AtomicU64,
    late: AtomicU64,
}

impl LossyLink {
    /// Makes device `ours` in one namespace and `theirs` in the other, both down, with fair weather between them.
    ///
    /// # Errors
    /// No /dev/net/tun, or not root.
    pub fn between(one: (&Netns, &str), other: (&Netns, &str), seed: u64) -> Result<Self> {
        let taps = [one.0.run(|| tap(one.1))?, other.0.run(|| tap(other.1))?];
        let shared = Arc::new(Shared::default());
        let carried = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("lossy-link".into())
            .spawn(move || carry(taps, &carried, Chance::new(seed)))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    /// Frames lost, and frames held back, so far.
    pub fn lost_and_late(&self) -> (u64, u64) {
        (self.shared.lost.load(SeqCst), self.shared.late.load(SeqCst))
    }
}

impl Drop for LossyLink {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A TAP device in the caller's namespace (Documentation/networking/tuntap.rst); it lives as long as the file.
fn tap(name: &str) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .context("open /dev/net/tun")?;
    ensure!(name.len() < libc::IFNAMSIZ, "{name} is no interface name");
    // SAFETY: all zeroes is a valid ifreq; the kernel reads a name with its NUL and the flags, and writes the name.
    let done = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *place = byte.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
        libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request)
    };
    ensure!(done == 0, "make the TAP {name}: {}", io::Error::last_os_error());
    Ok(file)
}

/// A frame that waits: to which end, and since when in the order of coming.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    /// A heap gives the largest first: the earliest time is the largest.
    at: std::cmp::Reverse<Instant>,
    to: usize,
    frame: Vec<u8>,
}

fn carry(mut taps: [File; 2], shared: &Shared, mut chance: Chance) {
    let mut late = BinaryHeap::<Late>::new();
    let mut buffer = vec![0; 65_600];
    while !shared.stop.load(SeqCst) {
        let wait = PollTimeout::from(if late.is_empty() { 20u8 } else { 1 });
        let mut fds = [0, 1].map(|end: usize| PollFd::new(taps[end].as_fd(), PollFlags::POLLIN));
        let _ = poll(&mut fds, wait);
        let weather = *shared.weather.lock().unwrap_or_else(PoisonError::into_inner);
        for from in [0, 1] {
            let to = 1 - from;
            loop {
                let len = match taps[from].read(&mut buffer) {
                    Ok(len) => len,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    // Nothing more, or the device is still down (EIO).
                    Err(_) => break,
                };
                if chance.in_thousand(weather.lost_in_thousand) {
                    shared.lost.fetch_add(1, SeqCst);
                } else if chance.in_thousand(weather.late_in_thousand) {
                    let by = weather.late_by.as_micros() as u64;
                    let at = Instant::now() + Duration::from_micros(chance.below(by.max(1)));
                    late.push(Late { at: std::cmp::Reverse(at), to, frame: buffer[..len].to_vec() });
                    shared.late.fetch_add(1, SeqCst);
                } else {
                    // A device that is down drops, as a cable that is unplugged.
                    let _ = taps[to].write(&buffer[..len]);
                }
            }
        }
        while late.peek().is_some_and(|next| next.at.0 <= Instant::now()) {
            if let Some(next) = late.pop() {
                let _ = taps[next.to].write(&next.frame);
            }
        }
    }
}
