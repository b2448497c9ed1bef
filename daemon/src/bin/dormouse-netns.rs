//! Opens netlink sockets in other network namespaces for the daemon. It is the only part of dormouse that has
//! CAP_SYS_ADMIN (for setns(2)), so it reads nothing but one byte and one descriptor from the daemon, and ends
//! when the daemon closes the socket that is its standard input.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use dormouse_daemon::netns::protocol::{DONE, FAILED, REASON_MAX, SOCKETS, receive, send};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

fn main() -> anyhow::Result<()> {
    let daemon = io::stdin();
    loop {
        let mut request = [0];
        let (length, descriptors) =
            receive(&daemon, &mut request).context("dormouse-netns is started by dormoused, not by hand")?;
        if length == 0 {
            return Ok(());
        }
        match answer(request[0], descriptors) {
            Ok(sockets) => send(&daemon, &[DONE], &sockets.each_ref().map(AsFd::as_fd)),
            Err(why) => {
                let mut text = vec![FAILED];
                text.extend(why.bytes().take(REASON_MAX));
                send(&daemon, &text, &[])
            }
        }
        .context("cannot answer the daemon")?;
    }
}

fn answer(request: u8, descriptors: Vec<OwnedFd>) -> Result<[OwnedFd; 2], String> {
    if request != SOCKETS {
        return Err(format!("request {request} is not known: daemon and helper are of different versions"));
    }
    let [namespace] = <[OwnedFd; 1]>::try_from(descriptors)
        .map_err(|descriptors| format!("one namespace was expected, not {}", descriptors.len()))?;
    // Only a thread's own namespace changes, and the thread ends here.
    std::thread::Builder::new()
        .spawn(move || sockets_in(&namespace))
        .map_err(|error| format!("no thread: {error}"))?
        .join()
        .map_err(|_| "the helper's thread panicked".to_owned())?
}

fn sockets_in(namespace: &OwnedFd) -> Result<[OwnedFd; 2], String> {
    // The kernel checks that the descriptor is a network namespace.
    setns(namespace, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| format!("setns: {} (CAP_SYS_ADMIN is needed)", errno.desc()))?;
    let open = |protocol| {
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .map_err(|errno| format!("netlink socket: {}", errno.desc()))
    };
    Ok([open(SockProtocol::NetlinkSockDiag)?, open(SockProtocol::NetlinkRoute)?])
}
