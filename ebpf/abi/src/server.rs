//! What the door looks up and counts for a server and for its flows.

/// Who is knocked on: where the packet was seen, and the server's own port.
///
/// The scope stands for the address: two pods (or two namespaces of a box without Kubernetes) may share one,
/// two veths or two cgroups never share an id.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerKey {
    /// The ifindex of the host-side veth for the TC hooks, the id of the server's cgroup for `cgroup_skb`.
    pub scope: u64,
    /// The server's port, host byte order. This and the next are whole words, as the hash reads them: smaller
    /// stores that are read back as a word stall the CPU (no store forwarding), for every packet.
    pub port: u32,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u32,
}

impl ServerKey {
    pub const fn new(scope: u64, port: u16, protocol: u8) -> Self {
        Self { scope, port: port as u32, protocol: protocol as u32 }
    }
}

/// What a [`ServerKey`] leads to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerRef {
    /// The server's index in every array.
    pub slot: u32,
    /// The game protocol spoken on this port, a number of the packet crate's `Protocol`.
    pub game: u8,
    /// The bits of [`server_flag`].
    pub flags: u8,
    pub pad: [u8; 2],
}

/// The bits of [`ServerRef::flags`].
pub mod server_flag {
    /// Not a game's port: a test datagram of the daemon is counted and consumed here, nothing else.
    pub const PATH_PROBE: u8 = 1;
    /// Payload on a connection older than the doze wakes (an RCON link, by profile).
    pub const OLD_LINK_WAKES: u8 = 2;
    /// Seen by `cgroup_skb`: this road can signal, but never park.
    pub const SIGNAL_ONLY: u8 = 4;
    /// Only what came over the namespace's own `lo` counts: all else has passed a door already.
    pub const LOOPBACK_ONLY: u8 = 8;
}

/// What the door writes for a server, memory-mapped by the daemon and the guard. One per slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// `CLOCK_MONOTONIC` of the last packet of class player, nanoseconds; 0 = never.
    pub last_player_ns: u64,
    /// When somebody asked for this server while its gate was not open; 0 = nobody. The daemon clears it.
    pub wake_ns: u64,
    /// The class of that packet, a number of the packet crate's `Class`.
    pub wake_class: u64,
    /// When a query came while the gate was not open; 0 = none waits. The daemon clears it.
    pub query_ns: u64,
    /// Rises by one with every record; the order of a server's records.
    pub sequence: u64,
    /// Bytes of the server's records in the ring or in the daemon's queue; the daemon takes them back.
    pub parked_bytes: u64,
    /// Set by the daemon to the waking packet's time: the answer hook then writes `answer_ns` once.
    pub await_answer_ns: u64,
    /// When the server's first payload after `await_answer_ns` passed the door.
    pub answer_ns: u64,
    /// Test datagrams of the daemon that were counted on the path.
    pub path_probes: u64,
    pub pad: [u64; 7],
}

/// What the door counted for a server; one per slot and CPU, and one more for [`NO_SERVER`](crate::NO_SERVER).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub packets: u64,
    pub bytes: u64,
    /// Payload packets by class, while the gate was not open.
    pub player: u64,
    pub query: u64,
    pub probe: u64,
    pub noise: u64,
    pub undecided: u64,
    /// Records handed to the daemon.
    pub parked: u64,
    /// Packets that found no room (ring or quota): passed with the wake flag set.
    pub no_room: u64,
    /// Packets passed with the flag set because the heartbeat was stale.
    pub fail_open: u64,
    /// Noise that was consumed while the server slept.
    pub refused: u64,
    /// Packets that could not be parsed: passed. Counted for [`NO_SERVER`](crate::NO_SERVER).
    pub unparsed: u64,
    /// No count: the kernel's tick (`jiffies`) in which a player was last seen on this CPU. Until the next one
    /// no flow is looked up: the coarse clock would say the same time again.
    pub player_tick: u64,
}

/// One conversation with a server.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The client's address; an IPv4 address is mapped (`::ffff:a.b.c.d`).
    pub address: [u8; 16],
    pub slot: u32,
    /// The client's port, host byte order.
    pub port: u16,
    /// The server's port, host byte order.
    pub server_port: u16,
    pub protocol: u8,
    pub pad: [u8; 3],
}

/// What the door knows of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// `CLOCK_MONOTONIC` of the flow's first payload; 0 = none yet.
    pub first_ns: u64,
    /// Of its last packet that was looked at.
    pub last_ns: u64,
    /// TCP: the sequence number of the client's first payload byte.
    pub start: u32,
    /// UDP: datagrams seen; TCP: payload bytes held in the prefix window.
    pub seen: u32,
    /// A number of the packet crate's `Class`.
    pub class: u8,
    /// The bits of [`flow_flag`].
    pub flags: u8,
    /// TCP: payload bytes that the SYN carried (Fast Open); nearly always 0.
    pub with_syn: u16,
    pub pad: [u8; 4],
}

/// The bits of [`Flow::flags`].
pub mod flow_flag {
    /// The handshake was seen, so `start` is true and a verdict may be given.
    pub const FROM_START: u8 = 1;
    /// Established before the doze (listed by sock_diag): passes while the server sleeps.
    pub const OLDER_THAN_DOZE: u8 = 2;
}

const _: () = assert!(size_of::<ServerKey>() == 16);
const _: () = assert!(size_of::<ServerRef>() == 8);
const _: () = assert!(size_of::<ServerState>() == 128);
const _: () = assert!(size_of::<Counters>() == 104);
const _: () = assert!(size_of::<FlowKey>() == 28);
const _: () = assert!(size_of::<Flow>() == 32);
