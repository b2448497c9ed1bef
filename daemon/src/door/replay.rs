//! Giving a parked packet to the server as if it had just arrived: AF_PACKET on the same veth, with a
//! virtio header that restores the segmentation and leaves the checksum to the kernel.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use dormouse_packet::headers::{self, Fragment, Packet, TCP};

use super::Parked;

/// `struct virtio_net_hdr` of include/uapi/linux/virtio_net.h, as PACKET_VNET_HDR wants it before a frame.
const VNET_LEN: usize = 10;
const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;
/// The CWR flag: a burst that carries it must be segmented with ECN in mind.
const CWR: u8 = 0x80;

/// Why a packet could not be given back.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("the parked frame can't be parsed: {0:?}")]
    Unparsed(headers::Unparsed),
    #[error("sending {len} bytes on interface {ifindex}: {source}")]
    Send { ifindex: u32, len: usize, source: io::Error },
}

/// The one packet socket whose cookie the door knows.
pub struct Replayer {
    socket: OwnedFd,
    cookie: u64,
}

impl Replayer {
    /// Opens the socket in the caller's network namespace.
    ///
    /// # Errors
    /// socket(2) and setsockopt(2); `EPERM` without CAP_NET_RAW.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor is ours alone.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let on: libc::c_int = 1;
        let mut cookie = 0u64;
        let mut len = size_of::<u64>() as libc::socklen_t;
        // SAFETY: both pointers are to live locals of the size that is said.
        unsafe {
            if libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_VNET_HDR,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            ) < 0
                || libc::getsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_COOKIE,
                    (&raw mut cookie).cast(),
                    &raw mut len,
                ) < 0
            {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self { socket, cookie })
    }

    /// What the door must know this socket by.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Sends a parked packet on the interface that it was taken from.
    ///
    /// # Errors
    /// The frame is no packet, or the interface is gone or full.
    pub fn replay(&self, parked: &mut Parked) -> Result<(), ReplayError> {
        let packet = headers::ethernet(&parked.frame.as_slice()).map_err(ReplayError::Unparsed)?;
        let header = vnet_header(&mut parked.frame, &packet, parked.gso_size);
        let ethertype = u16::from_be_bytes([parked.frame[12], parked.frame[13]]);
        self.send(&header, &parked.frame, parked.ifindex, ethertype).map_err(|source| ReplayError::Send {
            ifindex: parked.ifindex,
            len: parked.frame.len(),
            source,
        })
    }

    fn send(&self, header: &[u8; VNET_LEN], frame: &[u8], ifindex: u32, ethertype: u16) -> io::Result<()> {
        // SAFETY: an all-zero sockaddr_ll and msghdr are valid; every pointer is to a local or a borrow
        // that outlives the call.
        unsafe {
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_ifindex = ifindex as i32;
            address.sll_protocol = ethertype.to_be();
            let mut parts = [
                libc::iovec { iov_base: header.as_ptr().cast_mut().cast(), iov_len: header.len() },
                libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() },
            ];
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_name = (&raw mut address).cast();
            message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            message.msg_iov = parts.as_mut_ptr();
            message.msg_iovlen = parts.len();
            if libc::sendmsg(self.socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

/// The virtio header for a frame, whose checksum field is set to the pseudo-header sum that it asks for.
///
/// The frame may have been parked with a partial checksum (a local sender) or a full one (a real card); the
/// kernel computes it anew in either case. A first fragment goes back byte for byte: its checksum covers
/// the whole datagram. So does a UDP datagram without one (RFC 768).
fn vnet_header(frame: &mut [u8], packet: &Packet, gso_size: u32) -> [u8; VNET_LEN] {
    let mut header = [0; VNET_LEN];
    let transport = packet.transport as usize;
    let is_tcp = packet.protocol == TCP;
    let field = transport + if is_tcp { 16 } else { 6 };
    if packet.fragment != Fragment::Whole || frame.len() < field + 2 {
        return header;
    }
    // An IP header that claims less than its transport header needs: the server's kernel drops it as it came.
    if (packet.end as usize) < field + 2 {
        return header;
    }
    if !is_tcp && !packet.is_ipv6 && frame[field..field + 2] == [0, 0] {
        return header;
    }
    let sum = pseudo_header_sum(frame, packet);
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    header[0] = NEEDS_CSUM;
    header[6..8].copy_from_slice(&(transport as u16).to_ne_bytes());
    header[8..10].copy_from_slice(&((field - transport) as u16).to_ne_bytes());
    let header_len = if is_tcp { usize::from(frame[transport + 12] >> 4) * 4 } else { 8 };
    if gso_size != 0 && frame.len() > transport + header_len + gso_size as usize {
        header[1] = match (is_tcp, packet.is_ipv6) {
            (true, false) => GSO_TCPV4,
            (true, true) => GSO_TCPV6,
            (false, _) => GSO_UDP_L4,
        };
        if is_tcp && frame[transport + 13] & CWR != 0 {
            header[1] |= GSO_ECN;
        }
        header[2..4].copy_from_slice(&((transport + header_len) as u16).to_ne_bytes());
        header[4..6].copy_from_slice(&(gso_size as u16).to_ne_bytes());
    }
    header
}

/// The folded, not inverted sum over the pseudo header (RFC 9293 §3.1, RFC 8200 §8.1): what a partial
/// checksum holds.
fn pseudo_header_sum(frame: &[u8], packet: &Packet) -> u16 {
    let network = packet.network as usize;
    let addresses = if packet.is_ipv6 { network + 8..network + 40 } else { network + 12..network + 20 };
    let length = packet.end - packet.transport;
    let mut sum = u64::from(packet.protocol) + u64::from(length >> 16) + u64::from(length & 0xffff);
    for pair in frame[addresses].chunks_exact(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(fuzzing)]
pub fn fuzz(gso_size: u32, frame: &[u8]) {
    let mut frame = frame.to_vec();
    if let Ok(packet) = headers::ethernet(&frame.as_slice()) {
        let before = frame.len();
        vnet_header(&mut frame, &packet, gso_size);
        assert_eq!(frame.len(), before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp_frame(checksum: u16, flags: u16) -> Vec<u8> {
        let mut f = vec![0; 12];
        f.extend([8, 0, 0x45, 0, 0, 33, 0, 1]);
        f.extend(flags.to_be_bytes());
        f.extend([64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        f.extend([0x04, 0xd2, 0x63, 0xdd, 0, 13]);
        f.extend(checksum.to_be_bytes());
        f.extend(b"hello");
        f
    }

    fn parse(frame: &[u8]) -> Packet {
        headers::ethernet(&frame).unwrap()
    }

    #[test]
    fn a_datagram_asks_the_kernel_for_its_checksum() {
        let mut frame = udp_frame(0x1234, 0);
        let packet = parse(&frame);
        let header = vnet_header(&mut frame, &packet, 0);
        assert_eq!(header, [1, 0, 0, 0, 0, 0, 34, 0, 6, 0]);
        // 10.0.0.1 + 10.0.0.2 + 17 + 13
        assert_eq!(frame[40..42], (0x0a00u16 + 1 + 0x0a00 + 2 + 17 + 13).to_be_bytes());
    }

    #[test]
    fn a_datagram_without_checksum_and_a_first_fragment_go_back_byte_for_byte() {
        for mut frame in [udp_frame(0, 0), udp_frame(0x1234, 0x2000)] {
            let before = frame.clone();
            let packet = parse(&frame);
            assert_eq!(vnet_header(&mut frame, &packet, 0), [0; VNET_LEN]);
            assert_eq!(frame, before);
        }
    }

    #[test]
    fn a_length_that_lies_goes_back_byte_for_byte() {
        let mut frame = udp_frame(0x1234, 0);
        // The total length of the IP header: less than its own header and ports.
        frame[17] = 9;
        let before = frame.clone();
        let packet = parse(&frame);
        assert!(packet.end < packet.transport);
        assert_eq!(vnet_header(&mut frame, &packet, 0), [0; VNET_LEN]);
        assert_eq!(frame, before);
    }

    #[test]
    fn a_burst_is_segmented_again() {
        let mut f = vec![0; 12];
        f.extend([8, 0, 0x45, 0, 0x0b, 0xe0, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        f.extend([0x04, 0xd2, 0x63, 0xdd, 0, 0, 0, 1, 0, 0, 0, 2, 0x80, 0x90, 1, 0, 0, 0, 0, 0]);
        f.extend([1; 12]);
        f.resize(14 + 0x0be0, 7);
        let packet = parse(&f);
        let header = vnet_header(&mut f, &packet, 1448);
        assert_eq!(header[..2], [NEEDS_CSUM, GSO_TCPV4 | GSO_ECN]);
        assert_eq!(header[2..6], [66, 0, 0xa8, 0x05]);
    }
}
