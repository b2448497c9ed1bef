//! From a selector to a server that the door watches: its cgroup, its namespace, its roads, its ports. All of
//! it blocks; it runs on a thread of its own.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
};

use dormouse_abi::server::{ServerKey, ServerRef, server_flag};
use dormouse_packet::{
    Game,
    headers::{TCP, UDP},
};
use tokio::sync::Semaphore;

use crate::{
    act::{
        freezer::{FreezeError, Freezer},
        throttle,
    },
    discover::{
        self,
        link::{self, HostEnd, RoadError},
        mounts::{CgroupRoot, Controllers, MountError},
        netlink::NetlinkError,
        probers::tree_ids,
        process::{Held, ProcessError},
        resolve::{Found, ResolveError},
        selector::Selector,
        sockets,
    },
    door::{Attachment, DoorError},
    failpoint,
    limits::DozeBy,
    netns::{Helper, NamespaceSockets, NetnsError},
    sleep::{Asleep, Manners, Node, Sleeper, Ways},
    stage::Obstacle,
    undo::{Change, Outcome, UndoError, UndoLog},
};

/// What is known of a server before it is looked for.
pub struct Wanted {
    pub name: Arc<str>,
    pub slot: u32,
    pub selector: Selector,
    /// From the server's file or its profile; empty = whatever it listens on.
    pub ports: Vec<Port>,
    /// The protocol of ports that were found by looking.
    pub game: Option<Game>,
    pub manners: Manners,
    pub old_links_wake: bool,
    pub loopback_wakes: bool,
    /// An earlier daemon left it asleep; it sleeps on.
    pub adopt: bool,
}

/// A port and what is spoken on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub number: u16,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// A number of the packet crate's `Game`.
    pub game: u8,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", if self.protocol == UDP { "udp" } else { "tcp" }, self.number)
    }
}

/// A server that was found.
pub struct Brought {
    pub found: Found,
    /// Its main process.
    pub main: Held,
    /// The inode of its cgroup's directory, which no other cgroup has.
    pub cgroup_id: u64,
    pub controllers: Controllers,
    pub ports: Vec<Port>,
    pub sleeper: Arc<Sleeper>,
    pub attachments: Vec<Attachment>,
    pub host_ends: Vec<HostEnd>,
    pub pins: Vec<PathBuf>,
    pub keys: Vec<ServerKey>,
    /// Where the node reaches it.
    pub address: IpAddr,
    /// Why it may not sleep, for all that is watched.
    pub obstacle: Option<Obstacle>,
}

/// Where things are on this node.
pub struct Place {
    pub root: CgroupRoot,
    pub helper: Helper,
    pub run_dir: PathBuf,
    pub node: Arc<Node>,
    /// Errands that nobody waits for (finding a server, gathering evidence, putting it to sleep): hundreds of
    /// servers may need one at the same moment, and hundreds of threads would cost more than they bring.
    pub errands: Arc<Semaphore>,
}

/// How many errands run at once: each mostly waits for the kernel.
pub const ERRANDS: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum BringUpError {
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Road(#[from] RoadError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error(transparent)]
    Freezer(#[from] FreezeError),
    #[error(transparent)]
    Undo(#[from] UndoError),
    #[error(
        "its port {port} belongs to {other} already: give each server file its own `select` and `ports`; it stays \
         awake"
    )]
    ClaimedTwice { port: Port, other: String },
    #[error("it listens on no port yet")]
    NoPorts,
    #[error("reading {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
}

impl Place {
    /// Finds a server and puts the door in front of it.
    ///
    /// # Errors
    /// It is not there, or the kernel refuses something; the server is reachable as before, and awake if an
    /// earlier daemon had left it asleep.
    pub fn bring_up(&self, wanted: &Wanted) -> Result<Brought, BringUpError> {
        let (mut keys, mut attachments, mut pins) = (vec![], vec![], vec![]);
        let brought = self.hang(wanted, &mut keys, &mut attachments, &mut pins);
        if brought.is_err() {
            self.unhang(&keys, &attachments, &pins);
            self.let_run(&wanted.name, wanted.slot);
        }
        brought
    }

    /// Wakes by the undo log a server that nobody manages, and opens its gate.
    pub fn let_run(&self, name: &str, slot: u32) {
        self.node.give_up(slot);
        match UndoLog::of_server(&self.run_dir, name, slot).and_then(|log| log.wake()) {
            Err(error) => {
                tracing::error!(server = name, %error, "could not be woken; the guard and `off` will");
            }
            Ok(played) => {
                for (change, outcome) in played.changes {
                    match outcome {
                        Ok(outcome) => tracing::info!(server = name, %change, "{outcome}"),
                        Err(error) => {
                            tracing::error!(server = name, %change, %error, "could not be put back");
                        }
                    }
                }
            }
        }
    }

    fn hang(
        &self,
        wanted: &Wanted,
        brought_keys: &mut Vec<ServerKey>,
        attachments: &mut Vec<Attachment>,
        pins: &mut Vec<PathBuf>,
    ) -> Result<Brought, BringUpError> {
        let found = wanted.selector.resolve(&self.root)?;
        let main = Held::of(found.main)?;
        let controllers = Controllers::of(&found.cgroup)?;
        let mut sockets = discover::namespace_sockets(&found, &self.helper)?;
        let ports = ports(wanted, &found, &mut sockets)?;
        let mut host_ends = vec![];
        let mut obstacle = None;
        let mut address = IpAddr::from(Ipv4Addr::LOCALHOST);
        if found.host_network || wanted.loopback_wakes {
            let flag = if found.host_network { 0 } else { server_flag::LOOPBACK_ONLY };
            let pin = self.node.door().cgroup_pin(&found.cgroup)?;
            self.note(wanted, [Change::Pin { path: pin.clone() }])?;
            failpoint::at("cgroup-logged");
            pins.push(pin.clone());
            self.node.door().attach_cgroup(&found.cgroup, &pin)?;
            for scope in tree_ids(&found.cgroup)
                .map_err(|source| BringUpError::Read { path: found.cgroup.clone(), source })?
            {
                let flags = flag | server_flag::SIGNAL_ONLY;
                self.watch(wanted, &ports, scope, flags, brought_keys)?;
            }
        }
        if !found.host_network {
            let mut own = NamespaceSockets::own()?;
            match link::roads(&mut sockets, &mut own.route)?.all_through_doors() {
                // Nothing to stand in front of yet (or any more): looked for again until there is.
                Err(none @ RoadError::NoRoad) => return Err(none.into()),
                Err(missed) => {
                    obstacle = Some(Obstacle { code: "door-not-on-path", text: missed.to_string() });
                }
                Ok(veths) => {
                    for veth in veths {
                        let attachment = self.node.door().plan(veth.host_end.ifindex)?;
                        // The way back in the log is walked from its end: the qdisc goes after its filters.
                        self.note(wanted, attachment.changes().into_iter().rev())?;
                        failpoint::at("attach-logged");
                        let attached = self.node.door().attach(&attachment);
                        attachments.push(attachment);
                        attached?;
                        failpoint::at("attach-done");
                        let scope = u64::from(veth.host_end.ifindex);
                        self.watch(wanted, &ports, scope, 0, brought_keys)?;
                        match routable(&veth) {
                            Ok(routable) => {
                                address = routable;
                                obstacle = obstacle.or_else(|| self.prove(wanted, &veth, routable));
                            }
                            Err(none) => obstacle = Some(none),
                        }
                        host_ends.push(veth.host_end);
                    }
                }
            }
        }
        let log = UndoLog::of_server(&self.run_dir, &wanted.name, wanted.slot)?;
        let freezer = Freezer::open(&found.cgroup)?;
        let asleep = asleep_by_log(&log, &freezer)?;
        let sleeps_on = wanted.adopt && asleep.as_ref().is_some_and(|asleep| is_true(asleep, &freezer));
        let cgroup_id = freezer.inode();
        let ways = Ways { freezer, log, asleep };
        let numbers = ports.iter().map(|port| port.number).collect();
        let sleeper = Arc::new(Sleeper::new(
            wanted.slot,
            Arc::clone(&wanted.name),
            numbers,
            Arc::clone(&self.node),
            wanted.manners,
            ways,
            sockets,
        ));
        self.node.settle(&sleeper);
        failpoint::at("adopt-settled");
        if !sleeps_on {
            if let Err(error) = sleeper.wake_waiting() {
                tracing::warn!(server = %wanted.name, %error, "what an earlier daemon began could not be ended");
            }
            sleeper.put_back_limits();
        }
        failpoint::at("bring-up-done");
        Ok(Brought {
            found,
            main,
            cgroup_id,
            controllers,
            ports,
            sleeper,
            attachments: attachments.clone(),
            host_ends,
            pins: pins.clone(),
            keys: brought_keys.clone(),
            address,
            obstacle,
        })
    }

    /// Takes the door off a server that is gone or no longer wanted.
    pub fn take_down(&self, brought: &Brought) {
        self.unhang(&brought.keys, &brought.attachments, &brought.pins);
        self.node.slots.set(brought.sleeper.slot, None);
        failpoint::at("take-down-done");
        let log = &brought.sleeper.ways().log;
        if let Ok(contents) = log.contents() {
            let is_gone = |change: &Change| match change {
                Change::CgroupValue { .. } => false,
                // Of an earlier daemon's making, perhaps; it stays noted while others use it.
                Change::Clsact { .. } => {
                    matches!(change.put_back(), Ok(outcome) if outcome != Outcome::InUse)
                }
                _ => true,
            };
            let gone = contents
                .pending
                .iter()
                .filter(|entry| is_gone(&entry.change))
                .map(|entry| entry.seq)
                .collect::<Vec<_>>();
            self.node.clerk.done(log, gone);
        }
    }

    /// Forgets keys, and takes the door off where nobody else stands behind it: servers may share a veth.
    fn unhang(&self, keys: &[ServerKey], attachments: &[Attachment], pins: &[PathBuf]) {
        let mut door = self.node.door();
        for key in keys {
            door.unwatch(key);
        }
        failpoint::at("unhang-unwatched");
        let scopes: BTreeSet<u64> = door.watched().iter().map(|(key, _)| key.scope).collect();
        for attachment in attachments.iter().filter(|a| !scopes.contains(&u64::from(a.ifindex))) {
            if let Err(error) = door.detach(attachment) {
                tracing::warn!(%error, "the door could not be taken off; `dormouse off` will");
            }
        }
        if !keys.iter().any(|key| scopes.contains(&key.scope)) {
            for pin in pins {
                if let Err(error) = (Change::Pin { path: pin.clone() }).put_back() {
                    tracing::warn!(%error, "the door could not be taken off; `dormouse off` will");
                }
            }
        }
        failpoint::at("unhang-detached");
    }

    fn watch(
        &self,
        wanted: &Wanted,
        ports: &[Port],
        scope: u64,
        flags: u8,
        keys: &mut Vec<ServerKey>,
    ) -> Result<(), BringUpError> {
        let flags = flags | if wanted.old_links_wake { server_flag::OLD_LINK_WAKES } else { 0 };
        for port in ports {
            let key = ServerKey::new(scope, port.number, port.protocol);
            let server = ServerRef { slot: wanted.slot, game: port.game, flags, pad: [0; 2] };
            let mut door = self.node.door();
            if let Some(other) = door.server_at(&key).filter(|other| other.slot != wanted.slot) {
                let name = self.node.slots.get(other.slot);
                return Err(BringUpError::ClaimedTwice {
                    port: *port,
                    other: name.map_or_else(|| "another server".to_owned(), |other| other.name.to_string()),
                });
            }
            door.watch(key, server)?;
            keys.push(key);
            failpoint::at("watched");
        }
        Ok(())
    }

    /// A test datagram to the server's address must be counted.
    fn prove(&self, wanted: &Wanted, veth: &link::Veth, address: IpAddr) -> Option<Obstacle> {
        let proof = self.node.door().prove_path(wanted.slot, veth.host_end.ifindex, address);
        proof.err().map(|error| Obstacle { code: "door-not-on-path", text: error.to_string() })
    }

    /// Links, filters and qdiscs are changes like any other: `off` must find them, whoever dies meanwhile.
    fn note(&self, wanted: &Wanted, changes: impl IntoIterator<Item = Change>) -> Result<(), UndoError> {
        let log = UndoLog::of_server(&self.run_dir, &wanted.name, wanted.slot)?;
        let known = log.contents()?.pending;
        for change in changes {
            if !known.iter().any(|entry| entry.change == change) {
                log.before(change)?;
            }
        }
        Ok(())
    }
}

/// An address of the server's that the node can send to.
fn routable(veth: &link::Veth) -> Result<IpAddr, Obstacle> {
    let routable = |address: &&IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    };
    veth.addresses.iter().find(routable).copied().ok_or_else(|| Obstacle {
        code: "door-not-on-path",
        text: format!("{} has no address that packets could be sent to", veth.inside.name),
    })
}

/// The operator's ports, else whatever it listens on towards the outside.
fn ports(wanted: &Wanted, found: &Found, sockets: &mut NamespaceSockets) -> Result<Vec<Port>, BringUpError> {
    if !wanted.ports.is_empty() {
        return Ok(wanted.ports.clone());
    }
    let all = sockets::list(&mut sockets.diag)?.owned_by(&sockets::inodes(&found.pids)?);
    let outside = |address: &std::net::SocketAddr| !address.ip().is_loopback();
    let tcp = all.listeners.iter().filter(|l| outside(&l.local)).map(|l| (l.local.port(), TCP));
    let udp =
        all.udp.iter().filter(|u| outside(&u.local) && u.remote.is_none()).map(|u| (u.local.port(), UDP));
    let mut ports: Vec<Port> = tcp
        .chain(udp)
        .map(|(number, protocol)| Port { number, protocol, game: game_on(wanted.game, protocol) })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    if ports.is_empty() { Err(BringUpError::NoPorts) } else { Ok(ports) }
}

/// The number of the protocol on a port of this transport.
pub fn game_on(game: Option<Game>, protocol: u8) -> u8 {
    let generic = if protocol == UDP { Game::GenericUdp } else { Game::GenericTcp };
    let speaks = |game: &Game| match game {
        Game::GenericTcp | Game::MinecraftJava => protocol == TCP,
        Game::GenericUdp | Game::Luanti | Game::Teeworlds => protocol == UDP,
    };
    game.filter(speaks).unwrap_or(generic) as u8
}

/// Whether an earlier daemon left it asleep, by the undo log: the log is written before the freeze. What the log
/// says of a cgroup that is gone ends here.
fn asleep_by_log(log: &UndoLog, freezer: &Freezer) -> Result<Option<Asleep>, UndoError> {
    let mut asleep: Option<Asleep> = None;
    let mut gone = vec![];
    for entry in log.contents()?.pending {
        let Change::CgroupValue { cgroup, inode, file, old, .. } = &entry.change else { continue };
        if cgroup == freezer.cgroup() && *inode != freezer.inode() || !cgroup.exists() {
            gone.push(entry.seq);
            continue;
        }
        let (by, cpu_max) = match file.as_str() {
            "cgroup.freeze" => (DozeBy::Freeze, None),
            "cpu.max" => (DozeBy::Throttle, old.parse().ok()),
            _ => continue,
        };
        let sleep = asleep.get_or_insert(Asleep {
            by,
            cpu_max,
            undo: vec![],
            older_connections: 0,
            since_ns: crate::door::monotonic_ns(),
        });
        sleep.undo.push(entry.seq);
    }
    if !gone.is_empty() {
        log.undone(&gone)?;
    }
    Ok(asleep)
}

/// Whether the cgroup is as the log says: the guard may have woken it, or the freeze was never made.
fn is_true(asleep: &Asleep, freezer: &Freezer) -> bool {
    match (asleep.by, asleep.cpu_max) {
        (DozeBy::Throttle, Some(old)) => throttle::read(freezer.cgroup()).is_ok_and(|now| now != old),
        (DozeBy::Throttle, None) => false,
        (DozeBy::Freeze, _) => freezer.state().is_ok_and(|state| state.set),
    }
}
