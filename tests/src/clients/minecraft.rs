//! Minecraft Java: the status ping and the first half of a login, byte by byte (minecraft.wiki, Java Edition
//! protocol: handshake, status, login). A whole join is mineflayer's ([`super::node::minecraft_join`]).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{Answer, retransmissions, tcp_to};
use crate::servers::minecraft::PROTOCOL;

/// Next state in the handshake.
const STATUS: u32 = 1;
const LOGIN: u32 = 2;
/// Packets to the client while it logs in.
const DISCONNECT: u32 = 0;
const ENCRYPTION_REQUEST: u32 = 1;
/// No packet that we ask for is larger; a status with a favicon has some 30 kB.
const MAX_PACKET: usize = 1 << 20;

/// What a server list shows: handshake and status request in one segment; the reply is the JSON.
pub fn status(to: SocketAddr, timeout: Duration) -> Result<Answer> {
    let mut hello = handshake(to, STATUS);
    hello.extend(packet(0, &[]));
    let (answer, id) = first_packet(to, &hello, timeout)?;
    ensure!(id == 0, "{to} answered a status request with packet {id:#x}");
    let mut json = &answer.reply[..];
    varint(&mut json)?;
    ensure!(json.starts_with(b"{"), "{to} answered a status request without JSON");
    let reply = json.to_vec();
    Ok(Answer { reply, ..answer })
}

/// Handshake and login start in one segment, as Mojang's client sends them; the server's first packet counts
/// (success, or the start of compression).
pub fn login(to: SocketAddr, name: &str, timeout: Duration) -> Result<Answer> {
    let mut hello = handshake(to, LOGIN);
    hello.extend(packet(0, &string(name)));
    let (answer, id) = first_packet(to, &hello, timeout)?;
    match id {
        DISCONNECT => bail!("{to} refused the login: {}", String::from_utf8_lossy(&answer.reply)),
        ENCRYPTION_REQUEST => bail!("{to} is in online mode and asks for encryption"),
        _ => Ok(answer),
    }
}

/// The ping of clients before 1.7 (FE 01, Server List Ping); the reply is the kick packet.
pub fn legacy_ping(to: SocketAddr, timeout: Duration) -> Result<Answer> {
    let (answer, ()) = exchange(to, &[0xfe, 0x01], timeout, |stream| {
        let mut reply = vec![0; 512];
        let len = stream.read(&mut reply)?;
        ensure!(len > 0 && reply[0] == 0xff, "{to} didn't answer a legacy ping");
        reply.truncate(len);
        Ok((reply, ()))
    })?;
    Ok(answer)
}

fn first_packet(to: SocketAddr, hello: &[u8], timeout: Duration) -> Result<(Answer, u32)> {
    exchange(to, hello, timeout, |stream| {
        let len = varint(stream)? as usize;
        ensure!((1..=MAX_PACKET).contains(&len), "{to} sent a packet of {len} bytes");
        let mut body = vec![0; len];
        stream.read_exact(&mut body)?;
        let mut rest = &body[..];
        let id = varint(&mut rest)?;
        Ok((rest.to_vec(), id))
    })
}

fn exchange<T>(
    to: SocketAddr,
    hello: &[u8],
    timeout: Duration,
    read: impl FnOnce(&mut TcpStream) -> Result<(Vec<u8>, T)>,
) -> Result<(Answer, T)> {
    let start = Instant::now();
    let mut stream = tcp_to(to, timeout)?;
    let connected = start.elapsed();
    let sent = Instant::now();
    stream.write_all(hello)?;
    let (reply, more) = read(&mut stream).with_context(|| format!("no answer from {to}"))?;
    let first_reply = sent.elapsed();
    let (local, retransmissions) = (stream.local_addr()?, retransmissions(&stream)?);
    Ok((Answer { local, connected, first_reply, retransmissions, reply }, more))
}

fn handshake(to: SocketAddr, next: u32) -> Vec<u8> {
    let mut body = Vec::new();
    push_varint(&mut body, PROTOCOL);
    body.extend(string(&to.ip().to_string()));
    body.extend(to.port().to_be_bytes());
    push_varint(&mut body, next);
    packet(0, &body)
}

fn packet(id: u32, body: &[u8]) -> Vec<u8> {
    let mut inner = Vec::new();
    push_varint(&mut inner, id);
    inner.extend(body);
    let mut framed = Vec::new();
    push_varint(&mut framed, inner.len() as u32);
    framed.extend(inner);
    framed
}

fn string(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push_varint(&mut out, text.len() as u32);
    out.extend(text.as_bytes());
    out
}

fn push_varint(out: &mut Vec<u8>, mut value: u32) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// At most five bytes, seven bits each, lowest first.
fn varint(from: &mut impl Read) -> Result<u32> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        value |= u32::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            return Ok(value);
        }
    }
    bail!("a VarInt of more than five bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_go_there_and_back() {
        for value in [0, 1, 127, 128, 255, 25565, 2_097_151, u32::MAX] {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, value);
            assert_eq!(varint(&mut &bytes[..]).unwrap(), value);
        }
        assert!(varint(&mut &[0xff; 6][..]).is_err());
    }
}
