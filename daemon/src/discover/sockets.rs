//! The TCP and UDP sockets of a network namespace, as `sock_diag(7)` lists them: listeners with their accept
//! queues, connections with unread bytes, UDP sockets with what waits in them.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netlink_packet_core::NlasIterator;
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, SOCK_DIAG_BY_FAMILY, TCP_CLOSE_WAIT, TCP_LISTEN,
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
/// `INET_DIAG_INFO` of linux/inet_diag.h: `struct tcp_info`.
const INFO: u16 = 2;
/// `INET_DIAG_REQ_PROTOCOL` of linux/inet_diag.h.
const REQ_PROTOCOL: u16 = 3;

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
    /// Bytes that the server has not read; the remote end's FIN doesn't count. On MPTCP, their memory.
    pub unread: u32,
    /// The remote end has closed its direction.
    pub closed_by_remote: bool,
    /// 0 while nobody has accepted it.
    pub inode: u64,
    /// What was heard from the remote end; `None` where the kernel doesn't say.
    pub heard: Option<Heard>,
}

/// What a connection's own kernel knows of its remote end (`struct tcp_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Since the last payload from it; since the handshake if there was none.
    pub silent: Duration,
    /// Bytes of payload that it has sent.
    pub bytes: u64,
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
    let connected = StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT;
    let mut tcp = request(IPPROTO_TCP, StateFlags::LISTEN | connected);
    InetRequestBuffer::new(&mut tcp).set_extensions(1 << (INFO - 1));
    // A UDP socket is CLOSE while it is not connected (udp_diag.c).
    let udp = request(IPPROTO_UDP, StateFlags::CLOSE | StateFlags::ESTABLISHED);
    let mut sockets = Sockets::default();
    for family in [AF_INET, AF_INET6] {
        for message in dump(diag, family, &tcp)? {
            sockets.add_tcp(&message);
        }
        for message in dump(diag, family, &udp)? {
            sockets.add_udp(&message);
        }
    }
    let mut waiting = HashMap::new();
    for family in [AF_INET, AF_INET6] {
        match dump(diag, family, &mptcp_request(connected)) {
            Ok(messages) => {
                waiting.extend(messages.iter().map(|raw| ((raw.local, raw.remote), raw.received)));
            }
            // A kernel without MPTCP, or without its diagnosis.
            Err(NetlinkError::Refused { source, .. })
                if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => {}
            Err(error) => return Err(error),
        }
    }
    sockets.add_mptcp(&waiting);
    Ok(sockets)
}

/// `struct inet_diag_req_v2`, the family to be filled in.
fn request(protocol: u8, states: StateFlags) -> Vec<u8> {
    let mut request = vec![0; REQUEST_LEN];
    let mut fields = InetRequestBuffer::new(&mut request);
    fields.set_protocol(protocol);
    fields.set_states(states.bits());
    request
}

/// The protocol's number doesn't fit the one byte of the request: it goes into an attribute (since 5.9).
fn mptcp_request(states: StateFlags) -> Vec<u8> {
    let mut request = request(libc::IPPROTO_RAW as u8, states);
    request.extend_from_slice(&8_u16.to_ne_bytes());
    request.extend_from_slice(&REQ_PROTOCOL.to_ne_bytes());
    request.extend_from_slice(&libc::IPPROTO_MPTCP.to_ne_bytes());
    request
}

fn dump(diag: &mut Netlink, family: u8, request: &[u8]) -> Result<Vec<Raw>, NetlinkError> {
    let mut request = request.to_vec();
    InetRequestBuffer::new(&mut request).set_family(family);
    diag.request(SOCK_DIAG_BY_FAMILY, Ask::Dump, &request)?
        .iter()
        .map(|message| {
            Raw::read(&message.body).ok_or_else(|| NetlinkError::Malformed {
                kind: SOCK_DIAG_BY_FAMILY,
                why: format!("a socket of {} bytes", message.body.len()),
            })
        })
        .collect()
}

/// What is read of an `inet_diag_msg`.
#[derive(Debug)]
struct Raw {
    state: u8,
    local: SocketAddr,
    remote: SocketAddr,
    received: u32,
    to_send: u32,
    v6_only: bool,
    inode: u64,
    heard: Option<Heard>,
}

impl Raw {
    /// `None`: too short.
    fn read(body: &[u8]) -> Option<Self> {
        let message = InetResponseBuffer::new_checked(body).ok()?;
        let id = SocketIdBuffer::new_checked(message.socket_id()).ok()?;
        let end = |address: &[u8], port: &[u8]| {
            let address = match message.family() {
                AF_INET => IpAddr::from(*address.first_chunk::<4>()?),
                _ => IpAddr::from(*address.first_chunk::<16>()?).to_canonical(),
            };
            Some(SocketAddr::new(address, u16::from_be_bytes(*port.first_chunk()?)))
        };
        let attributes = || NlasIterator::new(message.payload()).flatten();
        Some(Self {
            state: message.state(),
            local: end(id.source_address(), id.source_port())?,
            remote: end(id.destination_address(), id.destination_port())?,
            received: message.recv_queue(),
            to_send: message.send_queue(),
            v6_only: attributes()
                .any(|attribute| attribute.kind() == SKV6ONLY && attribute.value().first() == Some(&1)),
            inode: u64::from(message.inode()),
            heard: attributes()
                .find(|attribute| attribute.kind() == INFO)
                .and_then(|attribute| heard(attribute.value())),
        })
    }
}

/// `tcpi_last_data_recv`, milliseconds, and `tcpi_bytes_received` (linux/tcp.h; the latter since Linux 4.1).
fn heard(info: &[u8]) -> Option<Heard> {
    let silent = u32::from_ne_bytes(*info.get(52..)?.first_chunk()?);
    let bytes = u64::from_ne_bytes(*info.get(128..)?.first_chunk()?);
    Some(Heard { silent: Duration::from_millis(silent.into()), bytes })
}

/// `SOCK_DESTROY` of linux/sock_diag.h (Linux 4.5, CONFIG_INET_DIAG_DESTROY).
const SOCK_DESTROY: u16 = 21;

/// Closes a connection as its own kernel would: the remote end gets a reset, what it sent is thrown away, and
/// the server, when it runs again, accepts a closed socket. Needs CAP_NET_ADMIN over the namespace.
pub fn close(diag: &mut Netlink, connection: &Connection) -> Result<(), NetlinkError> {
    let ends = [connection.local, connection.remote];
    let family = if connection.remote.is_ipv4() { AF_INET } else { AF_INET6 };
    // struct inet_diag_req_v2 of linux/inet_diag.h; all states, any cookie.
    let mut request = vec![family, IPPROTO_TCP, 0, 0];
    request.extend(u32::MAX.to_ne_bytes());
    for end in ends {
        request.extend(end.port().to_be_bytes());
    }
    for end in ends {
        match end.ip() {
            IpAddr::V4(v4) => request.extend(v4.octets().into_iter().chain([0; 12])),
            IpAddr::V6(v6) => request.extend(v6.octets()),
        }
    }
    request.extend([0; 4]);
    request.extend([0xff; 8]);
    diag.request(SOCK_DESTROY, Ask::One, &request).map(drop)
}

impl Sockets {
    fn add_tcp(&mut self, raw: &Raw) {
        let &Raw { local, remote, inode, v6_only, heard, .. } = raw;
        if raw.state == TCP_LISTEN {
            let (accept_queue, backlog) = (raw.received, raw.to_send);
            self.listeners.push(Listener { local, v6_only, accept_queue, backlog, inode });
        } else {
            let closed_by_remote = raw.state == TCP_CLOSE_WAIT;
            // The FIN takes a place in the sequence (tcp_diag.c: rcv_nxt - copied_seq).
            let unread = raw.received.saturating_sub(u32::from(closed_by_remote));
            self.connections.push(Connection { local, remote, unread, closed_by_remote, inode, heard });
        }
    }

    /// What came in on an MPTCP connection leaves its TCP socket at once and waits in the MPTCP socket above,
    /// where it counts with the kernel's overhead (mptcp_diag.c; seen on 6.18). Go listens with MPTCP by default.
    fn add_mptcp(&mut self, waiting: &HashMap<(SocketAddr, SocketAddr), u32>) {
        for connection in &mut self.connections {
            if let Some(&bytes) = waiting.get(&(connection.local, connection.remote)) {
                connection.unread = connection.unread.max(bytes);
            }
        }
    }

    fn add_udp(&mut self, raw: &Raw) {
        self.udp.push(UdpSocket {
            local: raw.local,
            v6_only: raw.v6_only,
            remote: (raw.remote.port() != 0).then_some(raw.remote),
            unread: raw.received,
            inode: raw.inode,
        });
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

#[cfg(fuzzing)]
pub fn fuzz(body: &[u8]) {
    let _ = Raw::read(body);
}

#[cfg(test)]
mod tests;
