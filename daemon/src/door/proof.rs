//! Proof that the door is on the server's path: a datagram of our own, sent the way every packet goes, must
//! be counted. Roads that miss the host's side of the veth exist (`bpf_redirect_peer`, a second card).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use dormouse_abi::server::{ServerKey, ServerRef, server_flag};
use dormouse_packet::headers::UDP;

use super::{Door, DoorError};
use crate::failpoint;

/// The discard port (RFC 863). The door consumes the datagram: no server ever sees it.
pub const PROBE_PORT: u16 = 9;
/// How long the datagram may take (design §3).
const WITHIN: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(50);
/// Between two looks at the counter: the door's lock is held meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(2);

impl Door {
    /// Sends test datagrams to `address` until one is counted at the door of `ifindex`.
    ///
    /// # Errors
    /// [`DoorError::NotOnPath`] when none was counted within a second.
    pub fn prove_path(&mut self, slot: u32, ifindex: u32, address: IpAddr) -> Result<(), DoorError> {
        let key = ServerKey::new(u64::from(ifindex), PROBE_PORT, UDP);
        let probe = ServerRef { slot, game: 0, flags: server_flag::PATH_PROBE, pad: [0; 2] };
        self.watch(key, probe)?;
        let outcome = self.send_until_counted(slot, address);
        failpoint::at("path-probed");
        self.unwatch(&key);
        match outcome {
            Ok(true) => Ok(()),
            Ok(false) => Err(DoorError::NotOnPath { address, ifindex, source: None }),
            Err(source) => Err(DoorError::NotOnPath { address, ifindex, source: Some(source) }),
        }
    }

    fn send_until_counted(&self, slot: u32, address: IpAddr) -> io::Result<bool> {
        let arrays = self.arrays();
        let counter = &arrays.state(slot).path_probes;
        let before = counter.load(SeqCst);
        let any: IpAddr =
            if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        let until = Instant::now() + WITHIN;
        let mut send_at = Instant::now();
        loop {
            if Instant::now() >= send_at {
                socket.send_to(b"dormouse path probe", SocketAddr::new(address, PROBE_PORT))?;
                send_at += EVERY;
            }
            std::thread::sleep(LOOK_EVERY);
            if counter.load(SeqCst) != before {
                return Ok(true);
            }
            if Instant::now() > until {
                return Ok(false);
            }
        }
    }
}
