//! Finds a server and the roads to it: its cgroup and processes, its network namespace, the veth at whose host
//! end the door stands, its sockets. All calls block (for seconds at worst): not for an async worker thread.

pub mod command;
pub mod link;
pub mod mounts;
pub mod netlink;
pub mod probers;
pub mod process;
pub mod profile;
pub mod resolve;
pub mod selector;
pub mod sockets;

use crate::netns::{Helper, NamespaceSockets, NetnsError};
use resolve::Found;

/// Sockets in a server's network namespace, through the helper unless it is the daemon's own.
pub fn namespace_sockets(found: &Found, helper: &Helper) -> Result<NamespaceSockets, NetnsError> {
    let sockets =
        if found.host_network { NamespaceSockets::own()? } else { helper.sockets(found.main.pid)? };
    // The number could have become another process's before its namespace was opened.
    if found.main.is_alive() { Ok(sockets) } else { Err(NetnsError::Gone { pid: found.main.pid }) }
}

#[cfg(test)]
pub(crate) mod testing;
