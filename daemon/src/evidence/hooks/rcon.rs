//! A client for Source RCON in the dialect that Minecraft speaks too.
//!
//! A packet is i32 length of what follows, i32 id, i32 type, text, two zero bytes, all little-endian
//! (developer.valvesoftware.com, Source RCON Protocol). Minecraft's server takes a read of its socket for one
//! packet and hangs up where two came at once (minecraft.wiki, RCON): so never more than one is under way.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::Rcon;
use crate::evidence::shown;

const ANSWER: i32 = 0;
const COMMAND: i32 = 2;
/// In the other direction the same number is [`COMMAND`]'s.
const LOGGED_IN: i32 = 2;
const LOGIN: i32 = 3;
/// The id of a refused login's answer.
const REFUSED: i32 = -1;

const LOGIN_ID: i32 = 1;
const COMMAND_ID: i32 = 2;
const END_ID: i32 = 3;

/// Id, type and the two zero bytes.
const FRAME: usize = 10;
/// Minecraft reads 1460 bytes at most; the length's own four count.
const MOST_TEXT: usize = 1460 - 4 - FRAME;
/// Minecraft cuts answers after 4096 UTF-16 units (at most 3 bytes each), Source after 4096 bytes with its frame.
const MOST_BODY: usize = 3 * 4096;
/// A body shorter than this is an answer's last.
const CUT: usize = 4096 - FRAME - 4 - 96;
/// Of one conversation, bytes.
const MOST_ANSWER: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum RconError {
    #[error("cannot read the RCON password from {path}: {source}")]
    PasswordFile { path: PathBuf, source: io::Error },
    #[error("no usable RCON password in {path}: expected 1 to {MOST_TEXT} bytes of text without zero bytes")]
    Password { path: PathBuf },
    #[error("the RCON command must have 1 to {MOST_TEXT} bytes and no zero byte")]
    Command,
    #[error("no RCON at {address}: {source}; is it switched on in the server's settings?")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("the RCON conversation with {address} broke off: {source}")]
    Broken { address: SocketAddr, source: io::Error },
    #[error("RCON at {address} refused the password in {path}")]
    WrongPassword { address: SocketAddr, path: PathBuf },
    #[error("{address} doesn't speak RCON: {what}")]
    Protocol { address: SocketAddr, what: &'static str },
    #[error("RCON answered {answer:?}, where {expect:?} was expected")]
    Unexpected { answer: String, expect: String },
}

/// Logs in, gives the command, and looks for the expected text in the whole answer. The caller bounds the time.
pub async fn run(rcon: &Rcon) -> Result<(), RconError> {
    let &Rcon { address, .. } = rcon;
    if !is_text(&rcon.command) {
        return Err(RconError::Command);
    }
    let password = password(rcon).await?;
    let stream =
        TcpStream::connect(address).await.map_err(|source| RconError::Connect { address, source })?;
    let mut conversation = Conversation { stream, received: 0 };
    let answer = conversation.hold(&password, &rcon.command).await.map_err(|end| match end {
        End::Io(source) => RconError::Broken { address, source },
        End::Refused => RconError::WrongPassword { address, path: rcon.password_file.clone() },
        End::Protocol(what) => RconError::Protocol { address, what },
    })?;
    match &rcon.expect {
        Some(expect) if !answer.contains(expect.as_str()) => {
            Err(RconError::Unexpected { answer: shown(&answer), expect: expect.clone() })
        }
        _ => Ok(()),
    }
}

/// The file's text without the line's end.
async fn password(rcon: &Rcon) -> Result<String, RconError> {
    let path = || rcon.password_file.clone();
    let read = async {
        let file = tokio::fs::File::open(&rcon.password_file).await?;
        let mut text = Vec::new();
        file.take(MOST_TEXT as u64 + 3).read_to_end(&mut text).await?;
        Ok(text)
    };
    let bytes = read.await.map_err(|source| RconError::PasswordFile { path: path(), source })?;
    let text = String::from_utf8(bytes).map_err(|_| RconError::Password { path: path() })?;
    let text = text.trim_end_matches(['\r', '\n']);
    if is_text(text) { Ok(text.to_owned()) } else { Err(RconError::Password { path: path() }) }
}

fn is_text(text: &str) -> bool {
    (1..=MOST_TEXT).contains(&text.len()) && !text.contains('\0')
}

/// How a conversation ends early.
#[derive(Debug)]
enum End {
    Io(io::Error),
    Refused,
    Protocol(&'static str),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Packet {
    id: i32,
    kind: i32,
    body: Vec<u8>,
}

struct Conversation<S> {
    stream: S,
    received: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    /// The answer to one command; what isn't UTF-8 in it is replaced.
    async fn hold(&mut self, password: &str, command: &str) -> Result<String, End> {
        self.send(LOGIN_ID, LOGIN, password).await?;
        loop {
            // Source sends an empty answer before the login's own.
            match self.receive().await? {
                Packet { id: REFUSED, kind: LOGGED_IN, .. } => return Err(End::Refused),
                Packet { id: LOGIN_ID, kind: LOGGED_IN, .. } => break,
                Packet { id: LOGIN_ID, kind: ANSWER, .. } => {}
                _ => return Err(End::Protocol("its answer to the login is none")),
            }
        }
        self.send(COMMAND_ID, COMMAND, command).await?;
        let mut answer = Vec::new();
        let mut asked_for_end = false;
        loop {
            match self.receive().await? {
                Packet { id: COMMAND_ID, kind: ANSWER, body } => {
                    answer.extend_from_slice(&body);
                    if !asked_for_end {
                        if body.len() < CUT {
                            break;
                        }
                        // Only the answer to another packet shows that this one's is over. Its type is none
                        // that does anything: Source mirrors it, Minecraft calls it unknown.
                        self.send(END_ID, ANSWER, "").await?;
                        asked_for_end = true;
                    }
                }
                Packet { id: END_ID, .. } if asked_for_end => break,
                _ => return Err(End::Protocol("its answer is to another question")),
            }
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    async fn send(&mut self, id: i32, kind: i32, text: &str) -> io::Result<()> {
        let mut packet = Vec::with_capacity(4 + FRAME + text.len());
        for number in [(FRAME + text.len()) as i32, id, kind] {
            packet.extend_from_slice(&number.to_le_bytes());
        }
        packet.extend_from_slice(text.as_bytes());
        packet.extend_from_slice(&[0, 0]);
        // In one piece: see above.
        self.stream.write_all(&packet).await
    }

    async fn receive(&mut self) -> Result<Packet, End> {
        let len = usize::try_from(self.stream.read_i32_le().await?).unwrap_or(0);
        if !(FRAME..=FRAME + MOST_BODY).contains(&len) {
            return Err(End::Protocol("a packet's length is out of bounds"));
        }
        self.received += len;
        if self.received > MOST_ANSWER {
            return Err(End::Protocol("its answer has no end"));
        }
        let (id, kind) = (self.stream.read_i32_le().await?, self.stream.read_i32_le().await?);
        let mut body = vec![0; len - 8];
        self.stream.read_exact(&mut body).await?;
        if body.split_off(len - FRAME) != [0, 0] {
            return Err(End::Protocol("a packet doesn't end with two zero bytes"));
        }
        Ok(Packet { id, kind, body })
    }
}

/// A conversation in which the server says these bytes.
#[cfg(fuzzing)]
pub fn fuzz(said: &[u8]) {
    use std::task::{Context, Waker};
    let stream = tokio::io::join(said, tokio::io::sink());
    let mut conversation = Conversation { stream, received: 0 };
    let held = std::pin::pin!(conversation.hold("password", "save-all"));
    assert!(held.poll(&mut Context::from_waker(Waker::noop())).is_ready(), "all bytes are there");
}

#[cfg(test)]
mod tests;
