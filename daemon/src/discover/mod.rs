//! Finds a server and the roads to it: its cgroup and processes, its network namespace, the veth at whose host
//! end the door stands, its sockets. All calls block (for seconds at worst): not for an async worker thread.

pub mod command;
pub mod link;
pub mod mounts;
pub mod netlink;
pub mod process;
pub mod profile;
pub mod selector;
pub mod sockets;

#[cfg(test)]
pub(crate) mod testing;
