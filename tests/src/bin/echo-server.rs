//! The smallest server: TCP and UDP on one port, both families, one thread and a poll loop.
//!
//! It answers each message with `ADDRESS PORT\n` and the message itself, the client's own as seen here. Asked
//! `check`, it looks at all the memory it holds and adds ` wrong=PAGES`.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use clap::Parser;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

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
    let tcp = TcpListener::bind(address).with_context(|| format!("listen on TCP {address}"))?;
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
    let mut clients: Vec<(TcpStream, SocketAddr)> = Vec::new();
    let mut message = vec![0; 65536];
    loop {
        let mut waits = [tcp.as_fd(), udp.as_fd(), terminate.as_fd()]
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .to_vec();
        waits.extend(clients.iter().map(|(client, _)| PollFd::new(client.as_fd(), PollFlags::POLLIN)));
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
                clients.push((client, from));
            }
        }
        while let Ok((len, from)) = udp.recv_from(&mut message) {
            // A client that is gone is no concern of the server.
            let _ = udp.send_to(&reply(from, &message[..len], &held), from);
        }
        clients.retain_mut(|(client, from)| match client.read(&mut message) {
            Ok(0) => false,
            Ok(len) => client.write_all(&reply(*from, &message[..len], &held)).is_ok(),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
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
