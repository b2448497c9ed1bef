//! TCP bytes and small datagrams a second through a veth, with the door and without it, and with a program in its place
//! that does nothing. One stream runs all the time; the programs are put on and taken off under it.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use aya::programs::{TcAttachType, tc::SchedClassifierLink};
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
    stand.door.program("empty")?.load()?;
    let on_tcp = Measured {
        what: "TCP, Gbit/s",
        unit: 8e-9,
        stream: tcp,
        link: Link::Seen { floor: "throughput_floor_ratio" },
        ratio: "throughput_ratio",
    };
    let on_udp = Measured {
        what: "UDP, datagrams/s",
        unit: 1.0,
        stream: udp,
        link: Link::Seen { floor: "udp_pps_floor_ratio" },
        ratio: "udp_pps_ratio",
    };
    let older = Measured {
        what: "TCP, connected before, Gbit/s",
        link: Link::Older,
        ratio: "throughput_older_link_ratio",
        ..on_tcp
    };
    let mut figures = vec![];
    for (measured, rounds) in [(on_tcp, rounds), (on_udp, rounds), (older, rounds / 4)] {
        let Measured { what, unit, stream, link, ratio } = measured;
        let first = match link {
            Link::Seen { .. } => {
                Some(veth.client.run(|| put_on(&mut stand, OnIt::Door, ifindex, &veth.pod.host_veth))?)
            }
            Link::Older => None,
        };
        // By round: without, with the empty program, with the door.
        let rates = with_stream(&veth, to, stream, |counted| {
            if let Some(first) = first {
                take_off(&mut stand, first)?;
            }
            let mut arm = |on_it: OnIt| -> Result<f64> {
                let put = veth.client.run(|| put_on(&mut stand, on_it, ifindex, &veth.pod.host_veth))?;
                thread::sleep(SETTLE);
                let (before, start) = (counted.load(Relaxed), Instant::now());
                thread::sleep(SLICE);
                let rate = (counted.load(Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
                take_off(&mut stand, put)?;
                Ok(rate)
            };
            let mut rates = vec![];
            for _ in 0..rounds {
                let mut round = [0.0; 3];
                for which in [0, 1, 2, 2, 1, 0] {
                    round[which] += arm([OnIt::Nothing, OnIt::Empty, OnIt::Door][which])? / 2.0;
                }
                rates.push(round);
            }
            Ok(rates)
        })?;
        let of = |which: usize| median(&rates.iter().map(|round| round[which] * unit).collect::<Vec<_>>());
        println!(
            "{what}: without {:.3}, with the empty program {:.3}, with the door {:.3}",
            of(0),
            of(1),
            of(2)
        );
        let of_nothing = |which: usize| {
            median_of_rounds(&rates.iter().map(|round| round[which] / round[0]).collect::<Vec<_>>())
        };
        match link {
            Link::Seen { floor } => {
                figures.push(Figure::new(ratio, of_nothing(2), Goal::AtLeast(0.95)));
                figures.push(Figure::new(floor, of_nothing(1), Goal::Reported));
            }
            Link::Older => figures.push(Figure::new(ratio, of_nothing(2), Goal::Reported)),
        }
    }
    Ok(figures)
}

/// One stream and what it is called.
#[derive(Clone, Copy)]
struct Measured {
    what: &'static str,
    /// What is printed of a byte, or a datagram, a second.
    unit: f64,
    stream: Stream,
    link: Link,
    ratio: &'static str,
}

/// Whether the door saw the stream begin. One that it didn't it can't judge: it looks at each packet.
#[derive(Clone, Copy)]
enum Link {
    Seen { floor: &'static str },
    Older,
}

/// What both directions of the veth have to pass.
#[derive(Clone, Copy)]
enum OnIt {
    Nothing,
    Empty,
    Door,
}

enum Put {
    Nothing,
    Empty([SchedClassifierLink; 2]),
    Door(Attachment),
}

fn put_on(stand: &mut Stand, on_it: OnIt, ifindex: u32, veth: &str) -> Result<Put> {
    Ok(match on_it {
        OnIt::Nothing => Put::Nothing,
        OnIt::Empty => {
            let program = stand.door.program("empty")?;
            let mut put = |side| -> Result<SchedClassifierLink> {
                let id = program.attach(veth, side)?;
                Ok(program.take_link(id)?)
            };
            Put::Empty([put(TcAttachType::Ingress)?, put(TcAttachType::Egress)?])
        }
        OnIt::Door => {
            let attachment = stand.door.plan(ifindex)?;
            stand.door.attach(&attachment)?;
            Put::Door(attachment)
        }
    })
}

fn take_off(stand: &mut Stand, put: Put) -> Result<()> {
    match put {
        Put::Nothing => {}
        // A link that is dropped is off (tcx; with clsact aya asks netlink).
        Put::Empty(links) => drop(links),
        Put::Door(attachment) => stand.door.detach(&attachment)?,
    }
    Ok(())
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
