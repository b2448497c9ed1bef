//! The roads into a server's network namespace: its veths, each with the host end where the door stands, and
//! the devices by which packets would miss every door.
//!
//! What links can't show, a CNI that uses `bpf_redirect_peer`, is found by the datagram that must be counted
//! when the door is attached: but only where the node's own packets take that road too. A program that redirects
//! what comes in by an uplink, and nothing else, is not found.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use libc::{
    IFA_ADDRESS, IFA_LOCAL, IFF_LOOPBACK, IFF_UP, IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINK,
    IFLA_LINKINFO, RTM_GETADDR, RTM_GETLINK,
};
use netlink_packet_core::{NlaBuffer, NlasIterator};
use netlink_packet_route::address::AddressMessageBuffer;
use netlink_packet_route::link::LinkMessageBuffer;

use super::netlink::{Ask, Message, Netlink, NetlinkError};
use crate::netns::{Namespace, NamespaceSockets};

// linux/if_link.h and linux/net_namespace.h; libc has them not.
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_STATS64: u16 = 23;
const RTM_GETNSID: u16 = 90;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;

/// The kernel's word for "no number given yet" (`NETNSA_NSID_NOT_ASSIGNED`).
const NOT_ASSIGNED: i32 = -1;

/// Devices that bring in nothing by themselves: what they carry came through another device of the namespace
/// (or from nowhere), unless their lower device is in another one.
const ON_TOP: [&str; 9] = ["bond", "bridge", "dummy", "hsr", "ifb", "macsec", "nlmon", "team", "vlan"];

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    pub index: u32,
    pub name: String,
    /// `veth`, `bridge`, …; hardware has none.
    pub kind: Option<String>,
    /// Its link-layer address, often 6 bytes.
    pub address: Vec<u8>,
    /// A veth's peer, a macvlan's or VLAN's lower device.
    pub link: Option<u32>,
    /// The namespace of that device, by the number it has in this one; `None` = this one.
    pub link_namespace: Option<i32>,
    pub up: bool,
    pub loopback: bool,
}

/// The host's end of a server's veth: where the door stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEnd {
    pub ifindex: u32,
    pub name: String,
    address: Vec<u8>,
    inside: u32,
}

/// A road that passes a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// The server's end.
    pub inside: Device,
    /// The server's addresses on it, link-local ones too.
    pub addresses: Vec<IpAddr>,
    pub host_end: HostEnd,
}

/// A road that misses the host end of every veth.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissedRoad {
    #[error("its device {device} is a netkit, which has no veth to stand at")]
    Netkit { device: String },
    #[error(
        "its device {device} is a {kind} on a device of the host: packets come in below the host's hooks"
    )]
    Shared { device: String, kind: String },
    #[error("its device {device} is a tunnel ({kind}): players inside of it can't be seen from the host")]
    Tunnel { device: String, kind: String },
    #[error("its device {device} is a network card (or SR-IOV function) of its own")]
    Card { device: String },
    #[error("its veth {device} ends in a network namespace that is not the daemon's")]
    PeerElsewhere { device: String },
    #[error("its device {device} is of a kind that dormouse doesn't know ({kind})")]
    Unknown { device: String, kind: String },
    #[error(
        "{packets} packets came in at its veth {device} that never left the host's end: a program (bpf_redirect_peer) \
         takes them past the door"
    )]
    PastTheDoor { device: String, packets: u64 },
}

/// All roads of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roads {
    pub veths: Vec<Veth>,
    pub missed: Vec<MissedRoad>,
}

#[derive(Debug, thiserror::Error)]
pub enum RoadError {
    #[error(
        "not every packet for the server passes a door: {missed}; take the device away, or let the server run on a \
         bridge network, else it is not put to sleep"
    )]
    Missed { missed: MissedRoads },
    #[error("the server's network namespace has no device that is up, except loopback: nobody can reach it")]
    NoRoad,
}

/// One after the other, for a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissedRoads(pub Vec<MissedRoad>);

impl fmt::Display for MissedRoads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, road) in self.0.iter().enumerate() {
            write!(f, "{}{road}", if position == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl Roads {
    /// The veths, if doors at their host ends see every packet for the server.
    pub fn all_through_doors(self) -> Result<Vec<Veth>, RoadError> {
        match (self.veths.is_empty(), self.missed.is_empty()) {
            (_, false) => Err(RoadError::Missed { missed: MissedRoads(self.missed) }),
            (true, true) => Err(RoadError::NoRoad),
            (false, true) => Ok(self.veths),
        }
    }
}

/// The name of an interface of the caller's namespace. (nix 0.30 takes the null pointer by which if_indextoname(3)
/// says "no such interface" for an empty name.)
///
/// # Errors
/// `ENXIO` when there is none.
pub fn name_of(ifindex: u32) -> std::io::Result<String> {
    let name = nix::net::if_::if_indextoname(ifindex)?.to_string_lossy().into_owned();
    if name.is_empty() { Err(std::io::Error::from_raw_os_error(libc::ENXIO)) } else { Ok(name) }
}

/// The roads into the server's namespace. `own` is a route socket in the daemon's namespace.
pub fn roads(server: &mut NamespaceSockets, own: &mut Netlink) -> Result<Roads, NetlinkError> {
    let inside = devices(&mut server.route)?;
    let addresses = addresses(&mut server.route)?;
    // In this order: listing the devices makes the kernel number the namespaces that they lead to.
    let outside = devices(own)?;
    let number = number(own, &server.namespace)?;
    let mut roads = Roads::default();
    for device in inside {
        match road(&device, &outside, number) {
            Some(Ok(host_end)) => {
                let addresses = addresses
                    .iter()
                    .filter(|(index, _)| *index == device.index)
                    .map(|&(_, address)| address)
                    .collect();
                roads.veths.push(Veth { inside: device, addresses, host_end });
            }
            Some(Err(missed)) => roads.missed.push(missed),
            None => {}
        }
    }
    Ok(roads)
}

/// Whether a device of the server is a road, and where it comes from. `number` is the server's namespace as
/// the host numbers it.
fn road(device: &Device, host: &[Device], number: Option<i32>) -> Option<Result<HostEnd, MissedRoad>> {
    if device.loopback || !device.up {
        return None;
    }
    let name = || device.name.clone();
    let Some(kind) = device.kind.as_deref() else {
        return Some(Err(MissedRoad::Card { device: name() }));
    };
    let owned = || kind.to_owned();
    let missed = match kind {
        // Both ends inside.
        "veth" if device.link_namespace.is_none() => return None,
        "veth" => {
            let host_end =
                host.iter().find(|end| Some(end.index) == device.link && leads_to(end, device, number));
            match host_end {
                Some(end) => {
                    return Some(Ok(HostEnd {
                        ifindex: end.index,
                        name: end.name.clone(),
                        address: end.address.clone(),
                        inside: device.index,
                    }));
                }
                None => MissedRoad::PeerElsewhere { device: name() },
            }
        }
        "netkit" => MissedRoad::Netkit { device: name() },
        "macvlan" | "macvtap" | "ipvlan" | "ipvtap" => MissedRoad::Shared { device: name(), kind: owned() },
        "tun" | "wireguard" | "vxlan" | "geneve" | "gre" | "gretap" | "ip6gre" | "ip6gretap" | "ipip"
        | "ip6tnl" | "sit" | "vti" | "vti6" | "xfrm" | "ppp" => {
            MissedRoad::Tunnel { device: name(), kind: owned() }
        }
        kind if ON_TOP.contains(&kind) && device.link_namespace.is_none() => return None,
        kind if ON_TOP.contains(&kind) => MissedRoad::Shared { device: name(), kind: owned() },
        _ => MissedRoad::Unknown { device: name(), kind: owned() },
    };
    Some(Err(missed))
}

/// Every container's end has a low number, often the same one: only with the namespace does it name a device.
fn leads_to(end: &Device, inside: &Device, number: Option<i32>) -> bool {
    end.kind.as_deref() == Some("veth")
        && end.link == Some(inside.index)
        && number.is_some()
        && end.link_namespace == number
}

impl HostEnd {
    /// Whether this number is still the same device: a re-created veth may get an old number, and a road that
    /// is gone needs no door.
    pub fn is_still_there(&self, own: &mut Netlink) -> Result<bool, NetlinkError> {
        let mut body = [0; LINK_HEADER];
        body[4..8].copy_from_slice(&self.ifindex.to_ne_bytes());
        match own.request(RTM_GETLINK, Ask::One, &body) {
            Ok(messages) => Ok(messages.iter().filter_map(device).any(|now| {
                now.kind.as_deref() == Some("veth")
                    && now.address == self.address
                    && now.link == Some(self.inside)
            })),
            Err(NetlinkError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Packets that came in at a veth's inside and were never sent at its host end (`bpf_redirect_peer` puts them there),
/// if there are any.
///
/// Everything else that comes in is counted at the host end first, and that is read last: a packet between the two
/// reads is never taken for one of these. Kernels before 6.7 don't count what is redirected (`veth_get_stats64`).
pub fn past_the_door(
    server: &mut Netlink,
    own: &mut Netlink,
    end: &HostEnd,
) -> Result<Option<MissedRoad>, NetlinkError> {
    let inside = counted(server, end.inside)?;
    let outside = counted(own, end.ifindex)?;
    Ok(match (inside, outside) {
        (Some(inside), Some(outside)) if inside.received > outside.sent => {
            Some(MissedRoad::PastTheDoor { device: inside.name, packets: inside.received - outside.sent })
        }
        _ => None,
    })
}

/// What a device has counted since it was made, in packets.
struct Counted {
    name: String,
    received: u64,
    sent: u64,
}

/// `None`: there is no such device any more.
fn counted(route: &mut Netlink, index: u32) -> Result<Option<Counted>, NetlinkError> {
    let mut body = [0; LINK_HEADER];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    match route.request(RTM_GETLINK, Ask::One, &body) {
        Ok(messages) => Ok(messages.iter().find_map(statistics)),
        Err(NetlinkError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `struct rtnl_link_stats64` of linux/if_link.h begins with packets received and packets sent.
fn statistics(message: &Message) -> Option<Counted> {
    let name = device(message)?.name;
    let link = LinkMessageBuffer::new_checked(message.body.as_slice()).ok()?;
    let attribute =
        NlasIterator::new(link.payload()).flatten().find(|attribute| attribute.kind() == IFLA_STATS64)?;
    let count =
        |at: usize| attribute.value().get(at..)?.first_chunk().map(|&bytes| u64::from_ne_bytes(bytes));
    Some(Counted { name, received: count(0)?, sent: count(8)? })
}

/// `struct ifinfomsg`, `struct ifaddrmsg` and `struct rtgenmsg` with its padding (rtnetlink(7)).
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const GENERIC_HEADER: usize = 4;

/// All devices of the namespace in which `route` was opened.
pub fn devices(route: &mut Netlink) -> Result<Vec<Device>, NetlinkError> {
    route
        .request(RTM_GETLINK, Ask::Dump, &[0; LINK_HEADER])?
        .iter()
        .map(|message| device(message).ok_or_else(|| short(RTM_GETLINK, message)))
        .collect()
}

fn addresses(route: &mut Netlink) -> Result<Vec<(u32, IpAddr)>, NetlinkError> {
    let messages = route.request(RTM_GETADDR, Ask::Dump, &[0; ADDRESS_HEADER])?;
    Ok(messages.iter().filter_map(address).collect())
}

fn short(kind: u16, message: &Message) -> NetlinkError {
    NetlinkError::Malformed { kind, why: format!("an object of {} bytes", message.body.len()) }
}

/// `None`: too short.
fn device(message: &Message) -> Option<Device> {
    let link = LinkMessageBuffer::new_checked(message.body.as_slice()).ok()?;
    let has = |flag: i32| link.flags() & flag as u32 != 0;
    let mut device = Device {
        index: link.link_index(),
        up: has(IFF_UP),
        loopback: has(IFF_LOOPBACK),
        ..Device::default()
    };
    for attribute in NlasIterator::new(link.payload()).flatten() {
        let value = attribute.value();
        match attribute.kind() {
            IFLA_IFNAME => device.name = text(value),
            IFLA_ADDRESS => device.address = value.to_vec(),
            IFLA_LINK => device.link = number_of(&attribute).map(i32::cast_unsigned),
            IFLA_LINK_NETNSID => device.link_namespace = number_of(&attribute),
            IFLA_LINKINFO => {
                device.kind = NlasIterator::new(value)
                    .flatten()
                    .find(|attribute| attribute.kind() == IFLA_INFO_KIND)
                    .map(|attribute| text(attribute.value()));
            }
            _ => {}
        }
    }
    Some(device)
}

/// The device's number and one address of it.
fn address(message: &Message) -> Option<(u32, IpAddr)> {
    let address = AddressMessageBuffer::new_checked(message.body.as_slice()).ok()?;
    let find = |kind| {
        let attribute =
            NlasIterator::new(address.payload()).flatten().find(|attribute| attribute.kind() == kind)?;
        let value = attribute.value();
        match value.len() {
            4 => value.first_chunk::<4>().map(|&bytes| IpAddr::from(bytes)),
            16 => value.first_chunk::<16>().map(|&bytes| IpAddr::from(bytes)),
            _ => None,
        }
    };
    // On a point-to-point device IFA_ADDRESS is the other side's.
    Some((address.index(), find(IFA_LOCAL).or_else(|| find(IFA_ADDRESS))?))
}

/// The number that another namespace has in that of `own`.
fn number(own: &mut Netlink, namespace: &Namespace) -> Result<Option<i32>, NetlinkError> {
    let mut body = vec![0; GENERIC_HEADER];
    body.extend_from_slice(&8_u16.to_ne_bytes());
    body.extend_from_slice(&NETNSA_FD.to_ne_bytes());
    body.extend_from_slice(&namespace.file().as_raw_fd().to_ne_bytes());
    let messages = own.request(RTM_GETNSID, Ask::One, &body)?;
    Ok(messages
        .iter()
        .filter_map(|message| message.body.get(GENERIC_HEADER..))
        .flat_map(|attributes| NlasIterator::new(attributes).flatten())
        .find(|attribute| attribute.kind() == NETNSA_NSID)
        .and_then(|attribute| number_of(&attribute))
        .filter(|&number| number != NOT_ASSIGNED))
}

fn number_of(attribute: &NlaBuffer<&[u8]>) -> Option<i32> {
    attribute.value().first_chunk().map(|&bytes| i32::from_ne_bytes(bytes))
}

/// A string with its NUL.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
}

#[cfg(fuzzing)]
pub fn fuzz(message: &Message) {
    let _ = (device(message), address(message));
}

#[cfg(test)]
mod tests;
