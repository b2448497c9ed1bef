use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::discover::netlink::NetlinkError;
use crate::discover::sockets::{Listener, UdpSocket as SeenUdp};
use crate::evidence::testing::{Process, server};

const TCP: PortSpec = PortSpec { transport: Transport::Tcp, port: 25565 };
const UDP: PortSpec = PortSpec { transport: Transport::Udp, port: 30000 };

fn seen(accept_queue: u32, unread: u32) -> Sockets {
    let local = |port| SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port);
    Sockets {
        listeners: vec![Listener {
            local: local(TCP.port),
            v6_only: false,
            accept_queue,
            backlog: 128,
            inode: 1,
        }],
        connections: Vec::new(),
        udp: vec![SeenUdp { local: local(UDP.port), v6_only: false, remote: None, unread, inode: 2 }],
    }
}

struct Bench {
    server: Server,
    process: Process,
    ports: Vec<PortSpec>,
}

impl Bench {
    fn new(profile: &str, ports: &[PortSpec]) -> Self {
        let process = Process::in_directory(std::path::Path::new("/"));
        Self { server: server(profile, ""), process, ports: ports.to_vec() }
    }

    async fn watch(&self, sockets: impl Fn() -> Sockets + Send + Sync + 'static) -> Outcome {
        self.watch_for(Duration::from_secs(3), sockets).await
    }

    async fn watch_for(
        &self,
        grace: Duration,
        sockets: impl Fn() -> Sockets + Send + Sync + 'static,
    ) -> Outcome {
        let address = IpAddr::from([127, 0, 0, 1]);
        let (server, main, ports) = (&self.server, self.process.id(), &self.ports);
        let canary = Canary { server, main, ports, address, grace, patience: grace };
        canary.watch(move || Ok::<_, NetlinkError>(sockets())).await
    }
}

fn reason(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed { reason } => reason,
        Outcome::Ok => panic!("it is well"),
    }
}

#[tokio::test(start_paused = true)]
async fn alive_is_enough_where_nothing_more_is_asked() {
    let bench = Bench::new("ready = \"alive\"", &[TCP]);
    assert_eq!(bench.watch(Sockets::default).await, Outcome::Ok);
}

#[tokio::test(start_paused = true)]
async fn listening_means_that_the_queues_move() {
    let bench = Bench::new("ready = \"listening\"", &[TCP, UDP]);
    assert_eq!(bench.watch(|| seen(0, 0)).await, Outcome::Ok);
    assert_eq!(reason(bench.watch(Sockets::default).await), "nobody listens on tcp/25565");
    assert_eq!(
        reason(bench.watch(|| seen(3, 0)).await),
        "3 connections wait on tcp/25565 and none is accepted"
    );
    assert_eq!(reason(bench.watch(|| seen(0, 3)).await), "datagrams wait on udp/30000 and none is read");
    let left = std::sync::atomic::AtomicU32::new(9);
    let draining = move || seen(left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst), 0);
    assert_eq!(bench.watch(draining).await, Outcome::Ok);
}

#[tokio::test(start_paused = true)]
async fn who_is_slow_to_be_ready_is_waited_for() {
    let bench = Bench::new("ready = \"listening\"", &[TCP]);
    let (server, main, ports) = (&bench.server, bench.process.id(), &bench.ports);
    let (grace, patience) = (Duration::from_secs(1), GRACE);
    let canary = Canary { server, main, ports, address: IpAddr::from([127, 0, 0, 1]), grace, patience };
    let looks = AtomicU32::new(0);
    let slow = move || {
        let busy = looks.fetch_add(1, SeqCst) < 5;
        Ok::<_, NetlinkError>(seen(u32::from(busy), 0))
    };
    assert_eq!(canary.watch(slow).await, Outcome::Ok);
}

#[tokio::test(start_paused = true)]
async fn sockets_that_cannot_be_listed_are_a_failure() {
    let bench = Bench::new("ready = \"listening\"", &[TCP]);
    let canary = Canary {
        server: &bench.server,
        main: bench.process.id(),
        ports: &bench.ports,
        address: IpAddr::from([127, 0, 0, 1]),
        grace: Duration::from_secs(2),
        patience: Duration::from_secs(2),
    };
    assert_eq!(
        reason(canary.watch(|| Err("no CAP_NET_ADMIN")).await),
        "its sockets can't be listed: no CAP_NET_ADMIN"
    );
}

#[tokio::test]
async fn a_server_that_answers_and_then_dies_has_not_survived() {
    let bench = Bench::new("ready = \"listening\"", &[TCP]);
    let pid = nix::unistd::Pid::from_raw(bench.process.id().pid);
    let looked = move || {
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        seen(0, 0)
    };
    let reason = reason(bench.watch_for(Duration::from_mins(10), looked).await);
    assert!(reason.starts_with(&format!("its process {pid} died ")), "{reason}");
}

/// A Minecraft server that says one thing to whoever asks.
async fn minecraft(answer: &'static [u8]) -> PortSpec {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut question = [0; 64];
            let len = stream.read(&mut question).await.unwrap();
            assert!(question[..len].ends_with(&[1, 1, 0]));
            // Byte by byte: an answer may come in pieces.
            for &byte in answer {
                // The client has seen enough when it likes.
                if stream.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    });
    PortSpec { transport: Transport::Tcp, port }
}

fn listening(port: PortSpec) -> impl Fn() -> Sockets + Send + Sync + 'static {
    move || {
        let mut sockets = seen(0, 0);
        sockets.listeners[0].local.set_port(port.port);
        sockets.udp[0].local.set_port(port.port);
        sockets
    }
}

#[tokio::test]
async fn a_minecraft_status_is_asked_for() {
    const SOON: Duration = Duration::from_millis(200);
    const PROFILE: &str = "ready = \"status\"\nprotocol = \"minecraft-java\"";
    let port = minecraft(b"\x19\x00\x17{\"description\":\"hello\"}").await;
    let bench = Bench::new(PROFILE, &[port]);
    assert_eq!(bench.watch_for(SOON, listening(port)).await, Outcome::Ok);
    let port = minecraft(b"").await;
    let bench = Bench::new(PROFILE, &[port]);
    assert_eq!(bench.watch_for(SOON, listening(port)).await, Outcome::Ok, "enable-status=false");
    let port = minecraft(b"\x04\x00\x02no and more").await;
    let bench = Bench::new(PROFILE, &[port]);
    let text = reason(bench.watch_for(SOON, listening(port)).await);
    assert!(text.ends_with("failed: it answered something else"), "{text}");
    // The kernel takes the connection, nobody answers: as from a process that hangs.
    let hung = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = PortSpec { transport: Transport::Tcp, port: hung.local_addr().unwrap().port() };
    let bench = Bench::new(PROFILE, &[port]);
    let text = reason(bench.watch_for(SOON, listening(port)).await);
    assert_eq!(text, format!("it doesn't answer a status query on {port}"));
}

#[tokio::test]
async fn a_teeworlds_info_is_asked_for() {
    const PROFILE: &str = "ready = \"status\"\nprotocol = \"teeworlds\"";
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = PortSpec { transport: Transport::Udp, port: socket.local_addr().unwrap().port() };
    let bench = Bench::new(PROFILE, &[port]);
    let answering = std::thread::spawn(move || {
        let mut question = [0; 2048];
        let (len, from) = socket.recv_from(&mut question).unwrap();
        assert!(question[..len].starts_with(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffgie3"));
        for answer in [&b"noise"[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffinf3and so on"] {
            socket.send_to(answer, from).unwrap();
        }
        socket
    });
    assert_eq!(bench.watch_for(Duration::from_millis(200), listening(port)).await, Outcome::Ok);
    let _silent = answering.join().unwrap();
    let text = reason(bench.watch_for(Duration::from_millis(200), listening(port)).await);
    assert_eq!(text, format!("it doesn't answer a status query on {port}"));
}
