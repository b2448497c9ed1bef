//! The smallest server: TCP and UDP on one port, both families, one thread and a poll loop.
//!
//! It answers each message with `ADDRESS PORT\n` and the message itself, the client's own as seen here. Asked
//! `check`, it looks at all the memory it holds and adds ` wrong=PAGES`.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use clap::Parser;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

#[derive(Parser)]
struct Args {
    #[arg(long)]
    port: u16,
    /// TCP: send this line as soon as a client is accepted (a protocol in which the server speaks first).
    #[arg(long)]
    greeting: Option<String>,
    /// Ends by itself on SIGTERM, as games do that save their world first; else the kernel ends it.
    #[arg(long)]
    saves: bool,
    /// Holds so many MiB of memory, no two neighbouring pages alike.
    #[arg(long, default_value_t = 0)]
    mib: usize,
}

const PAGE: usize = 4096;

fn main() -> Result<()> {
    let args = Args::parse();
    // `::` takes IPv4 clients too while net.ipv6.bindv6only is 0, its default.
    let address = SocketAddr::from(([0u16; 8], args.port));
    let tcp = listen(address).with_context(|| format!("listen on TCP {address}"))?;
    let udp = UdpSocket::bind(address).with_context(|| format!("listen on UDP {address}"))?;
    tcp.set_nonblocking(true)?;
    udp.set_nonblocking(true)?;
    let mut terminate = SigSet::empty();
    if args.saves {
        terminate.add(Signal::SIGTERM);
        terminate.thread_block()?;
    }
    let terminate = SignalFd::with_flags(&terminate, SfdFlags::SFD_NONBLOCK)?;
    let held: Vec<[u8; PAGE]> = (0..args.mib << 20 >> PAGE.trailing_zeros()).map(page).collect();
    let mut clients: Vec<Client> = Vec::new();
    let mut message = vec![0; 65536];
    loop {
        let mut waits = [tcp.as_fd(), udp.as_fd(), terminate.as_fd()]
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .to_vec();
        waits.extend(clients.iter().map(|client| PollFd::new(client.stream.as_fd(), client.waits_for())));
        poll(&mut waits, PollTimeout::NONE).context("poll")?;
        if waits[2].any() == Some(true) {
            return Ok(());
        }

        while let Ok((mut client, from)) = tcp.accept() {
            let greeted = args
                .greeting
                .as_ref()
                .is_none_or(|line| client.write_all(format!("{line}\n").as_bytes()).is_ok());
            if greeted && client.set_nonblocking(true).is_ok() && client.set_nodelay(true).is_ok() {
                clients.push(Client { stream: client, from, unsent: Vec::new() });
            }
        }
        while let Ok((len, from)) = udp.recv_from(&mut message) {
            // A client that is gone is no concern of the server.
            let _ = udp.send_to(&reply(from, &message[..len], &held), from);
        }
        clients.retain_mut(|client| client.serve(&mut message, &held).is_ok());
    }
}

/// As std's own, but the port is shared with sockets that a test calls from.
fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    nix::sys::socket::listen(&socket, Backlog::new(128)?)?;
    Ok(socket.into())
}

struct Client {
    stream: TcpStream,
    from: SocketAddr,
    /// What the client has not taken yet.
    unsent: Vec<u8>,
}

impl Client {
    /// Nobody is listened to who doesn't take his answers.
    fn waits_for(&self) -> PollFlags {
        if self.unsent.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT }
    }

    fn serve(&mut self, message: &mut [u8], held: &[[u8; PAGE]]) -> std::io::Result<()> {
        if self.unsent.is_empty() {
            match self.stream.read(message) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.unsent = reply(self.from, &message[..len], held),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        match self.stream.write(&self.unsent) {
            Ok(len) => drop(self.unsent.drain(..len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// What stands in a page: never zero, which the kernel could throw away without writing it.
fn page(number: usize) -> [u8; PAGE] {
    [(number % 251) as u8 + 1; PAGE]
}

fn reply(from: SocketAddr, message: &[u8], held: &[[u8; PAGE]]) -> Vec<u8> {
    let mut reply = format!("{} {}\n", from.ip().to_canonical(), from.port()).into_bytes();
    reply.extend_from_slice(message);
    if message == b"check" {
        let wrong = held.iter().enumerate().filter(|(number, held)| **held != page(*number)).count();
        reply.extend_from_slice(format!(" wrong={wrong}").as_bytes());
    }
    reply
}
