//! The floor of a wake on this machine: whoever hears of a packet in a thread and writes `cgroup.freeze`, and does nothing
//! else at all.
//!
//! A thread as urgent as the daemon's sleeps on a packet socket at the server's veth (the kernel wakes it in the packet's own
//! context) and thaws the server when a packet comes. No packet is looked at, held or replayed, no gate opens, nothing is noted: the payload goes
//! into the frozen server's socket by itself. The door, for which this is a server awake, times it as it times all others.

use std::{
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use anyhow::{Context, Result, ensure};
use dormouse_daemon::{
    act::freezer::{DEFAULT_TIMEOUT, Freezer},
    sleep::go_first,
};
use dormouse_tests::packet_socket::PacketSocket;

use crate::{
    sleepers::{Behind, Sleepers},
    wake_doze::{FLOOR, Faults, Round, TIMEOUT, one},
};

/// Each is frozen and asked once. All must be awake, and are awake afterwards.
pub fn ask_all(stand: &Sleepers, servers: &[Behind], round: &mut Round, faults: &mut Faults) -> Result<()> {
    for (index, server) in servers.iter().enumerate() {
        let veth = &stand.topology.pods[index].host_veth;
        let socket = PacketSocket::open(&stand.topology.netns, veth)?;
        let mut freezer = Freezer::open(server.cgroup.path())?;
        freezer.freeze(DEFAULT_TIMEOUT)?;
        let (arm, wanted) = channel();
        let (tell, armed) = channel();
        let armed = Mutex::new(armed);
        thread::scope(|scope| {
            let watch = scope.spawn(move || thaw_on_a_packet(&socket, &freezer, &wanted, &tell));
            one(stand, server, index, FLOOR, round, faults, &|| {
                server.await_answer();
                // Where the thread has ended, its own error is the one that counts.
                if arm.send(()).is_ok() {
                    let _ = armed.lock().unwrap_or_else(PoisonError::into_inner).recv();
                }
            });
            drop(arm);
            watch.join().expect("it returns its errors")
        })?;
    }
    Ok(())
}

fn thaw_on_a_packet(
    socket: &PacketSocket,
    freezer: &Freezer,
    wanted: &Receiver<()>,
    tell: &Sender<()>,
) -> Result<()> {
    go_first();
    let heard = wanted.recv().context("the player never came to his question").and_then(|()| {
        socket.drain()?;
        tell.send(())?;
        Ok(socket.hears(TIMEOUT))
    });
    // Also when nothing could be asked: the bench goes on with this server.
    freezer.thaw()?;
    ensure!(heard?, "the packet socket heard no question");
    Ok(())
}
