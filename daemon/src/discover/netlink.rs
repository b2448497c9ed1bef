//! One blocking netlink socket: a request goes out, all messages of its answer come back as bytes. The
//! callers read only the attributes that they need, so a newer kernel's additions never break a reading.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;

/// An answer that takes longer is given up.
const DEADLINE: Duration = Duration::from_secs(5);
/// The kernel fills at most 32 KiB a message of a dump (`netlink_dump`, `max_recvmsg_len`).
const BUFFER: usize = 64 * 1024;
/// More messages than any node's namespace holds; a bound on memory, not a limit to tune.
const MESSAGES: usize = 1 << 18;
/// A dump that the kernel marks as interrupted (the list changed while it was read) is read again.
const ATTEMPTS: u32 = 8;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("cannot open a netlink socket ({protocol:?}): the daemon needs AF_NETLINK in its sandbox")]
    Open { protocol: SockProtocol, source: io::Error },
    #[error("cannot {doing} the kernel's netlink socket")]
    Io { doing: &'static str, source: io::Error },
    #[error("the kernel did not answer a netlink request within {} s", DEADLINE.as_secs())]
    Timeout,
    #[error("the kernel's list changed during each of {ATTEMPTS} readings; it will be read again later")]
    Interrupted,
    #[error("the kernel refused netlink request {kind}")]
    Refused { kind: u16, source: io::Error },
    #[error("the kernel's answer to netlink request {kind} is longer than {MESSAGES} messages")]
    TooMany { kind: u16 },
    #[error("the kernel's answer to netlink request {kind} can't be read: {why}")]
    Malformed { kind: u16, why: String },
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// One object.
    One,
    /// The whole list.
    Dump,
}

/// One message of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: u16,
    pub body: Vec<u8>,
}

/// A netlink socket; it speaks of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: SockProtocol) -> Result<Self, NetlinkError> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .map_err(|errno| NetlinkError::Open { protocol, source: errno.into() })?;
        Ok(Self::from(fd))
    }

    /// Sends one request and gives back the messages of its answer.
    pub fn request(&mut self, kind: u16, ask: Ask, body: &[u8]) -> Result<Vec<Message>, NetlinkError> {
        let deadline = Instant::now() + DEADLINE;
        for _ in 0..ATTEMPTS {
            self.send(kind, ask, body)?;
            if let Some(messages) = self.receive(kind, deadline)? {
                return Ok(messages);
            }
        }
        Err(NetlinkError::Interrupted)
    }

    fn send(&mut self, kind: u16, ask: Ask, body: &[u8]) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = vec![0; NETLINK_HEADER];
        packet.extend_from_slice(body);
        let length = packet.len() as u32;
        let mut header = NetlinkBuffer::new(&mut packet);
        header.set_length(length);
        header.set_message_type(kind);
        header.set_sequence_number(self.sequence);
        header.set_flags(
            NLM_F_REQUEST
                | match ask {
                    // The acknowledgement ends the answer, as DONE ends a dump.
                    Ask::One => NLM_F_ACK,
                    Ask::Dump => NLM_F_DUMP,
                },
        );
        sendto(self.fd.as_raw_fd(), &packet, &NetlinkAddr::new(0, 0), MsgFlags::empty())
            .map_err(|errno| NetlinkError::Io { doing: "write to", source: errno.into() })?;
        Ok(())
    }

    /// `None`: the dump was interrupted and must be repeated.
    fn receive(&mut self, request: u16, deadline: Instant) -> Result<Option<Vec<Message>>, NetlinkError> {
        let malformed = |why: String| NetlinkError::Malformed { kind: request, why };
        let mut messages = Vec::new();
        let mut interrupted = false;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = self.receive_some(&mut buffer, deadline)?;
            let mut rest = buffer
                .get(..length)
                .ok_or_else(|| malformed(format!("a message of {length} bytes was cut off")))?;
            while !rest.is_empty() {
                let message =
                    NetlinkBuffer::new_checked(rest).map_err(|error| malformed(error.to_string()))?;
                let (kind, length) = (message.message_type(), message.length() as usize);
                let body = rest
                    .get(NETLINK_HEADER..length)
                    .ok_or_else(|| malformed(format!("a message claims {length} bytes")))?;
                // An answer to a request that was given up earlier may still be in the queue.
                if message.sequence_number() == self.sequence {
                    interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                    match kind {
                        NLMSG_NOOP => {}
                        NLMSG_DONE | NLMSG_ERROR => {
                            // Both begin with an errno, 0 or negative; a DONE may be empty.
                            let errno =
                                body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code)).wrapping_neg();
                            return match errno {
                                0 if interrupted => Ok(None),
                                0 => Ok(Some(messages)),
                                _ => Err(NetlinkError::Refused {
                                    kind: request,
                                    source: io::Error::from_raw_os_error(errno),
                                }),
                            };
                        }
                        _ if messages.len() == MESSAGES => {
                            return Err(NetlinkError::TooMany { kind: request });
                        }
                        _ => messages.push(Message { kind, body: body.to_vec() }),
                    }
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    fn receive_some(&self, buffer: &mut [u8], deadline: Instant) -> Result<usize, NetlinkError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left < Duration::from_micros(1) {
                return Err(NetlinkError::Timeout);
            }
            let left = TimeVal::new(left.as_secs() as i64, i64::from(left.subsec_micros()));
            setsockopt(&self.fd, ReceiveTimeout, &left)
                .map_err(|errno| NetlinkError::Io { doing: "set a time-out on", source: errno.into() })?;
            // MSG_TRUNC gives the true length even where the buffer is too small.
            match recv(self.fd.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
                Ok(length) => return Ok(length),
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return Err(NetlinkError::Timeout),
                Err(errno) => return Err(NetlinkError::Io { doing: "read from", source: errno.into() }),
            }
        }
    }
}

/// A netlink socket that the helper opened in another namespace.
impl From<OwnedFd> for Netlink {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, sequence: 0 }
    }
}

/// `struct nlmsghdr`.
const NETLINK_HEADER: usize = size_of::<NetlinkHeader>();

#[cfg(test)]
mod tests {
    use nix::sys::socket::{send, socketpair};

    use super::*;

    const RTM_GETLINK: u16 = 18;

    #[test]
    fn a_dump_ends_and_lists_the_loopback_device() {
        let mut route = Netlink::open(SockProtocol::NetlinkRoute).unwrap();
        for _ in 0..2 {
            let links = route.request(RTM_GETLINK, Ask::Dump, &[0; 16]).unwrap();
            assert!(!links.is_empty());
        }
    }

    #[test]
    fn a_refusal_carries_the_errno() {
        let mut route = Netlink::open(SockProtocol::NetlinkRoute).unwrap();
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&0x7fff_fff0_u32.to_ne_bytes());
        let error = route.request(RTM_GETLINK, Ask::One, &body).unwrap_err();
        let NetlinkError::Refused { source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.raw_os_error(), Some(libc::ENODEV));
        // The socket stays usable.
        body[4..8].copy_from_slice(&1_u32.to_ne_bytes());
        assert_eq!(route.request(RTM_GETLINK, Ask::One, &body).unwrap().len(), 1);
    }
    /// A stand-in for the kernel: what is sent into the second end is what the socket receives.
    fn rigged() -> (Netlink, OwnedFd) {
        let (ours, kernel) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        (Netlink { fd: ours, sequence: 7 }, kernel)
    }

    fn packet(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; NETLINK_HEADER];
        packet.extend_from_slice(body);
        let length = packet.len() as u32;
        let mut header = NetlinkBuffer::new(&mut packet);
        header.set_length(length);
        header.set_message_type(kind);
        header.set_flags(flags);
        header.set_sequence_number(sequence);
        packet
    }

    fn receive(netlink: &mut Netlink, milliseconds: u64) -> Result<Option<Vec<Message>>, NetlinkError> {
        netlink.receive(RTM_GETLINK, Instant::now() + Duration::from_millis(milliseconds))
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (mut netlink, _kernel) = rigged();
        assert!(matches!(receive(&mut netlink, 20), Err(NetlinkError::Timeout)));
    }

    #[test]
    fn old_answers_are_skipped_and_interrupted_ones_repeated() {
        let (mut netlink, kernel) = rigged();
        let tell = |packet: &[u8]| send(kernel.as_raw_fd(), packet, MsgFlags::empty()).unwrap();
        tell(&packet(16, 0, 6, b"old."));
        tell(&packet(NLMSG_DONE, 0, 6, &[0; 4]));
        tell(&[packet(16, 0, 7, b"one."), packet(16, 0, 7, b"two.")].concat());
        tell(&packet(NLMSG_DONE, 0, 7, &[]));
        let messages = receive(&mut netlink, 1000).unwrap().unwrap();
        assert_eq!(
            messages.iter().map(|message| message.body.as_slice()).collect::<Vec<_>>(),
            [b"one.", b"two."]
        );
        tell(&packet(16, NLM_F_DUMP_INTR, 7, b"half"));
        tell(&packet(NLMSG_DONE, 0, 7, &[0; 4]));
        assert_eq!(receive(&mut netlink, 1000).unwrap(), None);
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(64))]
        #[test]
        fn no_answer_makes_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 1..80), length: u8) {
            let (mut netlink, kernel) = rigged();
            let mut bytes = bytes;
            // Often nearly right: a length that may or may not fit.
            bytes[0] = length;
            for byte in bytes.iter_mut().take(4).skip(1) {
                *byte = 0;
            }
            send(kernel.as_raw_fd(), &bytes, MsgFlags::empty()).unwrap();
            let _ = receive(&mut netlink, 1);
        }
    }
}
