//! What is shared about one server by those who put it to sleep and those who wake it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
        mpsc::{self, TryRecvError},
    },
    time::Duration,
};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc::UnboundedSender;

use super::{Back, Bringer, Queue, Report, Slots};
use crate::{
    act::{freezer::Freezer, throttle::CpuMax},
    discover::{
        netlink::{Netlink, NetlinkError},
        sockets::{self, Sockets},
    },
    door::{Arrays, Door, Knock, Record, RecordReader, Replayer},
    failpoint,
    limits::{DozeBy, FirstSpeaker},
    memory::Cancel,
    netns::NamespaceSockets,
    undo::{Seq, UndoLog},
};

/// What every server of the node shares.
pub struct Node {
    pub arrays: Arc<Arrays>,
    pub door: Mutex<Door>,
    pub replayer: Replayer,
    pub clerk: Clerk,
    pub(super) bringer: Bringer,
    pub slots: Slots,
    pub(super) reader: Mutex<RecordReader>,
    /// Servers that a player asked for, and when: the watch wakes them one after the other.
    pub(super) to_wake: Mutex<Vec<Knock>>,
    /// Gets the watch out of its poll(2).
    pub(super) kick: EventFd,
    pub(super) reports: UnboundedSender<Report>,
    /// By slot, what came for servers that an earlier daemon left asleep and that are not found again yet.
    pub(super) early: Mutex<BTreeMap<u32, VecDeque<Record>>>,
}

impl Node {
    /// # Errors
    /// The ring has another reader, or the kernel gives no descriptor.
    pub fn new(mut door: Door, replayer: Replayer, reports: UnboundedSender<Report>) -> anyhow::Result<Self> {
        let reader = Mutex::new(door.take_reader()?);
        Ok(Self {
            arrays: door.arrays(),
            door: Mutex::new(door),
            replayer,
            clerk: Clerk::start()?,
            bringer: Bringer::start(&reports)?,
            slots: Slots::default(),
            reader,
            to_wake: Mutex::default(),
            kick: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            reports,
            early: Mutex::default(),
        })
    }

    /// Puts a server on the list of those to be woken. Whoever is not the watch itself must [`Node::kick`] it.
    pub(super) fn enlist(&self, knock: Knock) {
        self.to_wake.lock().unwrap_or_else(PoisonError::into_inner).push(knock);
    }

    /// Makes the watch look at its list.
    pub(super) fn kick(&self) {
        let _ = self.kick.write(1);
    }

    /// The door, for routing and questions; never on the way of a packet.
    pub fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One server that may sleep.
pub struct Sleeper {
    pub slot: u32,
    pub name: Arc<str>,
    /// The server's TCP and UDP ports.
    pub ports: Vec<u16>,
    pub node: Arc<Node>,
    /// Settings that an operator may change while it runs.
    pub manners: RwLock<Manners>,
    pub(super) ways: Mutex<Ways>,
    /// A lock of its own: listing sockets takes milliseconds, and a wake must not find its lock taken.
    diag: Mutex<Netlink>,
    route: Mutex<Netlink>,
    pub(super) queue: Mutex<Queue>,
    /// Somebody wanted it awake and found the lock taken.
    pub(super) wanted: AtomicBool,
    /// It sleeps: the watch looks at its flags.
    pub(super) asleep: AtomicBool,
    /// Ends the page-out that is under way.
    deep: Mutex<Cancel>,
    /// What is to be brought back when it wakes.
    pub(super) back: Mutex<Option<Back>>,
    /// Held by whoever waits until it may run.
    pub(super) turn: Mutex<()>,
    /// The watch has a thread that waits.
    pub(super) waits: AtomicBool,
    pub replayed: AtomicU64,
    pub expired: AtomicU64,
    /// Knocks that were told to the agent and not heard yet.
    pub(super) unheard: AtomicU32,
    /// Knocks that were not told, since too many were unheard.
    pub untold: AtomicU64,
}

/// What the watch counts for a server, since it was found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Parked packets that were given to it.
    pub replayed: u64,
    /// Parked packets that came to nothing.
    pub expired: u64,
    /// Knocks of which the agent was not told, since too many came.
    pub untold: u64,
}

/// How a sleeping server is treated.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    pub first_speaker: FirstSpeaker,
    pub patience: Duration,
    pub query_thaw: Duration,
}

/// The handles that move a server; whoever holds the lock may use them.
pub struct Ways {
    pub freezer: Freezer,
    pub log: UndoLog,
    pub asleep: Option<Asleep>,
}

/// How a server sleeps.
#[derive(Debug)]
pub struct Asleep {
    pub by: DozeBy,
    /// What to put back into `cpu.max`.
    pub cpu_max: Option<CpuMax>,
    /// The undo entries that are done with once it is awake.
    pub undo: Vec<Seq>,
    /// Connections that stood before the doze and pass the door.
    pub older_connections: usize,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub since_ns: u64,
}

impl Sleeper {
    pub fn new(
        slot: u32,
        name: Arc<str>,
        ports: Vec<u16>,
        node: Arc<Node>,
        manners: Manners,
        ways: Ways,
        sockets: NamespaceSockets,
    ) -> Self {
        Self {
            slot,
            name,
            ports,
            node,
            manners: RwLock::new(manners),
            asleep: AtomicBool::new(ways.asleep.is_some()),
            ways: Mutex::new(ways),
            // Its other socket and the namespace's own descriptor are not needed any more: hundreds of servers
            // would hold thousands.
            diag: Mutex::new(sockets.diag),
            route: Mutex::new(sockets.route),
            queue: Mutex::default(),
            wanted: AtomicBool::new(false),
            deep: Mutex::default(),
            back: Mutex::default(),
            turn: Mutex::default(),
            waits: AtomicBool::new(false),
            replayed: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            unheard: AtomicU32::new(0),
            untold: AtomicU64::new(0),
        }
    }

    pub fn is_asleep(&self) -> bool {
        self.asleep.load(SeqCst)
    }

    /// Somebody is waiting who turned out to be a player: the watch wakes the server.
    pub fn want(&self, knock: Knock) {
        self.node.enlist(knock);
        self.node.kick();
    }

    /// A page-out begins; whoever wakes the server ends it by this.
    pub fn allow_deep(&self, cancel: Cancel) {
        // It may have been woken just before.
        if !self.is_asleep() {
            cancel.cancel();
        }
        *self.deep.lock().unwrap_or_else(PoisonError::into_inner) = cancel;
    }

    /// The page-out under way stops at its next step.
    pub fn stop_deep(&self) {
        self.deep.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }

    /// Gives the server back the limits that a page-out lifted, unless it sleeps again. Blocks.
    pub fn put_back_limits(&self) {
        let ways = self.ways();
        if ways.asleep.is_some() {
            return;
        }
        match ways.log.put_back_limits() {
            Err(error) => {
                tracing::warn!(server = %self.name, %error, "its limits stay lifted until `dormouse off`");
            }
            Ok(played) => {
                for (change, outcome) in played.changes {
                    if let Err(error) = outcome {
                        tracing::warn!(server = %self.name, %change, %error, "stays lifted until `dormouse off`");
                    }
                }
            }
        }
    }

    pub fn manners(&self) -> Manners {
        *self.manners.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// All sockets of the server's namespace, its neighbours' included. Blocks.
    ///
    /// # Errors
    /// The kernel's answer can't be had.
    pub fn list_sockets(&self) -> Result<Sockets, NetlinkError> {
        sockets::list(&mut self.diag.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks the routes' socket of the server's namespace. Blocks.
    ///
    /// # Errors
    /// As `ask` says.
    pub fn ask_routes<T>(
        &self,
        ask: impl FnOnce(&mut Netlink) -> Result<T, NetlinkError>,
    ) -> Result<T, NetlinkError> {
        ask(&mut self.route.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Closes the connections of clients who proved to be no players: a frozen server can't, and what they
    /// sent must not reach it when it runs again. Blocks.
    ///
    /// # Errors
    /// The sockets can't be listed.
    pub fn close_connections(&self, from: &BTreeSet<SocketAddr>) -> Result<(), NetlinkError> {
        let mut diag = self.diag.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in sockets::list(&mut diag)?.connections_on(&self.ports) {
            if from.contains(&connection.remote)
                && let Err(error) = sockets::close(&mut diag, connection)
            {
                tracing::debug!(server = %self.name, %error, "a stranger's connection stays");
            }
        }
        Ok(())
    }

    /// Exclusive use of the handles. A panic of an earlier holder does not lock players out.
    pub fn ways(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Sleeper::ways`], unless the server is being moved just now.
    pub fn try_ways(&self) -> Option<MutexGuard<'_, Ways>> {
        match self.ways.try_lock() {
            Ok(ways) => Some(ways),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// What became of its knocks and its parked packets.
    pub fn tally(&self) -> Tally {
        Tally {
            replayed: self.replayed.load(SeqCst),
            expired: self.expired.load(SeqCst),
            untold: self.untold.load(SeqCst),
        }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that ended without a replay.
    pub(super) fn ended(&self, records: u32) {
        for _ in 0..records {
            self.node.arrays.end_record(self.slot);
        }
        self.expired.fetch_add(u64::from(records), SeqCst);
    }
}

/// Marks undo entries as done, off the path of a wake: until then the log says "may be asleep", which is
/// only ever answered by a harmless second thaw.
#[derive(Clone)]
pub struct Clerk(mpsc::Sender<(UndoLog, Vec<Seq>)>);

/// How often the clerk looks. It looks by the clock and is not called: calling sets a thread going while the
/// woken server needs the CPU.
const CLERK_LOOKS_EVERY: Duration = Duration::from_millis(50);

fn shorten(log: &UndoLog, seqs: &[Seq]) {
    failpoint::at("clerk-begun");
    if let Err(error) = log.undone(seqs) {
        tracing::warn!(?error, "the undo log could not be shortened; it will be played back harmlessly");
    }
}

impl Clerk {
    /// Starts the clerk's thread.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start() -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<(UndoLog, Vec<Seq>)>();
        std::thread::Builder::new().name("dm-clerk".into()).spawn(move || {
            loop {
                match receiver.try_recv() {
                    Ok((log, seqs)) => shorten(&log, &seqs),
                    Err(TryRecvError::Empty) => std::thread::sleep(CLERK_LOOKS_EVERY),
                    Err(TryRecvError::Disconnected) => return,
                }
                failpoint::at("clerk-done");
            }
        })?;
        Ok(Self(sender))
    }

    pub fn done(&self, log: &UndoLog, seqs: Vec<Seq>) {
        // The clerk lives as long as the process.
        let _ = self.0.send((log.clone(), seqs));
    }
}
