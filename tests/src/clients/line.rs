//! One line there, one line back: the heap server's protocol.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Answer, retransmissions, tcp_to};

pub fn ask(to: SocketAddr, line: &str, timeout: Duration) -> Result<Answer> {
    let start = Instant::now();
    let mut stream = tcp_to(to, timeout)?;
    let connected = start.elapsed();
    let sent = Instant::now();
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut reply = String::new();
    BufReader::new(&stream).read_line(&mut reply).with_context(|| format!("no answer from {to}"))?;
    let first_reply = sent.elapsed();
    ensure!(!reply.is_empty(), "{to} closed without an answer");
    let (local, retransmissions) = (stream.local_addr()?, retransmissions(&stream)?);
    Ok(Answer { local, connected, first_reply, retransmissions, reply: reply.trim_end().into() })
}
