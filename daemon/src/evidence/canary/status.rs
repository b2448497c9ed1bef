//! The question that a server browser asks. The door calls it a query: it wakes nobody and keeps nobody awake.

use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dormouse_packet::Game;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UdpSocket};

/// The control message with which 0.7 asks for a token and gives one.
const TOKEN: u8 = 5;
/// A status with a favicon has some 30 kB.
const MOST: usize = 1 << 20;

/// Asks once and waits for the answer; the caller bounds the time. A game without such a question has answered.
pub async fn ask(game: Game, to: SocketAddr) -> Result<()> {
    match game {
        Game::MinecraftJava => minecraft(to).await,
        Game::Teeworlds => teeworlds(to).await,
        Game::GenericTcp | Game::GenericUdp | Game::Luanti => Ok(()),
    }
}

async fn minecraft(to: SocketAddr) -> Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(to).await?);
    stream.write_all(&minecraft_request(to)).await?;
    // With `enable-status=false` the server hangs up, which takes a server that lives.
    if stream.fill_buf().await?.is_empty() {
        return Ok(());
    }
    let mut len = Vec::new();
    while len.last().is_none_or(|&byte| byte >= 0x80) && len.len() < 5 {
        len.push(stream.read_u8().await?);
    }
    let len = varint(&mut &len[..]).filter(|len| (1..=MOST).contains(len)).ok_or_else(strange)?;
    // All of it: whoever hangs up on unread bytes resets the connection, and servers complain in their logs.
    let mut packet = vec![0; len];
    stream.read_exact(&mut packet).await?;
    if is_minecraft_status(&packet) { Ok(()) } else { Err(strange()) }
}

/// Handshake and status request (minecraft.wiki, Java Edition protocol, Server List Ping); -1 is the version of
/// who only asks.
fn minecraft_request(to: SocketAddr) -> Vec<u8> {
    let host = to.ip().to_string();
    let mut handshake = vec![0, 0xff, 0xff, 0xff, 0xff, 0x0f, host.len() as u8];
    handshake.extend(host.as_bytes());
    handshake.extend(to.port().to_be_bytes());
    handshake.push(1);
    let mut request = vec![handshake.len() as u8];
    request.extend(handshake);
    request.extend([1, 0]);
    request
}

/// Id 0, length of the JSON, JSON.
fn is_minecraft_status(packet: &[u8]) -> bool {
    let mut rest = packet;
    varint(&mut rest) == Some(0) && varint(&mut rest) == Some(rest.len()) && rest.starts_with(b"{")
}

fn varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// 0.6 and DDNet are asked for their info, 0.7 for a token, its first step before anything; who answers one of
/// them lives.
async fn teeworlds(to: SocketAddr) -> Result<()> {
    let any =
        if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    socket.send(SIX_INFO).await?;
    socket.send(&seven_token_request()).await?;
    let mut answer = [0; 64];
    loop {
        let len = socket.recv(&mut answer).await?;
        if is_teeworlds_answer(&answer[..len]) {
            return Ok(());
        }
    }
}

/// `NETADDR`-less header of six FF, `SERVERBROWSE_GETINFO`, a token (0.6, `mastersrv.h`).
const SIX_INFO: &[u8; 15] = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffgie3\x2a";
const SIX_ANSWER: &[u8] = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffinf3";
/// Flags of a control packet of 0.7, an ack of 0.
const SEVEN_CONTROL: u8 = 0x04;
/// `NET_TOKENREQUEST_DATASIZE` (0.7): shorter, and the request is dropped, lest the answer be longer.
const SEVEN_DATA: usize = 512;
/// Flags, ack, number of chunks, u32 token.
const SEVEN_HEADER: usize = 7;

fn seven_token_request() -> Vec<u8> {
    let mut request = vec![SEVEN_CONTROL, 0, 0, 0xff, 0xff, 0xff, 0xff, TOKEN];
    request.extend(*b"doze");
    request.resize(SEVEN_HEADER + SEVEN_DATA, 0);
    request
}

fn is_teeworlds_answer(bytes: &[u8]) -> bool {
    let token = bytes.first() == Some(&SEVEN_CONTROL) && bytes.get(SEVEN_HEADER) == Some(&TOKEN);
    bytes.starts_with(SIX_ANSWER) || token
}

fn strange() -> Error {
    Error::new(ErrorKind::InvalidData, "it answered something else")
}

#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let _ = (is_minecraft_status(bytes), is_teeworlds_answer(bytes));
}

#[cfg(test)]
mod tests {
    use dormouse_packet::window::WINDOW;
    use dormouse_packet::{Class, Window, classify};

    use super::*;

    fn class(game: Game, bytes: &[u8]) -> Class {
        let mut window = [0; WINDOW];
        let len = bytes.len().min(WINDOW);
        window[..len].copy_from_slice(&bytes[..len]);
        classify(game, &Window::new(&window, len, bytes.len()), 1)
    }

    #[test]
    fn the_door_calls_every_question_a_query() {
        for to in ["10.0.0.2:25565", "[fd00:1234:5678:9abc:def0:1234:5678:9abc]:65535"] {
            let request = minecraft_request(to.parse().unwrap());
            assert_eq!(class(Game::MinecraftJava, &request), Class::Query, "{to}");
        }
        assert_eq!(class(Game::Teeworlds, SIX_INFO), Class::Query);
        assert_eq!(class(Game::Teeworlds, &seven_token_request()), Class::Query);
    }

    #[test]
    fn answers_are_known() {
        assert!(is_minecraft_status(b"\x00\x02{}"));
        for other in
            [&b""[..], b"\x00", b"\x01\x02{}", b"\xff\xff\xff\xff\xff\xff", b"\x00\x03{}", b"\x00\x02[]"]
        {
            assert!(!is_minecraft_status(other), "{other:?}");
        }
        assert!(is_teeworlds_answer(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffinf3..."));
        assert!(is_teeworlds_answer(b"\x04\x00\x00doze\x05abcd"));
        assert!(!is_teeworlds_answer(b"\x04\x00\x00doze\x04abcd"));
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes: Vec<u8>) {
            let _ = (is_minecraft_status(&bytes), is_teeworlds_answer(&bytes));
        }
    }
}
