//! Removing clsact filters and the qdisc itself, by rtnetlink.

use std::{ffi::CString, io, num::NonZeroU32};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::SockProtocol;

use super::{Direction, Outcome, UndoError};
use crate::discover::netlink::{Ask, Netlink};

const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;
/// The filters are attached for every protocol, as aya and tc(8) do for BPF.
const ETH_P_ALL_BE: u32 = (libc::ETH_P_ALL as u16).to_be() as u32;

pub(super) fn remove_filter(
    interface: &str,
    ifindex: u32,
    direction: Direction,
    priority: u16,
    handle: NonZeroU32,
) -> Result<Outcome, UndoError> {
    if let Some(outcome) = check_interface(interface, ifindex) {
        return Ok(outcome);
    }
    let mut message = TcMessage::with_index(ifindex as i32);
    message.header.parent = parent(direction);
    message.header.handle = TcHandle::from(handle.get());
    message.header.info = u32::from(priority) << 16 | ETH_P_ALL_BE;
    // With the kind named, the kernel refuses (EINVAL) to remove what is no BPF filter.
    message.attributes.push(TcAttribute::Kind("bpf".to_owned()));
    match request(RouteNetlinkMessage::DelTrafficFilter(message), NLM_F_ACK) {
        Ok(_) => Ok(Outcome::Restored),
        // No such filter, no clsact qdisc or another kind, no such interface (net/sched/cls_api.c).
        Err(error) if is_one_of(&error, &[libc::ENOENT, libc::EINVAL, libc::ENODEV]) => Ok(Outcome::Vanished),
        Err(source) => {
            Err(UndoError::Netlink { what: "the filter", interface: interface.to_owned(), source })
        }
    }
}

pub(super) fn remove_clsact(interface: &str, ifindex: u32) -> Result<Outcome, UndoError> {
    if let Some(outcome) = check_interface(interface, ifindex) {
        return Ok(outcome);
    }
    let fail =
        |source| UndoError::Netlink { what: "the clsact qdisc", interface: interface.to_owned(), source };
    for direction in [Direction::Ingress, Direction::Egress] {
        let mut message = TcMessage::with_index(ifindex as i32);
        message.header.parent = parent(direction);
        if request(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP).map_err(fail)? > 0 {
            return Ok(Outcome::InUse);
        }
    }
    let mut message = TcMessage::with_index(ifindex as i32);
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    match request(RouteNetlinkMessage::DelQueueDiscipline(message), NLM_F_ACK) {
        Ok(_) => Ok(Outcome::Restored),
        Err(error) if is_one_of(&error, &[libc::ENOENT, libc::EINVAL, libc::ENODEV]) => Ok(Outcome::Vanished),
        Err(source) => Err(fail(source)),
    }
}

/// Whether an interface has a clsact qdisc. A child of the interface itself, its number is the kernel's
/// (`TC_H_CLSACT`).
///
/// # Errors
/// The kernel's list can't be had.
pub fn has_clsact(interface: &str, ifindex: u32) -> Result<bool, UndoError> {
    let fail = |source| UndoError::Netlink { what: "the qdiscs", interface: interface.to_owned(), source };
    // struct tcmsg: family and padding, index, handle, parent, info.
    let asked = [0, ifindex, 0, 0, 0].map(u32::to_ne_bytes).concat();
    let mut route =
        Netlink::open(SockProtocol::NetlinkRoute).map_err(|error| fail(io::Error::other(error)))?;
    let listed = route
        .request(libc::RTM_GETQDISC, Ask::Dump, &asked)
        .map_err(|error| fail(io::Error::other(error)))?;
    let word = |body: &[u8], at: usize| {
        body.get(at..).and_then(|rest| rest.first_chunk().copied()).map_or(0, u32::from_ne_bytes)
    };
    let clsact = u32::from(TcHandle::CLSACT);
    Ok(listed.iter().any(|qdisc| word(&qdisc.body, 4) == ifindex && word(&qdisc.body, 12) == clsact))
}

/// An index is not used again soon, but may be: the name that was recorded must still have it.
fn check_interface(interface: &str, ifindex: u32) -> Option<Outcome> {
    let name = CString::new(interface).ok()?;
    match nix::net::if_::if_nametoindex(name.as_c_str()) {
        Ok(index) if index == ifindex => None,
        Ok(_) => Some(Outcome::Replaced),
        Err(_) => Some(Outcome::Vanished),
    }
}

fn parent(direction: Direction) -> TcHandle {
    let minor = match direction {
        Direction::Ingress => TcHandle::MIN_INGRESS,
        Direction::Egress => TcHandle::MIN_EGRESS,
    };
    TcHandle { major: u16::MAX, minor }
}

fn is_one_of(error: &io::Error, codes: &[i32]) -> bool {
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Sends one request and reads its answer to the end; returns how many objects it listed.
fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut listed = 0;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            // Only the head of each answer matters, so unknown attributes cannot make it unreadable.
            let answer = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
            match answer.message_type() {
                NLMSG_ERROR => return error_code(answer.payload()).map(|()| listed),
                NLMSG_DONE => return Ok(listed),
                _ => listed += 1,
            }
            let aligned = (answer.length() as usize).next_multiple_of(4).min(rest.len());
            rest = &rest[aligned..];
        }
    }
}

/// An acknowledgement is an error of code 0.
fn error_code(payload: &[u8]) -> io::Result<()> {
    let code = payload.first_chunk().copied().map_or(-libc::EPROTO, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}
