//! Frames as they are, out of an interface and into the test: what no ordinary socket sends or shows.

use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;

/// An AF_PACKET socket on one interface (packet(7)).
pub struct PacketSocket {
    socket: OwnedFd,
    interface: i32,
}

/// A frame that passed, and the VLAN tag that the kernel keeps beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub frame: Vec<u8>,
    pub vlan: Option<u16>,
}

impl PacketSocket {
    /// # Errors
    /// Not root, or no such interface.
    pub fn open(netns: &Netns, interface: &str) -> Result<Self> {
        netns.run(|| {
            let interface = nix::net::if_::if_nametoindex(interface)
                .with_context(|| format!("no interface {interface}"))?
                .cast_signed();
            let all = (libc::ETH_P_ALL as u16).to_be();
            // SAFETY: no pointers; the descriptor is ours alone.
            let socket = unsafe {
                let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, all.into());
                ensure!(fd >= 0, "open a packet socket: {}", io::Error::last_os_error());
                OwnedFd::from_raw_fd(fd)
            };
            let on: libc::c_int = 1;
            // SAFETY: an all-zero sockaddr_ll is valid; both pointers are to locals of the size that is said.
            let done = unsafe {
                let mut address: libc::sockaddr_ll = std::mem::zeroed();
                address.sll_family = libc::AF_PACKET as u16;
                address.sll_protocol = all;
                address.sll_ifindex = interface;
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_PACKET,
                    libc::PACKET_AUXDATA,
                    (&raw const on).cast(),
                    size_of::<libc::c_int>() as u32,
                ) | libc::bind(
                    socket.as_raw_fd(),
                    (&raw const address).cast(),
                    size_of::<libc::sockaddr_ll>() as u32,
                )
            };
            ensure!(done == 0, "bind a packet socket: {}", io::Error::last_os_error());
            Ok(Self { socket, interface })
        })
    }

    /// Sends a whole frame out of the interface, through its TC egress as everything that goes there.
    ///
    /// # Errors
    /// sendto(2).
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: as above; the frame outlives the call.
        let sent = unsafe {
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = u16::from_ne_bytes([frame[12], frame[13]]);
            address.sll_ifindex = self.interface;
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        ensure!(sent as usize == frame.len(), "send {} bytes: {}", frame.len(), io::Error::last_os_error());
        Ok(())
    }

    /// The first frame that `wanted` takes, sent or received on the interface.
    ///
    /// # Errors
    /// None within the limit.
    pub fn wait_for(&self, limit: Duration, wanted: impl Fn(&Seen) -> bool) -> Result<Seen> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no such frame within {limit:?}");
            if !self.hears(left) {
                continue;
            }
            let seen = self.receive()?;
            if wanted(&seen) {
                return Ok(seen);
            }
        }
    }

    /// Forgets what it has heard.
    ///
    /// # Errors
    /// recvmsg(2).
    pub fn drain(&self) -> Result<()> {
        while self.hears(Duration::ZERO) {
            self.receive()?;
        }
        Ok(())
    }

    /// Sleeps until a frame is there, sent or received; whether one is.
    pub fn hears(&self, limit: Duration) -> bool {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, alive for the call.
        unsafe { libc::poll(&raw mut poll, 1, limit.as_millis() as i32) > 0 }
    }

    fn receive(&self) -> Result<Seen> {
        let mut frame = vec![0u8; 65_600];
        let mut control = [0u64; 16];
        let mut part = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
        let mut vlan = None;
        // SAFETY: an all-zero msghdr is valid; its pointers are to locals that outlive the call, of the sizes that are
        // said; the control buffer is aligned for cmsghdr and its messages are walked by the macros made for it.
        let len = unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control);
            let len = libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0);
            let mut head = libc::CMSG_FIRSTHDR(&raw const message);
            while !head.is_null() {
                if (*head).cmsg_level == libc::SOL_PACKET && (*head).cmsg_type == libc::PACKET_AUXDATA {
                    let aux = libc::CMSG_DATA(head).cast::<libc::tpacket_auxdata>().read_unaligned();
                    if aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                        vlan = Some(aux.tp_vlan_tci);
                    }
                }
                head = libc::CMSG_NXTHDR(&raw const message, head);
            }
            len
        };
        ensure!(len >= 0, "receive: {}", io::Error::last_os_error());
        frame.truncate(len as usize);
        Ok(Seen { frame, vlan })
    }
}

/// The link-layer address of an interface.
///
/// # Errors
/// No such interface.
pub fn mac(netns: &Netns, interface: &str) -> Result<[u8; 6]> {
    // sysfs shows the namespace that it was mounted in: iproute2 asks the kernel.
    let output = std::process::Command::new("ip")
        .args(["-n", netns.name(), "-j", "link", "show", interface])
        .output()
        .context("run ip")?;
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).context("ip -j link show")?;
    let text = links[0]["address"].as_str().with_context(|| format!("{interface} has no address"))?;
    let bytes: Vec<u8> =
        text.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().ok().context("an Ethernet address has six bytes")
}

/// A counter of /proc/net/snmp or /proc/net/netstat in a namespace, for instance `Tcp`, `OutRsts`.
///
/// # Errors
/// There is no such counter.
pub fn counter(netns: &Netns, group: &str, counter: &str) -> Result<u64> {
    let read = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    let text = netns.run(|| Ok::<_, io::Error>(read("snmp")? + &read("netstat")?))?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
    let (names, values) = (lines.next().context("no such group")?, lines.next().context("no values")?);
    let at = names.split(' ').position(|name| name == counter).context("no such counter")?;
    values.split(' ').nth(at).and_then(|value| value.parse().ok()).context("no number")
}
