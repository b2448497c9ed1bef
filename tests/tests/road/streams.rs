//! Connections: with and without options, opened from both sides, ended or given up while the server sleeps, and
//! thousands at once.

use std::{
    net::{Shutdown, SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dormouse_tests::{
    netns::Netns,
    packet_socket::counter,
    stand::{PORT, SOON, Stand},
    topology::{CLIENT, Node},
};

use crate::{
    LIMITS,
    case::{POTS, Road, Sleeping, connect, converse, expect_datagram, seen_as, udp_socket},
};

/// Documentation/networking/ip-sysctl.rst, tcp_fastopen: 1 and 4 for a client without a cookie; 2, 0x200 and 0x400 for
/// every listener, without one.
const FAST_OPEN_CLIENT: &str = "5";
const FAST_OPEN_SERVER: &str = "1538";

/// Closes with a reset instead of a FIN.
fn reset(stream: TcpStream) -> Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the pointer and the size are a live local's.
    let done = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    ensure!(done == 0, "SO_LINGER: {}", std::io::Error::last_os_error());
    drop(stream);
    Ok(())
}

/// A connection that has talked before the doze.
fn old(at: &mut Sleeping<'_>) -> Result<TcpStream> {
    let name = &at.stand.pots[at.index].name;
    at.stand.daemon.wake(name)?;
    let stream = at.connect(at.v4())?;
    at.converse(&stream, 1000, CLIENT[0])?;
    at.stand.doze(at.index)?;
    Ok(stream)
}

#[test]
fn every_kind_of_connection_gets_in() {
    let node = Node::create(POTS).unwrap();
    for pod in &node.pods {
        // A listener takes the setting when it is made.
        pod.netns.sysctl("ipv4/tcp_fastopen", FAST_OPEN_SERVER).unwrap();
    }
    let mut road = Road::new(Stand::prepare_on(node, LIMITS).unwrap());
    for bits in 0..8 {
        let on = |bit: u8| if bits & bit == 0 { "0" } else { "1" };
        let (timestamps, sack, scaling) = (on(1), on(2), on(4));
        let name = format!("timestamps {timestamps}, SACK {sack}, window scaling {scaling}");
        let again = road.case(&name, |at| {
            let client = &at.stand.node.client;
            client.sysctl("ipv4/tcp_timestamps", timestamps)?;
            client.sysctl("ipv4/tcp_sack", sack)?;
            client.sysctl("ipv4/tcp_window_scaling", scaling)?;
            at.tcp(at.addresses()[bits as usize % 2], 100_000)
        });
        assert_eq!(again, 0, "{name}");
    }
    road.case("a FIN right behind the login", |at| {
        let stream = at.connect(at.v4())?;
        let sent = at.chance.letters(5000);
        // The echo server answers what it has read before it sees the end.
        let mut writer = stream.try_clone()?;
        std::io::Write::write_all(&mut writer, &sent)?;
        stream.shutdown(Shutdown::Write)?;
        converse(&stream, b"", None).or(Ok(()))
    });
    road.sleeps_on("connected, and closed without a word", |at| {
        drop(at.connect(at.v4())?);
        thread::sleep(Duration::from_millis(300));
        Ok(())
    });
    road.sleeps_on("connected, and reset without a word", |at| {
        reset(at.connect(at.v4())?)?;
        thread::sleep(Duration::from_millis(300));
        Ok(())
    });
    road.case("and then a player", |at| at.tcp(at.v4(), 1000));
    road.sleeps_on("an old connection ends by a FIN", |at| {
        drop(old(at)?);
        thread::sleep(Duration::from_millis(300));
        Ok(())
    });
    road.sleeps_on("an old connection ends by a reset", |at| {
        reset(old(at)?)?;
        thread::sleep(Duration::from_millis(300));
        Ok(())
    });
    road.case("an old connection goes on", |at| {
        let stream = old(at)?;
        at.converse(&stream, 60_000, CLIENT[0])
    });
    road.case("who gives up leaves the door to the next", |at| {
        let stream = at.connect(at.v4())?;
        std::io::Write::write_all(&mut &stream, b"NEVERMIND")?;
        // Unread answers make this close a reset; it is the client's own.
        drop(stream);
        at.tcp(at.v4(), 1000)
    });
    road.case("a login inside the SYN", fast_open);
    road.case("both sides call at once", simultaneous);
    road.finish();
}

/// TCP Fast Open (RFC 7413): all that the client ever says comes with its SYN.
fn fast_open(at: &mut Sleeping<'_>) -> Result<()> {
    let pod = &at.stand.node.pods[at.index];
    at.stand.node.client.sysctl("ipv4/tcp_fastopen", FAST_OPEN_CLIENT)?;
    let sent = at.chance.letters(700);
    let taken = fast_opens(&pod.netns)?;
    let stream = at.client(|| send_with_syn(at.v4(), &sent))?;
    let mut heard = vec![0; 4096];
    let mut len = 0;
    while len < sent.len() {
        len +=
            std::io::Read::read(&mut &stream, &mut heard[len..]).context("the answer to a SYN's payload")?;
    }
    ensure!(heard[..len].ends_with(&sent), "another answer");
    ensure!(fast_opens(&pod.netns)? > taken, "it was no Fast Open");
    Ok(())
}

/// Connections that a namespace took with payload in the SYN.
fn fast_opens(netns: &Netns) -> Result<u64> {
    counter(netns, "TcpExt", "TCPFastOpenPassive")
}

fn send_with_syn(to: SocketAddr, payload: &[u8]) -> Result<TcpStream> {
    let SocketAddr::V4(v4) = to else { anyhow::bail!("IPv4 only") };
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: v4.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: the descriptor is new and ours; address and payload outlive the call, with their own sizes.
    let (socket, sent) = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        ensure!(fd >= 0, "socket: {}", std::io::Error::last_os_error());
        let socket = OwnedFd::from_raw_fd(fd);
        let sent = libc::sendto(
            fd,
            payload.as_ptr().cast(),
            payload.len(),
            libc::MSG_FASTOPEN,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_in>() as libc::socklen_t,
        );
        (socket, sent)
    };
    ensure!(sent == payload.len() as isize, "sendto: {}", std::io::Error::last_os_error());
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SOON))?;
    Ok(stream)
}

/// A socket of the server's namespace calls the client from the server's port while the client calls it (RFC 9293
/// §3.5): a connection is found before a listener.
fn simultaneous(at: &mut Sleeping<'_>) -> Result<()> {
    const CALLED: u16 = 40_404;
    let (stand, pod) = (at.stand, &at.stand.node.pods[at.index]);
    let client = SocketAddr::new(CLIENT[0], CALLED);
    let server = SocketAddr::new(pod.v4.into(), PORT);
    // Neither side answers a call that it did not expect.
    let mute = |on: bool| {
        let rule = "-p tcp --tcp-flags RST RST -j DROP";
        let word = if on { "-A" } else { "-D" };
        for netns in [&stand.node.client, &pod.netns] {
            let arguments = format!("{word} OUTPUT {rule}");
            let out = netns
                .run(|| std::process::Command::new("iptables-legacy").args(arguments.split(' ')).output())?;
            ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        }
        anyhow::Ok(())
    };
    mute(true)?;
    let both = thread::scope(|scope| {
        let calling = scope.spawn(|| pod.netns.run(|| call(server, client)));
        stand.wait_until("the server's side has called", || {
            // State 2 is SYN_SENT (proc_net_tcp).
            let sockets = pod.netns.run(|| std::fs::read_to_string("/proc/thread-self/net/tcp"))?;
            ensure!(sockets.contains(" 02 "), "{sockets}");
            Ok(())
        })?;
        let called = scope.spawn(|| stand.node.client.run(|| call(client, server)));
        let servers = calling.join().expect("the server's side")?;
        anyhow::Ok((servers, called.join().expect("the client's side")?))
    });
    mute(false)?;
    let (servers, clients) = both?;
    let sent = at.chance.letters(2000);
    std::io::Write::write_all(&mut &clients, &sent)?;
    let mut heard = vec![0; sent.len()];
    std::io::Read::read_exact(&mut &servers, &mut heard)?;
    ensure!(heard == sent, "other bytes");
    Ok(())
}

/// Calls from a port of its own until the other side calls too.
fn call(from: SocketAddr, to: SocketAddr) -> Result<TcpStream> {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
    };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    // The echo server listens on that port, and shares it.
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).with_context(|| format!("{from} calls {to}"))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SOON))?;
    Ok(stream)
}

/// A crowd knocks on one sleeper at once; its listener holds 128 that it has not accepted, so most of the
/// connections take a second try of the client's kernel.
#[test]
fn thousands_at_once_get_in() {
    const STREAMS: usize = 1000;
    const SOCKETS: usize = 1000;
    let mut road = Road::new(Stand::prepare(2, LIMITS).unwrap());
    road.case("a thousand datagram sockets", |at| {
        let to = at.v4();
        let sockets =
            at.client(|| (0..SOCKETS).map(|_| udp_socket(to)).collect::<Result<Vec<UdpSocket>>>())?;
        for socket in &sockets {
            socket.set_nonblocking(true)?;
        }
        // As games do, each sends again until it is answered.
        let until = Instant::now() + SOON;
        let mut waiting: Vec<&UdpSocket> = sockets.iter().collect();
        while !waiting.is_empty() {
            ensure!(Instant::now() < until, "{} of {SOCKETS} got no answer", waiting.len());
            for socket in &waiting {
                let _ = socket.send(b"LETMEIN");
            }
            let again = Instant::now() + Duration::from_millis(500);
            while !waiting.is_empty() && Instant::now() < again {
                thread::sleep(Duration::from_millis(5));
                waiting.retain(|socket| expect_datagram(socket, b"LETMEIN", Some(seen_as(to))).is_err());
            }
        }
        Ok(())
    });
    let again = road.case("a thousand connections", |at| {
        let to = at.v4();
        at.client(|| {
            thread::scope(|scope| {
                let crowd: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(move || {
                            let streams: Vec<_> =
                                (0..STREAMS / 8).map(|_| connect(to)).collect::<Result<_>>()?;
                            for stream in &streams {
                                converse(stream, b"LETMEIN", Some(seen_as(to)))?;
                            }
                            anyhow::Ok(())
                        })
                    })
                    .collect();
                crowd.into_iter().try_for_each(|one| one.join().expect("a thread of the crowd"))
            })
        })
    });
    eprintln!("a crowd of {STREAMS}: {again} segments sent again");
    road.finish();
}
