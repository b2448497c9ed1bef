//! Luanti (Minetest 5.6, protocol 41): the server list's ping, and a real join.
//!
//! Protocol: `src/network/mtp/impl.h` (packet types) and `src/network/networkprotocol.h` (commands) of Luanti.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{Answer, Join, udp_to};

const PROTOCOL_ID: [u8; 4] = [0x4f, 0x45, 0x74, 0x03];
const HEADER: usize = 7;
/// When the client introduces itself, and how long until it does so again. Luanti's own waits as long after its first
/// packet (`m_connection_reinit_timer` in `src/client/client.h`): a server that has not made a step since knows nobody
/// to be introduced to, and drops it.
const INIT_AFTER: Duration = Duration::from_millis(100);
/// First sequence number of every channel.
const FIRST_SEQNUM: u16 = 65500;

/// Packet types.
const CONTROL: u8 = 0;
const ORIGINAL: u8 = 1;
const SPLIT: u8 = 2;
const RELIABLE: u8 = 3;
/// Control types.
const ACK: u8 = 0;
const SET_PEER_ID: u8 = 1;
const DISCO: u8 = 3;

/// Commands to the server.
const TOSERVER_INIT: u16 = 0x02;
const TOSERVER_INIT2: u16 = 0x11;
const TOSERVER_CLIENT_READY: u16 = 0x43;
const TOSERVER_FIRST_SRP: u16 = 0x50;
/// Commands to the client.
const TOCLIENT_HELLO: u16 = 0x02;
const TOCLIENT_AUTH_ACCEPT: u16 = 0x03;
const TOCLIENT_ACCESS_DENIED: u16 = 0x0a;
const TOCLIENT_ANNOUNCE_MEDIA: u16 = 0x3c;
/// What only a player in the world is sent: block data, inventory, hp, position.
const IN_THE_WORLD: [u16; 4] = [0x20, 0x27, 0x33, 0x34];

/// What the server list sends: a reliable packet from nobody; the answer assigns a peer id, which is given back.
pub fn ping(to: SocketAddr, timeout: Duration) -> Result<Answer> {
    let socket = udp_to(to, timeout)?;
    let start = Instant::now();
    socket.send(&[&PROTOCOL_ID[..], &[0, 0, 0, ORIGINAL]].concat())?;
    let mut reply = vec![0; 1500];
    let len = socket.recv(&mut reply).with_context(|| format!("no answer to a ping from {to}"))?;
    let first_reply = start.elapsed();
    reply.truncate(len);
    ensure!(len >= 14 && reply.starts_with(&PROTOCOL_ID), "{to} answered a ping with something else");
    socket.send(&[&PROTOCOL_ID[..], &reply[12..14], &[0, CONTROL, DISCO]].concat())?;
    Ok(Answer {
        local: socket.local_addr()?,
        connected: Duration::ZERO,
        first_reply,
        retransmissions: 0,
        reply,
    })
}

/// Registers `name` (a new player: letters and digits, at most 19) and enters the world; leaves at once.
pub fn join(to: SocketAddr, name: &str, timeout: Duration) -> Result<Join> {
    let mut session = Session::new(udp_to(to, Duration::from_millis(30))?, name);
    let result = session.run(timeout).with_context(|| format!("join {to} as {name}"));
    // Best effort: the server drops a silent peer by itself after 30 s.
    let _ = session.send(0, &[CONTROL, DISCO]);
    result
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Connecting,
    Hello,
    Auth,
    Definitions,
    Ready,
    Joined,
}

struct Session<'a> {
    socket: UdpSocket,
    name: &'a str,
    peer: u16,
    stage: Stage,
    next_seqnum: [u16; 3],
    /// Reliable packets that the server hasn't acknowledged: when last sent, and the packet.
    unacked: HashMap<(u8, u16), (Instant, Vec<u8>)>,
    splits: HashMap<(u8, u16), HashMap<u16, Vec<u8>>>,
}

impl<'a> Session<'a> {
    fn new(socket: UdpSocket, name: &'a str) -> Self {
        Self {
            socket,
            name,
            peer: 0,
            stage: Stage::Connecting,
            next_seqnum: [FIRST_SEQNUM; 3],
            unacked: HashMap::new(),
            splits: HashMap::new(),
        }
    }

    fn run(&mut self, timeout: Duration) -> Result<Join> {
        let start = Instant::now();
        let mut first_reply = None;
        let mut last_init = start;
        let mut datagram = vec![0; 65536];
        self.send_reliable(0, &[ORIGINAL])?;
        while self.stage != Stage::Joined {
            if start.elapsed() > timeout {
                bail!("not in the world after {timeout:?}, got as far as {:?}", self.stage);
            }
            if self.stage == Stage::Hello && last_init.elapsed() >= INIT_AFTER {
                last_init = Instant::now();
                self.send_init()?;
            }
            self.resend()?;
            match self.socket.recv(&mut datagram) {
                Ok(len) if len > HEADER && datagram.starts_with(&PROTOCOL_ID) => {
                    first_reply.get_or_insert_with(|| start.elapsed());
                    let packet = datagram[..len].to_vec();
                    self.packet(packet[6], &packet[HEADER..])?;
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error).context("receive"),
            }
        }
        Ok(Join { first_reply: first_reply.unwrap_or_default(), joined: start.elapsed() })
    }

    fn packet(&mut self, channel: u8, packet: &[u8]) -> Result<()> {
        match packet {
            [CONTROL, ACK, high, low, ..] => {
                self.unacked.remove(&(channel, u16::from_be_bytes([*high, *low])));
            }
            [CONTROL, SET_PEER_ID, high, low, ..] => {
                self.peer = u16::from_be_bytes([*high, *low]);
                if self.stage == Stage::Connecting {
                    self.stage = Stage::Hello;
                }
            }
            [CONTROL, DISCO, ..] => bail!("the server hung up"),
            [ORIGINAL, command @ ..] => self.command(command)?,
            [SPLIT, q1, q0, n1, n0, i1, i0, part @ ..] => {
                let seqnum = u16::from_be_bytes([*q1, *q0]);
                let count = u16::from_be_bytes([*n1, *n0]);
                let parts = self.splits.entry((channel, seqnum)).or_default();
                parts.insert(u16::from_be_bytes([*i1, *i0]), part.to_vec());
                if parts.len() == usize::from(count) {
                    let whole: Vec<u8> = (0..count).flat_map(|index| parts[&index].clone()).collect();
                    self.splits.remove(&(channel, seqnum));
                    self.command(&whole)?;
                }
            }
            [RELIABLE, high, low, inner @ ..] => {
                self.send(channel, &[CONTROL, ACK, *high, *low])?;
                self.packet(channel, inner)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn command(&mut self, command: &[u8]) -> Result<()> {
        let [high, low, body @ ..] = command else { return Ok(()) };
        match (u16::from_be_bytes([*high, *low]), self.stage) {
            (TOCLIENT_HELLO, Stage::Hello) => {
                self.stage = Stage::Auth;
                // The server only stores the verifier of a new player: any salt and verifier will do.
                let registration = [string(&[7; 16]), string(&[9; 256]), vec![0]].concat();
                self.send_command(TOSERVER_FIRST_SRP, &registration)
            }
            (TOCLIENT_AUTH_ACCEPT, Stage::Auth) => {
                self.stage = Stage::Definitions;
                self.send_command(TOSERVER_INIT2, &string(b""))
            }
            (TOCLIENT_ACCESS_DENIED, _) => bail!("access denied, reason {:?}", body.first()),
            (TOCLIENT_ANNOUNCE_MEDIA, Stage::Definitions) => {
                self.stage = Stage::Ready;
                // Version 5.6.1, reserved 0, its full name, formspec version 6: we have all media.
                let ready = [vec![5, 6, 1, 0], string(b"dormouse-test"), vec![0, 6]].concat();
                self.send_command(TOSERVER_CLIENT_READY, &ready)
            }
            (command, Stage::Ready) if IN_THE_WORLD.contains(&command) => {
                self.stage = Stage::Joined;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Unreliable by protocol: repeated until the server says hello.
    fn send_init(&self) -> Result<()> {
        // Serialization 28, no compression, protocol 37 to 41.
        let mut init = vec![ORIGINAL];
        init.extend(TOSERVER_INIT.to_be_bytes());
        init.extend([28, 0, 0, 0, 37, 0, 41]);
        init.extend(string(self.name.as_bytes()));
        self.send(1, &init)
    }

    fn send_command(&mut self, command: u16, body: &[u8]) -> Result<()> {
        self.send_reliable(1, &[&[ORIGINAL], &command.to_be_bytes()[..], body].concat())
    }

    fn send_reliable(&mut self, channel: u8, inner: &[u8]) -> Result<()> {
        let next = &mut self.next_seqnum[usize::from(channel)];
        let seqnum = *next;
        *next = next.wrapping_add(1);
        let packet = [&[RELIABLE], &seqnum.to_be_bytes()[..], inner].concat();
        self.send(channel, &packet)?;
        self.unacked.insert((channel, seqnum), (Instant::now(), packet));
        Ok(())
    }

    fn resend(&mut self) -> Result<()> {
        let now = Instant::now();
        let late = self.unacked.iter().filter(|(_, (sent, _))| now - *sent > Duration::from_millis(500));
        let late: Vec<_> = late.map(|(key, (_, packet))| (*key, packet.clone())).collect();
        for (key, packet) in late {
            self.send(key.0, &packet)?;
            self.unacked.insert(key, (now, packet));
        }
        Ok(())
    }

    fn send(&self, channel: u8, packet: &[u8]) -> Result<()> {
        let datagram = [&PROTOCOL_ID[..], &self.peer.to_be_bytes(), &[channel], packet].concat();
        self.socket.send(&datagram).context("send")?;
        Ok(())
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = (bytes.len() as u16).to_be_bytes().to_vec();
    out.extend(bytes);
    out
}
