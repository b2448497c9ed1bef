//! Scanners: what reaches every public port and must wake nobody.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use super::{tcp_to, udp_to};
use crate::chance::Chance;

const HTTP: &[u8] = b"GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: zgrab/0.x\r\n\r\n";
/// A TLS 1.2 record with a ClientHello (RFC 8446, 4.1.2) of no cipher suite that anybody has.
const TLS: &[u8] = b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03\
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\x00\x00\x02\x13\x01\x01\x00\x00\x00";

/// What a service prober sends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Http,
    Tls,
    /// 64 bytes of noise made from the seed.
    Random(u64),
}

impl Probe {
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Probe::Http => HTTP.to_vec(),
            Probe::Tls => TLS.to_vec(),
            Probe::Random(seed) => noise(seed),
        }
    }
}

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Answered,
    Closed,
    Silent,
}

/// A full connect and a close without a word (nmap -sT).
pub fn connect(to: SocketAddr, timeout: Duration) -> Result<()> {
    tcp_to(to, timeout).map(drop)
}

/// Connects, says something that is no game, and waits for what comes back.
pub fn tcp_probe(to: SocketAddr, probe: Probe, timeout: Duration) -> Result<Fate> {
    let mut stream: TcpStream = tcp_to(to, timeout)?;
    stream.write_all(&probe.bytes())?;
    match stream.read(&mut [0; 512]) {
        Ok(0) => Ok(Fate::Closed),
        Ok(_) => Ok(Fate::Answered),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Fate::Closed),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(Fate::Silent),
        Err(error) => Err(error).with_context(|| format!("probe {to}")),
    }
}

/// One datagram that is no game, without waiting.
pub fn udp_probe(to: SocketAddr, probe: Probe) -> Result<()> {
    let socket = udp_to(to, Duration::from_secs(1))?;
    socket.send(&probe.bytes()).with_context(|| format!("probe {to}"))?;
    Ok(())
}

/// A half-open scan (nmap -sS), IPv4: a SYN from a raw socket, and what came back. The kernel, which knows of no such
/// connection, resets a SYN-ACK, as it does for a real scanner.
pub fn syn(from: Ipv4Addr, to: SocketAddr, source_port: u16, timeout: Duration) -> Result<Fate> {
    let IpAddr::V4(target) = to.ip() else { bail!("SYN scans are IPv4 only, not {to}") };
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)
        .context("open a raw socket (needs CAP_NET_RAW)")?;
    let wait = TimeVal::new(timeout.as_secs() as i64, i64::from(timeout.subsec_micros()));
    setsockopt(&raw, sockopt::ReceiveTimeout, &wait)?;
    let segment = syn_segment(from, target, source_port, to.port());
    let fd = raw.as_raw_fd();
    let address = SockaddrIn::from(SocketAddrV4::new(target, 0));
    sendto(fd, &segment, &address, MsgFlags::empty()).with_context(|| format!("send a SYN to {to}"))?;
    let end = Instant::now() + timeout;
    let mut packet = [0; 256];
    while Instant::now() < end {
        let len = match recv(fd, &mut packet, MsgFlags::empty()) {
            Ok(len) => len,
            Err(Errno::EAGAIN) => break,
            Err(error) => return Err(error).context("receive on a raw socket"),
        };
        // A raw socket gets every TCP packet of the namespace with its IPv4 header: ours is named by its ports.
        let header = usize::from(packet[0] & 0xf) * 4;
        let Some(tcp) = packet[..len].get(header..header + 14) else { continue };
        if tcp[..2] == to.port().to_be_bytes() && tcp[2..4] == source_port.to_be_bytes() {
            let reset = tcp[13] & 0x04 != 0;
            return Ok(if reset { Fate::Closed } else { Fate::Answered });
        }
    }
    Ok(Fate::Silent)
}

/// A TCP header with SYN set (RFC 9293, 3.1) and its checksum over the pseudo-header.
fn syn_segment(from: Ipv4Addr, to: Ipv4Addr, source_port: u16, port: u16) -> [u8; 20] {
    let mut tcp = [0; 20];
    tcp[..2].copy_from_slice(&source_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&port.to_be_bytes());
    tcp[4..8].copy_from_slice(&0x1234_5678u32.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = 0x02;
    tcp[14..16].copy_from_slice(&1024u16.to_be_bytes());
    let words =
        |bytes: &[u8]| bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>();
    let mut sum = words(&from.octets()) + words(&to.octets()) + 6 + 20 + words(&tcp);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    tcp[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    tcp
}

/// Noise that a failing test can repeat.
fn noise(seed: u64) -> Vec<u8> {
    Chance::new(seed).bytes(64)
}
