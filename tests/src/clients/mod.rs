//! Real clients and hostile ones. Each runs where it is called: wrap it in [`Netns::run`](crate::netns::Netns::run)
//! or [`Place::run`](crate::process::Place::run). An error is the outcome "no answer" with its reason.

pub mod ddnet;
pub mod echo;
pub mod flood;
pub mod line;
pub mod luanti;
pub mod minecraft;
pub mod node;
pub mod scan;

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result};

/// What a client got, and when, counted from its first packet.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The client's own address and port as it sees them.
    pub local: SocketAddr,
    /// TCP: until the handshake was done. UDP: zero.
    pub connected: Duration,
    /// TCP: from the first payload to the first payload back, the handshake left out. UDP: from the first datagram.
    pub first_reply: Duration,
    /// TCP segments that the client's kernel sent again.
    pub retransmissions: u32,
    /// The reply, without framing.
    pub reply: Vec<u8>,
}

/// A player who got in. Counted from the first packet; for the players from npm from where the loaded client starts to
/// connect, which adds its own start (some 80 ms): compare them with each other only.
#[derive(Clone, Copy, Debug)]
pub struct Join {
    /// Until the server's first answer.
    pub first_reply: Duration,
    /// Until the game can be played.
    pub joined: Duration,
}

/// A UDP socket connected to `to`: an ICMP error or another sender's datagram is then told apart.
fn udp_to(to: SocketAddr, timeout: Duration) -> Result<UdpSocket> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).context("bind a UDP socket")?;
    socket.connect(to).with_context(|| format!("connect UDP to {to}"))?;
    socket.set_read_timeout(Some(timeout))?;
    Ok(socket)
}

fn tcp_to(to: SocketAddr, timeout: Duration) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, timeout).with_context(|| format!("connect to {to}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    Ok(stream)
}

/// `tcpi_total_retrans` of TCP_INFO (tcp(7)).
pub fn retransmissions(stream: &TcpStream) -> io::Result<u32> {
    Ok(tcp_info(stream)?.tcpi_total_retrans)
}

fn tcp_info(stream: &TcpStream) -> io::Result<libc::tcp_info> {
    let mut info = mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    let fd = stream.as_raw_fd();
    // SAFETY: `info` is writable for `len` bytes and both outlive the call; the kernel writes at most `len`.
    let rc = unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut len)
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed above, and every bit pattern is a valid tcp_info: it holds integers only.
    Ok(unsafe { info.assume_init() })
}
