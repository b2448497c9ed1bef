//! Floods from sources that do not exist: frames with invented addresses, put on the wire as they are.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result, bail};

use crate::topology::{CLIENT, NODE, Node};

/// The range for benchmarks (RFC 2544, RFC 6890): 131,072 addresses that nobody has.
const SOURCES: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const SOURCE_BITS: u32 = 17;

const ETHERNET: usize = 14;
const IPV4: usize = 20;

/// What is sent.
#[derive(Clone, Copy)]
pub enum What<'a> {
    /// The start of a connection that nobody means.
    Syn,
    /// Payload of a connection that does not exist.
    Data(&'a [u8]),
    Datagram(&'a [u8]),
}

/// A sender in the client's namespace of a [`Node`].
pub struct Flood {
    socket: OwnedFd,
    /// Both hardware addresses and the type.
    ethernet: [u8; ETHERNET],
    to: (Ipv4Addr, u16),
    random: u64,
    last: Vec<u8>,
}

impl Node {
    /// Lets answers to the invented sources go where they came from, so that reverse-path filters pass them and
    /// the node does not drop its own answers.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn expect_floods(&self) -> Result<()> {
        self.netns.ip(&format!("route replace 198.18.0.0/15 via {}", CLIENT[0]))
    }
}

impl Flood {
    /// A flood at an address of the node or of a pod behind it.
    ///
    /// # Errors
    /// Not root, or the address is no IPv4 address.
    pub fn at(node: &Node, to: SocketAddr) -> Result<Self> {
        let IpAddr::V4(address) = to.ip() else { bail!("floods are IPv4, not at {to}") };
        node.client.run(|| -> Result<Self> {
            let ethernet = ethernet()?;
            let ifindex = nix::net::if_::if_nametoindex("c0")?;
            let socket = packet_socket(ifindex).context("open a packet socket (needs CAP_NET_RAW)")?;
            let random = 0x9e37_79b9_7f4a_7c15 ^ u64::from(to.port());
            Ok(Self { socket, ethernet, to: (address, to.port()), random, last: vec![] })
        })
    }

    /// Sends one packet from a source of its own, and returns when the node's side has seen it.
    ///
    /// # Errors
    /// The device is gone.
    pub fn send(&mut self, what: What<'_>) -> Result<()> {
        self.last = self.frame(what);
        self.repeat()
    }

    /// Sends the last packet again.
    ///
    /// # Errors
    /// The device is gone.
    pub fn repeat(&self) -> Result<()> {
        let frame = &self.last;
        // SAFETY: the frame lives through the call, and its length is its own.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 {
            let error = io::Error::last_os_error();
            // A full queue of the device: this one is lost, as on a real wire.
            if error.raw_os_error() != Some(libc::ENOBUFS) {
                return Err(error).context("send a frame");
            }
        }
        Ok(())
    }

    /// xorshift64* (Vigna, 2016): the same flood in every run.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn frame(&mut self, what: What<'_>) -> Vec<u8> {
        let draw = self.draw();
        let source = (SOURCES | (draw >> 40) as u32 & ((1 << SOURCE_BITS) - 1)).to_be_bytes();
        let port = 1024 + (draw as u16 % 60_000);
        let (protocol, payload) = match what {
            What::Syn => (6, &[][..]),
            What::Data(payload) => (6, payload),
            What::Datagram(payload) => (17, payload),
        };
        let mut transport = vec![];
        transport.extend(port.to_be_bytes());
        transport.extend(self.to.1.to_be_bytes());
        let checksum_at = if protocol == 6 {
            transport.extend(((draw >> 16) as u32).to_be_bytes());
            let data = matches!(what, What::Data(_));
            transport.extend(u32::from(data).to_be_bytes());
            // SYN, or PSH and ACK (RFC 9293, 3.1); a window of 64240 as Linux sends.
            transport.extend([5 << 4, if data { 0x18 } else { 0x02 }, 0xfa, 0xf0, 0, 0, 0, 0]);
            16
        } else {
            transport.extend((8 + payload.len() as u16).to_be_bytes());
            transport.extend([0, 0]);
            6
        };
        transport.extend(payload);
        let to = self.to.0.octets();
        let length = transport.len() as u16;
        let sum = checksum(&[&source, &to, &[0, protocol], &length.to_be_bytes(), &transport]);
        transport[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());

        let mut ip = [0u8; IPV4];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&(IPV4 as u16 + length).to_be_bytes());
        // Don't fragment.
        ip[6] = 0x40;
        (ip[8], ip[9]) = (64, protocol);
        ip[12..16].copy_from_slice(&source);
        ip[16..].copy_from_slice(&to);
        let sum = checksum(&[&ip]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        [&self.ethernet[..], &ip, &transport].concat()
    }
}

/// The header of frames from the client to the node. The kernel is asked who the node is by an ordinary datagram.
fn ethernet() -> Result<[u8; ETHERNET]> {
    let mac = |text: &str| -> Option<Vec<u8>> {
        text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
    };
    let asked = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
    let node = loop {
        asked.send_to(b"?", (NODE[0], 9))?;
        // proc_pid_net(5): IP address, type, flags (2: complete), hardware address, …
        let table = std::fs::read_to_string("/proc/thread-self/net/arp")?;
        let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let known = lines
            .filter(|words| words.first() == Some(&&*NODE[0].to_string()))
            .find_map(|words| if words.get(2) == Some(&"0x2") { mac(words.get(3)?) } else { None });
        if let Some(known) = known {
            break known;
        }
        anyhow::ensure!(std::time::Instant::now() < until, "the node has no hardware address:\n{table}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    // Any source will do: the node asks for the client's when it answers.
    let mut header = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    header[..6].copy_from_slice(&node);
    Ok(header)
}

/// A packet socket that sends on one device of the caller's namespace and receives nothing.
fn packet_socket(ifindex: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the descriptor is ours alone.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: an all-zero sockaddr_ll is valid, and it outlives the call that reads it.
    let bound = unsafe {
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = ifindex as i32;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len)
    };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// The internet checksum over parts of even length, but for the last (RFC 1071).
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
