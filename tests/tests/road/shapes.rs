//! Packets of every shape: options, extension headers, tags, fragments, sizes, bursts, checksums, and what belongs to
//! no player.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use dormouse_tests::{
    frame::{Ip, UDP, ethernet, tagged},
    packet_socket::{PacketSocket, counter, mac},
    stand::{PORT, SOON, Stand},
    topology::{CLIENT, NODE},
};

use crate::{
    LIMITS,
    case::{POTS, Road, Sleeping, connect, expect_datagram, seen_as, udp_socket},
};

const IPV4: u16 = 0x0800;
const VLAN: u16 = 0x8100;

fn set(fd: RawFd, level: i32, option: i32, value: &[u8]) -> Result<()> {
    // SAFETY: the pointer and the length are a live slice's.
    let done =
        unsafe { libc::setsockopt(fd, level, option, value.as_ptr().cast(), value.len() as libc::socklen_t) };
    ensure!(done == 0, "setsockopt {level} {option}: {}", io::Error::last_os_error());
    Ok(())
}

/// IPv4 options or IPv6 extension headers, kept on a socket.
#[derive(Clone, Copy)]
struct Extra {
    name: &'static str,
    /// Of the server's addresses.
    family: usize,
    level: i32,
    option: i32,
    value: &'static [u8],
}

const EXTRAS: [Extra; 4] = [
    Extra {
        name: "IPv4 options: forty bytes of nothing",
        family: 0,
        level: libc::IPPROTO_IP,
        option: libc::IP_OPTIONS,
        value: &[1; 40],
    },
    Extra {
        name: "IPv4 options: record route",
        family: 0,
        level: libc::IPPROTO_IP,
        option: libc::IP_OPTIONS,
        value: &[7, 15, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    },
    Extra {
        name: "IPv6 hop by hop options",
        family: 1,
        level: libc::IPPROTO_IPV6,
        option: libc::IPV6_HOPOPTS,
        value: &[0, 0, 1, 4, 0, 0, 0, 0],
    },
    Extra {
        name: "IPv6 destination options",
        family: 1,
        level: libc::IPPROTO_IPV6,
        option: libc::IPV6_DSTOPTS,
        value: &[0, 0, 1, 4, 0, 0, 0, 0],
    },
];

/// Frames straight to the door's interface, past the node's conntrack, which would put fragments together and drop
/// what is damaged.
struct Injector {
    socket: PacketSocket,
    macs: [[u8; 6]; 2],
    ip: Ip<'static>,
    port: u16,
}

impl Injector {
    /// As from a client's socket, which gets the answers.
    fn new(at: &Sleeping<'_>, client: &UdpSocket) -> Result<Self> {
        let (node, pod) = (&at.stand.node, &at.stand.node.pods[at.index]);
        Ok(Self {
            socket: PacketSocket::open(&node.netns, &pod.host_veth)?,
            macs: [mac(&pod.netns, "eth0")?, mac(&node.netns, "cni0")?],
            ip: Ip::new(CLIENT[0], pod.v4.into(), UDP),
            port: client.local_addr()?.port(),
        })
    }

    fn frame(&self, ip: &Ip<'_>, payload: &[u8]) -> Vec<u8> {
        ethernet(self.macs[0], self.macs[1], IPV4, &ip.packet(payload))
    }

    fn datagram(&self, payload: &[u8]) -> Vec<u8> {
        self.frame(&self.ip, &self.ip.udp(self.port, PORT, payload))
    }

    /// The pieces of one datagram, in order.
    fn fragments(&self, id: u16, payload: &[u8], each: usize) -> Vec<Vec<u8>> {
        let datagram = self.ip.udp(self.port, PORT, payload);
        let last = datagram.len().div_ceil(each) - 1;
        datagram
            .chunks(each)
            .enumerate()
            .map(|(n, part)| {
                let ip = Ip { id, fragment: Some(((n * each) as u16, n != last)), ..self.ip };
                self.frame(&ip, part)
            })
            .collect()
    }
}

fn injected(at: &Sleeping<'_>) -> Result<(UdpSocket, Injector)> {
    let socket = at.client(|| udp_socket(at.v4()))?;
    let injector = Injector::new(at, &socket)?;
    Ok((socket, injector))
}

#[test]
fn every_shape_of_packet_gets_in() {
    let mut road = Road::new(Stand::prepare(POTS, LIMITS).unwrap());
    for extra in EXTRAS {
        road.case(&format!("TCP, {}", extra.name), |at| {
            let to = at.addresses()[extra.family];
            let stream = at.connect(to)?;
            set(stream.as_raw_fd(), extra.level, extra.option, extra.value)?;
            at.converse(&stream, 3000, seen_as(to))
        });
        road.case(&format!("UDP, {}", extra.name), |at| {
            let to = at.addresses()[extra.family];
            let socket = at.client(|| udp_socket(to))?;
            set(socket.as_raw_fd(), extra.level, extra.option, extra.value)?;
            at.datagrams(&socket, &[10, 300, 2000], Some(seen_as(to)))
        });
    }
    for family in [0, 1] {
        road.case(&format!("odd sizes, {}", ["IPv4", "IPv6"][family]), |at| {
            at.udp(at.addresses()[family], &[0, 1, 2, 3, 17, 213, 214, 215, 1452, 1471, 1472])
        });
        road.case(&format!("fragments, {}", ["IPv4", "IPv6"][family]), |at| {
            at.udp(at.addresses()[family], &[1473, 4000, 9001, 40_000])
        });
        road.case(&format!("a burst of datagrams, {}", ["IPv4", "IPv6"][family]), |at| {
            let to = at.addresses()[family];
            let socket = at.client(|| udp_socket(to))?;
            let sent = at.chance.letters(3 * 1200 + 77);
            // UDP_SEGMENT (linux/udp.h): one packet as far as the server's own veth.
            set(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, &1200i32.to_ne_bytes())?;
            socket.send(&sent)?;
            sent.chunks(1200).try_for_each(|part| expect_datagram(&socket, part, Some(seen_as(to))))
        });
        road.case(&format!("a large burst of a stream, {}", ["IPv4", "IPv6"][family]), |at| {
            at.tcp(at.addresses()[family], 300_000)
        });
        let again = road.case(&format!("a stream's burst behind a held datagram, {family}"), |at| {
            let to = at.addresses()[family];
            let other = at.client(|| udp_socket(to))?;
            other.send(b"HELD")?;
            let stream = at.connect(to)?;
            at.converse(&stream, 14_000, seen_as(to))?;
            expect_datagram(&other, b"HELD", Some(seen_as(to)))
        });
        assert_eq!(again, 0, "the burst is parked and given back whole");
    }
    for (name, order) in [
        ("fragments in order", [0, 1, 2, 3]),
        ("the last fragment first", [3, 0, 1, 2]),
        ("the first fragment last", [1, 2, 3, 0]),
        ("fragments backwards", [3, 2, 1, 0]),
    ] {
        road.case(name, |at| {
            let (socket, door) = injected(at)?;
            let sent = [at.chance.letters(5000), at.chance.letters(5500)];
            for (id, payload) in [7, 8].into_iter().zip(&sent) {
                let parts = door.fragments(id, payload, 1480);
                order.iter().try_for_each(|&n| door.socket.send(&parts[n]))?;
            }
            sent.iter().try_for_each(|payload| expect_datagram(&socket, payload, Some(CLIENT[0])))
        });
    }
    road.case("damaged on the way", |at| {
        let (socket, door) = injected(at)?;
        let pod = &at.stand.node.pods[at.index].netns;
        let before = counter(pod, "Udp", "InCsumErrors")?;
        let mut damaged = door.datagram(b"DAMAGED");
        *damaged.last_mut().context("a frame")? ^= 1;
        door.socket.send(&damaged)?;
        door.socket.send(&door.datagram(b"WHOLE"))?;
        expect_datagram(&socket, b"WHOLE", Some(CLIENT[0]))?;
        ensure!(counter(pod, "Udp", "InCsumErrors")? == before + 1, "the server's kernel saw no damage");
        Ok(())
    });
    road.case("no checksum, and filled up to the least frame", |at| {
        let (socket, door) = injected(at)?;
        for word in [b"ONE", b"TWO"] {
            let mut frame = door.datagram(word);
            frame[40..42].fill(0);
            frame.resize(60, 0xee);
            door.socket.send(&frame)?;
        }
        expect_datagram(&socket, b"ONE", Some(CLIENT[0]))?;
        expect_datagram(&socket, b"TWO", Some(CLIENT[0]))
    });
    road.case("a priority tag", |at| {
        let (socket, door) = injected(at)?;
        for word in [b"ONE", b"TWO"] {
            door.socket.send(&tagged(&door.datagram(word), VLAN, 5 << 13))?;
        }
        expect_datagram(&socket, b"ONE", Some(CLIENT[0]))?;
        expect_datagram(&socket, b"TWO", Some(CLIENT[0]))
    });
    road.case("a VLAN through the bridge keeps its tag", keeps_its_tag);
    let again = road.case("jumbo frames", |at| {
        let (node, pod) = (&at.stand.node, &at.stand.node.pods[at.index]);
        node.client.ip("link set c0 mtu 9000")?;
        pod.netns.ip("link set eth0 mtu 9000")?;
        for dev in ["up0", "cni0", &pod.host_veth] {
            node.netns.ip(&format!("link set {dev} mtu 9000"))?;
        }
        at.udp(at.v4(), &[8000, 8972, 3])?;
        at.tcp(at.addresses()[1], 100_000)
    });
    assert_eq!(again, 0);
    road.case("afterwards, the usual", |at| at.tcp(at.v4(), 1000));
    road.finish();
}

/// A neighbour on the bridge sends into a VLAN: the kernel takes the tag out of the bytes and keeps it beside them.
/// No server listens there; what arrives at its interface is looked at.
fn keeps_its_tag(at: &mut Sleeping<'_>) -> Result<()> {
    let other = (at.index + 1) % at.stand.pots.len();
    let (from, to) = (&at.stand.node.pods[other], &at.stand.node.pods[at.index]);
    let sender = PacketSocket::open(&from.netns, "eth0")?;
    let watch = PacketSocket::open(&to.netns, "eth0")?;
    let macs = [mac(&to.netns, "eth0")?, mac(&from.netns, "eth0")?];
    let ip = Ip::new(from.v4.into(), to.v4.into(), UDP);
    let tag = 3 << 13 | 7;
    for word in [b"ONE", b"TWO"] {
        let frame = ethernet(macs[0], macs[1], IPV4, &ip.packet(&ip.udp(4242, PORT, word)));
        sender.send(&tagged(&frame, VLAN, tag))?;
    }
    for word in [b"ONE", b"TWO"] {
        let seen = watch.wait_for(SOON, |seen| seen.frame.ends_with(word))?;
        ensure!(seen.vlan == Some(tag), "{:?} instead of {tag:#x}", seen.vlan);
    }
    Ok(())
}

/// An echo request and its answer (RFC 792, RFC 4443).
fn ping(to: IpAddr) -> Result<()> {
    use nix::sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto,
            setsockopt, socket, sockopt,
        },
        time::TimeVal,
    };
    // The kernel fills in ICMPv6's checksum; that of ICMP is over these eight bytes.
    let (family, protocol, request, answer) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, [8, 0, 0xf7, 0xfd, 0, 1, 0, 1], 0),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, [128, 0, 0, 0, 0, 1, 0, 1], 129),
    };
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
    sendto(socket.as_raw_fd(), &request, &SockaddrStorage::from(SocketAddr::new(to, 0)), MsgFlags::empty())?;
    let mut packet = [0; 256];
    loop {
        let len = recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()).context("no answer to a ping")?;
        // IPv4 shows its header, IPv6 does not.
        let at = if to.is_ipv4() { usize::from(packet[0] & 0xf) * 4 } else { 0 };
        if packet[..len].get(at) == Some(&answer) {
            return Ok(());
        }
    }
}

#[test]
fn what_belongs_to_no_player_passes_and_wakes_nobody() {
    let mut road = Road::new(Stand::prepare(POTS, LIMITS).unwrap());
    road.sleeps_on("ping", |at| at.addresses().into_iter().try_for_each(|to| at.client(|| ping(to.ip()))));
    road.sleeps_on("ARP and ND", |at| {
        // Nobody knows anybody's address any more; the pings need both answered.
        at.stand.node.netns.ip("neigh flush all")?;
        at.stand.node.pods[at.index].netns.ip("neigh flush all")?;
        at.addresses().into_iter().try_for_each(|to| at.stand.node.netns.run(|| ping(to.ip())))
    });
    road.sleeps_on("ICMP errors", |at| {
        let (socket, door) = injected(at)?;
        let pod = &at.stand.node.pods[at.index];
        let before = counter(&pod.netns, "Icmp", "InMsgs")?;
        // "Fragmentation needed" (RFC 1191), "port unreachable" and "time exceeded", about a datagram of the server's.
        let about = Ip::new(pod.v4.into(), CLIENT[0], UDP);
        let inner = about.packet(&about.udp(PORT, socket.local_addr()?.port(), b"ANSWER"));
        for (kind, code, mtu) in [(3, 4, 1200u16), (3, 3, 0), (11, 0, 0)] {
            let mut icmp = vec![kind, code, 0, 0, 0, 0];
            icmp.extend(mtu.to_be_bytes());
            icmp.extend(&inner);
            let mut sum: u32 =
                icmp.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
            sum = (sum & 0xffff) + (sum >> 16);
            sum += sum >> 16;
            icmp[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
            let ip = Ip::new(NODE[0], pod.v4.into(), 1);
            door.socket.send(&door.frame(&ip, &icmp))?;
        }
        at.stand.wait_until("the server's kernel has them", || {
            ensure!(counter(&pod.netns, "Icmp", "InMsgs")? >= before + 3);
            Ok(())
        })
    });
    road.sleeps_on("one datagram, and the client gives up", |at| {
        at.client(|| udp_socket(at.v4()))?.send(b"ANYBODY?")?;
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    });
    road.sleeps_on("later fragments without a first", |at| {
        let (_socket, door) = injected(at)?;
        let payload = at.chance.letters(9000);
        door.fragments(9, &payload, 1480)[1..].iter().try_for_each(|part| door.socket.send(part))
    });
    road.sleeps_on("packets that are none", |at| {
        let (_socket, door) = injected(at)?;
        for round in 0..500 {
            let mut frame = door.datagram(&[b'X'; 40]);
            for _ in 0..=at.chance.below(3) {
                // The headers, but for the version and the ports: a good datagram from another port is somebody else's.
                let place = 14 + 1 + at.chance.below(18) as usize;
                frame[place] = at.chance.below(256) as u8;
            }
            frame[23] = [0, 1, 2, 6, 41, 47, 50, 132][round % 8];
            if round % 4 == 0 {
                frame[14] = at.chance.below(256) as u8 & 0xfb | 0x80;
            }
            door.socket.send(&frame)?;
        }
        Ok(())
    });
    road.case("and a player gets in", |at| at.tcp(at.v4(), 1000));
    road.case("the path's MTU shrinks behind an old connection", |at| {
        at.stand.daemon.wake(&at.stand.pots[at.index].name)?;
        let stream = at.connect(at.v4())?;
        at.converse(&stream, 3000, CLIENT[0])?;
        at.stand.doze(at.index)?;
        // The client's way and the server's answers meet an uplink that is narrower than what both know.
        at.stand.node.netns.ip("link set up0 mtu 1280")?;
        at.stand.node.client.ip("link set c0 mtu 1280")?;
        at.converse(&stream, 20_000, CLIENT[0])?;
        at.stand.node.netns.ip("link set up0 mtu 1500")?;
        at.stand.node.client.ip("link set c0 mtu 1500")
    });
    road.case("many at once from one address", |at| {
        let to: SocketAddr = at.v4();
        at.client(|| {
            let streams = (0..20).map(|_| connect(to)).collect::<Result<Vec<_>>>()?;
            streams.iter().try_for_each(|stream| crate::case::converse(stream, b"TOGETHER", Some(CLIENT[0])))
        })
    });
    road.finish();
}
