//! The floor of a wake on this machine: what remains when the daemon's own work takes no time at all.
//!
//! A wake is decided in a thread, so the kernel must set that thread going (one hand-over, here by an eventfd);
//! the thread must write `cgroup.freeze`, and the kernel must set the server going, which then reads and answers.
//! The server here is one of the bench's own, frozen without door, gate or undo log, with the question in its
//! socket already. What lies between the packet and the socket is left out, so that the floor is rather too low.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::AsFd,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use dormouse_daemon::{
    act::freezer::{DEFAULT_TIMEOUT, Freezer},
    door::monotonic_ns,
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};

use crate::{
    sleepers::{Behind, Sleepers},
    wake_doze::{TCP, TIMEOUT, UDP, fresh_socket},
};

/// Hand-overs a round.
const HAND_OVERS: usize = 32;
/// Between two of anything: long enough for every CPU to come to rest.
const REST: Duration = Duration::from_millis(2);

/// Microseconds.
#[derive(Default)]
pub struct Floor {
    /// From write(2) in one thread to the return of poll(2) in another.
    pub hand_over: Vec<f64>,
    /// By transport, from before the write of `cgroup.freeze` to the answer at the door.
    pub thaw: [Vec<f64>; 2],
}

/// Measures once with each server; all must be awake, and are awake afterwards.
pub fn measure(stand: &Sleepers, servers: &[Behind]) -> Result<Floor> {
    let mut floor = Floor { hand_over: hand_over()?, ..Floor::default() };
    for server in servers {
        for transport in [TCP, UDP] {
            floor.thaw[transport].push(thaw(stand, server, transport)?);
        }
    }
    Ok(floor)
}

fn hand_over() -> Result<Vec<f64>> {
    let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let (heard_ns, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(SeqCst) {
                let _ = poll(&mut [PollFd::new(bell.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
                heard_ns.store(monotonic_ns(), SeqCst);
                let _ = bell.read();
            }
        });
        let mut samples = vec![];
        for _ in 0..HAND_OVERS {
            thread::sleep(REST);
            let rung_ns = monotonic_ns();
            bell.write(1)?;
            thread::sleep(REST);
            samples.push(heard_ns.load(SeqCst).saturating_sub(rung_ns) as f64 / 1000.0);
        }
        over.store(true, SeqCst);
        bell.write(1)?;
        Ok(samples)
    })
}

fn thaw(stand: &Sleepers, server: &Behind, transport: usize) -> Result<f64> {
    let mut freezer = Freezer::open(server.cgroup.path())?;
    freezer.freeze(DEFAULT_TIMEOUT)?;
    let asked = stand.player(|| ask(server.address, transport));
    thread::sleep(REST);
    server.await_answer();
    let before_ns = monotonic_ns();
    // Also when nothing could be asked: the bench goes on with this server.
    freezer.thaw()?;
    let mut echo = [0; 256];
    let len = match asked? {
        Asked::Tcp(mut stream) => stream.read(&mut echo)?,
        Asked::Udp(socket) => socket.recv(&mut echo)?,
    };
    let answered_ns = server.answered_ns();
    ensure!(len != 0 && answered_ns > before_ns, "the door saw no answer after a bare thaw");
    Ok((answered_ns - before_ns) as f64 / 1000.0)
}

enum Asked {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// Leaves a question in the frozen server's socket.
fn ask(address: SocketAddr, transport: usize) -> Result<Asked> {
    if transport == UDP {
        let socket = fresh_socket()?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.send(b"hello")?;
        return Ok(Asked::Udp(socket));
    }
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"hello")?;
    Ok(Asked::Tcp(stream))
}
