//! What the daemon and `dormouse-netns` say to each other, over the SOCK_SEQPACKET socket that is the helper's
//! standard input.
//!
//! A request is one byte, what is wanted, with one descriptor: the network namespace, opened by the daemon. So
//! no process number can mean another process by the time the helper looks. The answer is `DONE` with the
//! descriptors, or `FAILED` and a sentence of at most [`REASON_MAX`] bytes.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Request: a sock_diag and a route netlink socket, in this order.
pub const SOCKETS: u8 = 1;

pub const DONE: u8 = 0;
pub const FAILED: u8 = 1;

/// Bytes of a reason.
pub const REASON_MAX: usize = 255;

/// Sends one message with descriptors.
pub fn send(socket: &impl AsFd, text: &[u8], descriptors: &[BorrowedFd]) -> io::Result<()> {
    let descriptors: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &[] } else { rights.as_slice() };
    let slices = [IoSlice::new(text)];
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// One message and the descriptors that came with it; 0 bytes when the other side has closed.
pub fn receive(socket: &impl AsFd, text: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([i32; 4]);
    let mut slices = [IoSliceMut::new(text)];
    let message = loop {
        match recvmsg::<()>(
            socket.as_fd().as_raw_fd(),
            &mut slices,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Err(nix::errno::Errno::EINTR) => {}
            received => break received?,
        }
    };
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            descriptors.extend(received.into_iter().map(|fd| {
                // SAFETY: the kernel has just installed this descriptor for us by SCM_RIGHTS; nobody else in
                // this process knows its number, so we are its only owner.
                unsafe { OwnedFd::from_raw_fd(fd) }
            }));
        }
    }
    Ok((message.bytes, descriptors))
}
