//! Into the doze: gate = signal → a grace period → freeze, wait → look again, abort on anything → gate =
//! park. A login between any two steps is seen by the flag, the sockets, or the gate.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::Ordering::SeqCst,
    time::Duration,
};

use dormouse_abi::{
    gate::{OPEN, PARK, SIGNAL},
    server::{Flow, FlowKey, flow_flag},
};
use dormouse_packet::{Class, headers::TCP, window::WINDOW};

use super::{Asleep, Sleeper, Ways};
use crate::{
    act::{
        freezer::{DEFAULT_TIMEOUT, FreezeError},
        throttle::{self, ThrottleError},
    },
    discover::{netlink::NetlinkError, sockets::Connection},
    door::monotonic_ns,
    failpoint,
    limits::DozeBy,
    undo::{Change, UndoError},
};

/// How far behind the clock the door's time of the last player may be, nanoseconds: a tick of the coarse clock
/// (10 ms where HZ is 100) and the door's own millisecond.
const COARSE_NS: u64 = 11_000_000;

/// Who said something within this time talks (the door's own `FORGET_NS` is as long).
const TALKS: Duration = Duration::from_mins(1);

/// A server fell asleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dozed {
    pub by: DozeBy,
    /// Connections that stood before and stay.
    pub older_connections: usize,
}

/// Why a doze was called off; the server is awake and its gate open.
#[derive(Debug, thiserror::Error)]
pub enum DozeAborted {
    #[error("a player knocked while it fell asleep")]
    Knocked,
    #[error(
        "{remote} talks to it on a connection that the door does not know (any more): it was made before the door, or \
         a flood of others made the door forget it"
    )]
    Unknown { remote: SocketAddr },
    #[error("{what} waits in its sockets")]
    Waiting { what: String },
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    #[error(transparent)]
    Throttle(#[from] ThrottleError),
    #[error("the undo log can't be written, so nothing is changed: {0}")]
    Undo(#[from] UndoError),
    #[error("its sockets can't be listed: {0}")]
    Sockets(#[from] NetlinkError),
    #[error("it sleeps already")]
    Asleep,
}

impl Sleeper {
    /// Puts the server to doze. `decided_ns` (`CLOCK_MONOTONIC`) is when that was decided: a player seen
    /// later calls it off.
    ///
    /// # Errors
    /// [`DozeAborted`]; the server is awake again.
    pub fn doze(&self, by: DozeBy, throttle_percent: u32, decided_ns: u64) -> Result<Dozed, DozeAborted> {
        let mut ways = self.ways();
        if ways.asleep.is_some() {
            return Err(DozeAborted::Asleep);
        }
        self.ask_for_unknown()?;
        let arrays = &self.node.arrays;
        let state = arrays.state(self.slot);
        state.wake_ns.store(0, SeqCst);
        state.query_ns.store(0, SeqCst);
        self.wanted.store(false, SeqCst);
        failpoint::at("doze-begun");
        arrays.set_gate(self.slot, SIGNAL);
        failpoint::at("doze-signal");
        grace_period();
        let slept = match by {
            DozeBy::Freeze => self.freeze(&mut ways, decided_ns),
            DozeBy::Throttle => slow_down(&mut ways, throttle_percent),
        };
        match slept {
            Ok(asleep) => {
                let older_connections = asleep.older_connections;
                ways.asleep = Some(asleep);
                failpoint::at("doze-looked");
                // A throttled server runs: its packets pass, and a player's sets the flag.
                if by == DozeBy::Freeze {
                    arrays.set_gate(self.slot, PARK);
                }
                failpoint::at("doze-parked");
                self.asleep.store(true, SeqCst);
                // Who wanted it awake meanwhile left a note.
                if self.wanted.swap(false, SeqCst) {
                    let _ = self.wake_holding(&mut ways, None);
                    return Err(DozeAborted::Knocked);
                }
                Ok(Dozed { by, older_connections })
            }
            Err(aborted) => {
                arrays.set_gate(self.slot, OPEN);
                Err(aborted)
            }
        }
    }

    /// The door remembers a bounded number of conversations, and a flood of strangers makes it forget the
    /// players': what it can't judge any more, the connection's own kernel knows. Who talks there and is not known
    /// to be something else is a player.
    fn ask_for_unknown(&self) -> Result<(), DozeAborted> {
        let sockets = self.list_sockets()?;
        let door = self.node.door();
        let unknown =
            sockets.connections_on(&self.ports).filter(|one| !one.closed_by_remote).find_map(|one| {
                let heard = one.heard.filter(|heard| heard.bytes > 0 && heard.silent < TALKS)?;
                let known = door.flow(&self.flow_key(one)).is_some_and(|flow| {
                    let judged = flow.flags & flow_flag::FROM_START != 0 && heard.bytes <= WINDOW as u64;
                    flow.class != Class::Undecided as u8 || judged
                });
                (!known).then_some((one.remote, heard.silent))
            });
        let Some((remote, silent)) = unknown else { return Ok(()) };
        let then = monotonic_ns().saturating_sub(silent.as_nanos() as u64);
        self.node.arrays.state(self.slot).last_player_ns.fetch_max(then, SeqCst);
        Err(DozeAborted::Unknown { remote })
    }

    fn flow_key(&self, connection: &Connection) -> FlowKey {
        FlowKey {
            address: mapped(connection.remote.ip()),
            slot: self.slot,
            port: connection.remote.port(),
            server_port: connection.local.port(),
            protocol: TCP,
            pad: [0; 3],
        }
    }

    /// Steps 3 and 4; on an error the server runs again.
    fn freeze(&self, ways: &mut Ways, decided_ns: u64) -> Result<Asleep, DozeAborted> {
        let change = Change::cgroup_value(ways.freezer.cgroup(), "cgroup.freeze", "1")?;
        let seq = ways.log.before(change)?;
        failpoint::at("doze-logged");
        let looked = ways.freezer.freeze(DEFAULT_TIMEOUT).map_err(DozeAborted::from).and_then(|()| {
            failpoint::at("doze-frozen");
            let older_connections = self.look_again(decided_ns)?;
            Ok(Asleep {
                by: DozeBy::Freeze,
                cpu_max: None,
                undo: vec![seq],
                older_connections,
                since_ns: monotonic_ns(),
            })
        });
        if looked.is_err() {
            // A vanished cgroup needs no thaw; any other failure is the guard's and `off`'s, by the log.
            if ways.freezer.thaw().is_ok() {
                failpoint::at("doze-off-thawed");
                self.node.clerk.done(&ways.log, vec![seq]);
            }
        }
        looked
    }

    /// What came between the decision and the freeze. The connections that stood before are marked: they
    /// pass the door as long as they live (a new handshake on the same ports takes the mark away). Not those
    /// whose start the door saw and who are no player yet: it goes on judging them, else a scanner or a
    /// pinger who connected before a (short) thaw ended would wake with his next byte. Gives back how many
    /// connections there are.
    pub(super) fn look_again(&self, decided_ns: u64) -> Result<usize, DozeAborted> {
        let state = self.node.arrays.state(self.slot);
        let last_player_ns = state.last_player_ns.load(SeqCst);
        if state.wake_ns.load(SeqCst) != 0 || last_player_ns > decided_ns.saturating_sub(COARSE_NS) {
            return Err(DozeAborted::Knocked);
        }
        let sockets = self.list_sockets()?;
        let waiting = |what: String| Err(DozeAborted::Waiting { what });
        for listener in sockets.listeners_on(&self.ports) {
            if listener.accept_queue != 0 {
                return waiting(format!("a new connection to {}", listener.local));
            }
        }
        for udp in sockets.udp.iter().filter(|udp| self.ports.contains(&udp.local.port())) {
            if udp.unread != 0 {
                return waiting(format!("a datagram to {}", udp.local));
            }
        }
        let mut older = vec![];
        for connection in sockets.connections_on(&self.ports) {
            if connection.unread != 0 && !connection.closed_by_remote {
                return waiting(format!("data from {}", connection.remote));
            }
            older.push(self.flow_key(connection));
        }
        let mut door = self.node.door();
        let judged =
            |flow: &Flow| flow.flags & flow_flag::FROM_START != 0 && flow.class != Class::Player as u8;
        for key in &older {
            if door.flow(key).is_some_and(|flow| judged(&flow)) {
                continue;
            }
            if let Err(error) = door.mark_older(key) {
                tracing::warn!(server = %self.name, %error, "an open connection could not be marked");
            }
        }
        Ok(older.len())
    }
}

fn slow_down(ways: &mut Ways, percent: u32) -> Result<Asleep, DozeAborted> {
    let cgroup = ways.freezer.cgroup();
    let old = throttle::read(cgroup)?;
    let new = old.throttled(percent);
    let seq = ways.log.before(Change::cgroup_value(cgroup, "cpu.max", new.to_string())?)?;
    failpoint::at("throttle-logged");
    throttle::write(cgroup, new)?;
    failpoint::at("throttle-written");
    Ok(Asleep {
        by: DozeBy::Throttle,
        cpu_max: Some(old),
        undo: vec![seq],
        older_connections: 0,
        since_ns: monotonic_ns(),
    })
}

pub(super) fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Waits until every program that may have read the old gate has ended: `MEMBARRIER_CMD_GLOBAL` is
/// `synchronize_rcu()` (kernel/sched/membarrier.c, since Linux 4.3).
pub(super) fn grace_period() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: no pointers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done != 0 {
        // Refused with nohz_full CPUs. A TC program runs for microseconds with interrupts' bottom half off.
        tracing::debug!(error = %io::Error::last_os_error(), "membarrier is refused, waiting instead");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
