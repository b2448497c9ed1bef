//! What is noticed at once, or nearly so, and not only at the next look: a server's end, a veth that is gone, a
//! SIGTERM that waits for a frozen server.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc::UnboundedSender,
    task::AbortHandle,
};

use super::{Agent, Message, look::is_there, managed::Managed};
use crate::{discover::process::ProcessId, memory::sys::pidfd_open, stage::Event};

/// How often sleepers are asked whether SIGTERM waits for them. The kernel tells nobody of a signal to a frozen
/// process; the shortest usual patience is docker's, 10 s.
pub const LOOK_FOR_STOPS: Duration = Duration::from_secs(2);

/// A pod that goes takes several devices along: one look for all.
const GATHER: Duration = Duration::from_millis(20);

/// Waits for a process's end until it is dropped.
pub struct EndWatch(AbortHandle);

impl Drop for EndWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Agent {
    /// Has the agent look at a server as soon as its main process ends. `None`: it is seen at the next look.
    pub(super) fn watch_end(&self, name: &str, generation: u64, main: ProcessId) -> Option<EndWatch> {
        let end = pidfd_open(main.pid)
            .map_err(io::Error::from)
            .and_then(readable)
            .inspect_err(|error| tracing::debug!(server = name, %error, "its end will be noticed late"))
            .ok()?;
        let (server, outbox) = (name.to_owned(), self.outbox.clone());
        let task = tokio::spawn(async move {
            // The number may have been another's by the time it was opened.
            let ended = !main.is_alive() || end.readable().await.is_ok();
            if ended {
                let _ = outbox.send(Message::Ended { server, generation });
            }
        });
        Some(EndWatch(task.abort_handle()))
    }

    pub(super) fn ended(&mut self, name: &str, generation: u64) {
        if self.servers.get(name).is_some_and(|managed| managed.generation == generation) {
            self.look_at(name);
        }
    }

    /// Some link of the node changed: whose veth is gone?
    pub(super) fn links_changed(&mut self) {
        let is_cut = |managed: &Managed| {
            managed.here().is_some_and(|here| !here.brought.host_ends.iter().all(is_there))
        };
        let cut: Vec<String> = self
            .servers
            .iter()
            .filter(|(_, managed)| is_cut(managed))
            .map(|(name, _)| name.clone())
            .collect();
        for name in cut {
            self.look_at(&name);
        }
    }

    /// Frozen, a server that is told to stop can't save its world, and would be killed in the end.
    pub(super) fn look_for_stops(&mut self) {
        let is_told = |managed: &Managed| {
            managed.here().is_some_and(|here| {
                here.machine.stage().by().is_some()
                    && here.brought.main.is_told_to_stop()
                    && here.brought.found.main.is_alive()
            })
        };
        let told: Vec<String> = self
            .servers
            .iter()
            .filter(|(_, managed)| is_told(managed))
            .map(|(name, _)| name.clone())
            .collect();
        for name in told {
            self.feed(&name, Event::ServerStopping);
        }
    }
}

/// Tells the agent whenever a link of the daemon's namespace comes, goes, or is renamed.
///
/// # Errors
/// The kernel gives no netlink socket; then a lost veth is seen at the next look.
pub(super) fn watch_links(outbox: UnboundedSender<Message>) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, libc::RTMGRP_LINK as u32))?;
    let socket = readable(socket)?;
    tokio::spawn(async move {
        loop {
            let Ok(mut ready) = socket.readable().await else { return };
            loop {
                // What it says does not matter, and neither does what was lost (ENOBUFS).
                match recv(socket.get_ref().as_raw_fd(), &mut [0; 16], MsgFlags::MSG_DONTWAIT) {
                    Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => break,
                    Err(error) => return tracing::warn!(%error, "lost veths will be noticed late"),
                }
            }
            ready.clear_ready();
            drop(ready);
            if outbox.send(Message::LinksChanged).is_err() {
                return;
            }
            tokio::time::sleep(GATHER).await;
        }
    });
    Ok(())
}

/// A descriptor that tasks can wait for.
fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same open descriptor for as long as it lives, and `AsyncFd` owns it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}
