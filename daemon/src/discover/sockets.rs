//! The TCP and UDP sockets of a network namespace, as `sock_diag(7)` lists them: listeners with their accept
//! queues, connections with unread bytes, UDP sockets with what waits in them.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::NlasIterator;
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, SOCK_DIAG_BY_FAMILY, TCP_CLOSE, TCP_CLOSE_WAIT,
    TCP_ESTABLISHED, TCP_LISTEN,
};
use netlink_packet_sock_diag::inet::{
    InetRequestBuffer, InetResponseBuffer, REQUEST_LEN, SocketIdBuffer, StateFlags,
};
use procfs::ProcError;
use procfs::process::{FDTarget, Process};

use super::netlink::{Ask, Netlink, NetlinkError};
use super::process::ProcessError;

/// `INET_DIAG_SKV6ONLY` of linux/inet_diag.h: one byte, sent with every IPv6 listener.
const SKV6ONLY: u16 = 11;

/// A listening TCP socket. An IPv4-mapped address is given as IPv4, here and below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub local: SocketAddr,
    /// An IPv6 listener on `::` without this takes IPv4 clients too.
    pub v6_only: bool,
    /// Connections that wait to be accepted.
    pub accept_queue: u32,
    /// How many may wait (`listen(2)`, capped by `net.core.somaxconn`).
    pub backlog: u32,
    pub inode: u64,
}

/// An established TCP connection, possibly closed by its remote end already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// Bytes that the server has not read; the remote end's FIN doesn't count.
    pub unread: u32,
    /// The remote end has closed its direction.
    pub closed_by_remote: bool,
    /// 0 while nobody has accepted it.
    pub inode: u64,
}

/// A bound UDP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpSocket {
    pub local: SocketAddr,
    pub v6_only: bool,
    pub remote: Option<SocketAddr>,
    /// Memory of the datagrams that wait to be read, bytes with the kernel's overhead.
    pub unread: u32,
    pub inode: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    pub listeners: Vec<Listener>,
    pub connections: Vec<Connection>,
    pub udp: Vec<UdpSocket>,
}

/// A TCP connection that the server made itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub peer: OutboundPeer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundPeer {
    /// Another socket of the same server.
    Ourselves,
    /// A neighbour on the same loopback: a sidecar, on a host-network server any local service.
    Loopback,
    /// Someone who may miss the server when it freezes.
    Elsewhere,
}

/// All sockets of the namespace in which `diag` was opened.
pub fn list(diag: &mut Netlink) -> Result<Sockets, NetlinkError> {
    let tcp = StateFlags::LISTEN | StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT;
    // A UDP socket is CLOSE while it is not connected (udp_diag.c).
    let udp = StateFlags::CLOSE | StateFlags::ESTABLISHED;
    let mut sockets = Sockets::default();
    for (protocol, states) in [(IPPROTO_TCP, tcp), (IPPROTO_UDP, udp)] {
        for family in [AF_INET, AF_INET6] {
            let mut request = [0; REQUEST_LEN];
            let mut fields = InetRequestBuffer::new(&mut request);
            fields.set_family(family);
            fields.set_protocol(protocol);
            fields.set_states(states.bits());
            for message in diag.request(SOCK_DIAG_BY_FAMILY, Ask::Dump, &request)? {
                sockets.add(protocol, &message.body).ok_or_else(|| NetlinkError::Malformed {
                    kind: SOCK_DIAG_BY_FAMILY,
                    why: format!("a socket of {} bytes", message.body.len()),
                })?;
            }
        }
    }
    Ok(sockets)
}

impl Sockets {
    /// `None`: the message is not an `inet_diag_msg`.
    fn add(&mut self, protocol: u8, body: &[u8]) -> Option<()> {
        let message = InetResponseBuffer::new_checked(body).ok()?;
        let id = SocketIdBuffer::new_checked(message.socket_id()).ok()?;
        let end = |address: &[u8], port: &[u8]| {
            let address = match message.family() {
                AF_INET => IpAddr::from(*address.first_chunk::<4>()?),
                _ => IpAddr::from(*address.first_chunk::<16>()?).to_canonical(),
            };
            Some(SocketAddr::new(address, u16::from_be_bytes(*port.first_chunk()?)))
        };
        let local = end(id.source_address(), id.source_port())?;
        let remote = end(id.destination_address(), id.destination_port())?;
        let inode = u64::from(message.inode());
        let v6_only = NlasIterator::new(message.payload())
            .flatten()
            .any(|attribute| attribute.kind() == SKV6ONLY && attribute.value().first() == Some(&1));
        match (protocol, message.state()) {
            (IPPROTO_TCP, TCP_LISTEN) => self.listeners.push(Listener {
                local,
                v6_only,
                accept_queue: message.recv_queue(),
                backlog: message.send_queue(),
                inode,
            }),
            (IPPROTO_TCP, state @ (TCP_ESTABLISHED | TCP_CLOSE_WAIT)) => {
                let closed_by_remote = state == TCP_CLOSE_WAIT;
                // The FIN takes a place in the sequence (tcp_diag.c: rcv_nxt - copied_seq).
                let unread = message.recv_queue().saturating_sub(u32::from(closed_by_remote));
                self.connections.push(Connection { local, remote, unread, closed_by_remote, inode });
            }
            (IPPROTO_UDP, TCP_CLOSE | TCP_ESTABLISHED) => self.udp.push(UdpSocket {
                local,
                v6_only,
                remote: (remote.port() != 0).then_some(remote),
                unread: message.recv_queue(),
                inode,
            }),
            // It has changed its state since the kernel filtered it.
            _ => {}
        }
        Some(())
    }

    /// Those of the processes whose socket inodes are given (see [`inodes`]), for a namespace that others use
    /// too. Connections that wait in an accept queue have no inode yet: they go with their listener.
    #[must_use]
    pub fn owned_by(mut self, inodes: &HashSet<u64>) -> Self {
        self.listeners.retain(|listener| inodes.contains(&listener.inode));
        self.udp.retain(|socket| inodes.contains(&socket.inode));
        let listeners = &self.listeners;
        self.connections.retain(|connection| {
            inodes.contains(&connection.inode)
                || connection.inode == 0 && listeners.iter().any(|listener| listener.takes(connection.local))
        });
        self
    }

    /// Connections to the server's ports.
    pub fn connections_on<'a>(&'a self, ports: &'a [u16]) -> impl Iterator<Item = &'a Connection> {
        self.connections.iter().filter(|connection| ports.contains(&connection.local.port()))
    }

    /// Listeners on the server's ports.
    pub fn listeners_on<'a>(&'a self, ports: &'a [u16]) -> impl Iterator<Item = &'a Listener> {
        self.listeners.iter().filter(|listener| ports.contains(&listener.local.port()))
    }

    /// Connections whose local end is no listener's: the server made them.
    pub fn outbound(&self) -> Vec<Outbound> {
        let ends: HashSet<_> =
            self.connections.iter().map(|connection| (connection.local, connection.remote)).collect();
        self.connections
            .iter()
            .filter(|connection| !self.listeners.iter().any(|listener| listener.takes(connection.local)))
            .map(|&Connection { local, remote, .. }| {
                let peer = if ends.contains(&(remote, local)) {
                    OutboundPeer::Ourselves
                } else if remote.ip().is_loopback() {
                    OutboundPeer::Loopback
                } else {
                    OutboundPeer::Elsewhere
                };
                Outbound { local, remote, peer }
            })
            .collect()
    }
}

impl Listener {
    /// Whether a connection with this local end came through this listener.
    pub fn takes(&self, local: SocketAddr) -> bool {
        let address = match self.local.ip() {
            IpAddr::V6(any) if any.is_unspecified() => !self.v6_only || local.is_ipv6(),
            IpAddr::V4(any) if any.is_unspecified() => local.is_ipv4(),
            exact => exact == local.ip(),
        };
        address && self.local.port() == local.port()
    }
}

/// The inodes of all sockets that these processes have open; a process that has gone has none.
pub fn inodes(pids: &[i32]) -> Result<HashSet<u64>, ProcessError> {
    let mut inodes = HashSet::new();
    for &pid in pids {
        match Process::new(pid).and_then(|process| process.fd()) {
            // A descriptor may be closed while we look.
            Ok(descriptors) => inodes.extend(descriptors.flatten().filter_map(|fd| match fd.target {
                FDTarget::Socket(inode) => Some(inode),
                _ => None,
            })),
            Err(ProcError::NotFound(_)) => {}
            Err(source) => return Err(ProcessError::Proc { pid, file: "fd", source }),
        }
    }
    Ok(inodes)
}

#[cfg(test)]
mod tests;
