//! TCP bytes and small datagrams a second through a veth, with the door and without it. One stream runs all
//! the time; the door is put on and taken off under it.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use dormouse_abi::server::{ServerKey, ServerRef};
use dormouse_daemon::door::Attachment;
use dormouse_packet::{
    Game,
    headers::{TCP, UDP},
};
use dormouse_tests::topology::BareVeth;

use crate::{
    fastpath::Stand,
    report::{Figure, Goal},
    stats::{median, median_of_rounds},
};

const PORT: u16 = 7001;
const SLOT: u32 = 0;
/// How long an arm is counted, and how long before that nothing is: a detached program goes a moment later.
const SLICE: Duration = Duration::from_millis(200);
const SETTLE: Duration = Duration::from_millis(100);
/// What a game's datagram has.
const DATAGRAM: usize = 200;

/// Measures both transports.
pub fn run(rounds: usize) -> Result<Vec<Figure>> {
    let veth = BareVeth::create()?;
    let mut stand = Stand::new()?;
    let ifindex = veth
        .client
        .run(|| nix::net::if_::if_nametoindex(&*veth.pod.host_veth))
        .context("the veth's index")?;
    stand.door.arrays().reset(SLOT);
    for (protocol, game) in [(TCP, Game::GenericTcp), (UDP, Game::GenericUdp)] {
        let server = ServerRef { slot: SLOT, game: game as u8, flags: 0, pad: [0; 2] };
        stand.door.watch(ServerKey::new(u64::from(ifindex), PORT, protocol), server)?;
    }
    let to = SocketAddr::new(IpAddr::V4(veth.pod.v4), PORT);
    let streams: [(&str, &'static str, Stream); 2] =
        [("TCP, Gbit/s", "throughput_ratio", tcp), ("UDP, datagrams/s", "udp_pps_ratio", udp)];
    let mut figures = vec![];
    for (what, name, stream) in streams {
        let ratios = with_stream(&veth, to, stream, |counted| {
            let mut arm = |with_door: bool| -> Result<f64> {
                let attachment =
                    if with_door { Some(veth.client.run(|| attach(&mut stand, ifindex))?) } else { None };
                thread::sleep(SETTLE);
                let (before, start) = (counted.load(Relaxed), Instant::now());
                thread::sleep(SLICE);
                let rate = (counted.load(Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
                if let Some(attachment) = attachment {
                    stand.door.detach(&attachment)?;
                }
                Ok(rate)
            };
            let (mut ratios, mut without, mut with) = (vec![], vec![], vec![]);
            for _ in 0..rounds {
                let [a, b, c, d] = [arm(false)?, arm(true)?, arm(true)?, arm(false)?];
                without.push(f64::midpoint(a, d));
                with.push(f64::midpoint(b, c));
                ratios.push((b + c) / (a + d));
            }
            let unit = if name == "throughput_ratio" { 8e-9 } else { 1.0 };
            println!("{what}: without {:.3}, with {:.3}", median(&without) * unit, median(&with) * unit);
            Ok(ratios)
        })?;
        figures.push(Figure::new(name, median_of_rounds(&ratios), Goal::AtLeast(0.95)));
    }
    Ok(figures)
}

/// Puts the door on.
fn attach(stand: &mut Stand, ifindex: u32) -> Result<Attachment> {
    let attachment = stand.door.plan(ifindex)?;
    stand.door.attach(&attachment)?;
    Ok(attachment)
}

/// Starts receiver and sender, each a thread in its namespace; what is returned counts at the receiver.
type Stream = fn(&BareVeth, SocketAddr, &AtomicU64, &AtomicBool) -> Result<()>;

fn with_stream<T>(
    veth: &BareVeth,
    to: SocketAddr,
    stream: Stream,
    measure: impl FnOnce(&AtomicU64) -> Result<T>,
) -> Result<T> {
    let (counted, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let running = scope.spawn(|| stream(veth, to, &counted, &stop));
        let begun = Instant::now();
        while counted.load(Relaxed) == 0 && begun.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(10));
        }
        let measured = measure(&counted);
        stop.store(true, Relaxed);
        running.join().expect("the stream's own errors are returned")?;
        measured
    })
}

fn tcp(veth: &BareVeth, to: SocketAddr, counted: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let listener = veth.pod.netns.run(|| TcpListener::bind(to))?;
    let mut sender = veth.client.run(|| TcpStream::connect(to))?;
    let (mut receiver, _) = listener.accept()?;
    thread::scope(|scope| {
        scope.spawn(move || {
            let block = vec![0; 128 << 10];
            while !stop.load(Relaxed) && sender.write_all(&block).is_ok() {}
        });
        let mut buffer = vec![0; 256 << 10];
        loop {
            match receiver.read(&mut buffer)? {
                0 => return Ok(()),
                len => counted.fetch_add(len as u64, Relaxed),
            };
        }
    })
}

fn udp(veth: &BareVeth, to: SocketAddr, counted: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let receiver = veth.pod.netns.run(|| UdpSocket::bind(to))?;
    receiver.set_read_timeout(Some(Duration::from_millis(200)))?;
    let sender = veth.client.run(|| UdpSocket::bind("0.0.0.0:0"))?;
    sender.connect(to)?;
    thread::scope(|scope| {
        scope.spawn(|| {
            // A full queue refuses a datagram; the next one is tried.
            while !stop.load(Relaxed) {
                let _ = sender.send(&[0; DATAGRAM]);
            }
        });
        let mut buffer = [0; DATAGRAM];
        while !stop.load(Relaxed) {
            match receiver.recv(&mut buffer) {
                Ok(_) => counted.fetch_add(1, Relaxed),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error).context("receive"),
            };
        }
        Ok(())
    })
}
