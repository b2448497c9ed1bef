//! Giving a parked packet to the server as if it had just arrived: AF_PACKET on the same veth, with a
//! virtio header that restores the segmentation and leaves the checksum to the kernel.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use dormouse_packet::headers;

use super::{
    Parked,
    vnet::{self, Outgoing, VNET_LEN},
};

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
        for Outgoing { header, frame } in vnet::prepare(parked).map_err(ReplayError::Unparsed)? {
            self.send(&header, &frame, parked.ifindex).map_err(|source| ReplayError::Send {
                ifindex: parked.ifindex,
                len: frame.len(),
                source,
            })?;
        }
        Ok(())
    }

    fn send(&self, header: &[u8; VNET_LEN], frame: &[u8], ifindex: u32) -> io::Result<()> {
        // SAFETY: an all-zero sockaddr_ll and msghdr are valid; every pointer is to a local or a borrow
        // that outlives the call.
        unsafe {
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_ifindex = ifindex as i32;
            // The EtherType as it stands in the frame; a frame that was parsed is longer than its link header.
            address.sll_protocol = u16::from_ne_bytes([frame[12], frame[13]]);
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
