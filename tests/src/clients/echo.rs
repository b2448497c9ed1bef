//! Asks the echo server, which answers with the address it saw.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Answer, retransmissions, tcp_to, udp_to};

pub fn tcp(to: SocketAddr, message: &[u8], timeout: Duration) -> Result<Answer> {
    let start = Instant::now();
    let mut stream = tcp_to(to, timeout)?;
    let connected = start.elapsed();
    let sent = Instant::now();
    stream.write_all(message)?;
    let mut reply = vec![0; 65536];
    let len = stream.read(&mut reply).with_context(|| format!("no echo from {to}"))?;
    let first_reply = sent.elapsed();
    ensure!(len > 0, "{to} closed without an echo");
    reply.truncate(len);
    let local = stream.local_addr()?;
    Ok(Answer { local, connected, first_reply, retransmissions: retransmissions(&stream)?, reply })
}

pub fn udp(to: SocketAddr, message: &[u8], timeout: Duration) -> Result<Answer> {
    let socket = udp_to(to, timeout)?;
    let start = Instant::now();
    socket.send(message)?;
    let mut reply = vec![0; 65536];
    let len = socket.recv(&mut reply).with_context(|| format!("no echo from {to}"))?;
    let first_reply = start.elapsed();
    reply.truncate(len);
    Ok(Answer {
        local: socket.local_addr()?,
        connected: Duration::ZERO,
        first_reply,
        retransmissions: 0,
        reply,
    })
}

/// The client's address as the echo server saw it.
pub fn seen_address(answer: &Answer) -> Result<SocketAddr> {
    let text = String::from_utf8_lossy(&answer.reply);
    let line = text.lines().next().unwrap_or_default();
    let (ip, port) = line.split_once(' ').with_context(|| format!("not an echo: {line:?}"))?;
    Ok(SocketAddr::new(ip.parse::<IpAddr>()?, port.parse()?))
}
