//! DDNet and Teeworlds 0.6: the server list's info query. A whole join is [`super::node::ddnet_join`].

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Answer, udp_to};

/// Connectionless packets start with six bytes FF (0.6 `network.h`, NET_PACKETFLAG_CONNLESS), then the
/// browser's own header: FF FF FF FF and four letters.
const INFO_QUERY: [u8; 15] = *b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffgie3\x2a";
const INFO_REPLY: [u8; 14] = *b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffinf3";

pub fn info(to: SocketAddr, timeout: Duration) -> Result<Answer> {
    let socket = udp_to(to, timeout)?;
    let start = Instant::now();
    socket.send(&INFO_QUERY)?;
    let mut reply = vec![0; 2048];
    let len = socket.recv(&mut reply).with_context(|| format!("no info from {to}"))?;
    let first_reply = start.elapsed();
    reply.truncate(len);
    ensure!(reply.starts_with(&INFO_REPLY), "{to} answered an info query with something else");
    reply.drain(..INFO_REPLY.len());
    Ok(Answer {
        local: socket.local_addr()?,
        connected: Duration::ZERO,
        first_reply,
        retransmissions: 0,
        reply,
    })
}
