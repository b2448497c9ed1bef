//! The BPF object: loaded, its maps pinned or adopted, its programs ready to be attached.

use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{CgroupSkb, ProgramError, SchedClassifier},
    util::KernelVersion,
};
use dormouse_abi::{
    NO_SERVER, node,
    server::{Counters, Flow, FlowKey, ServerKey, ServerRef, flow_flag},
};

use nix::sys::statfs::{FsType, statfs};

use super::{Arrays, RecordReader, monotonic_ns};

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("DORMOUSE_BPF_OBJECT_FILE"));

/// The way to hang a program on a veth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcHook {
    /// Linux 6.6 and later.
    Tcx,
    Clsact,
}

/// What can go wrong between the daemon and the door.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error(
        "the BPF file system can't be used at {path}: {source}; mount it with `mount -t bpf bpf /sys/fs/bpf`"
    )]
    Pins { path: PathBuf, source: io::Error },
    #[error(
        "the kernel refused the BPF object: {0}; dormouse needs Linux 6.1 or later, CAP_BPF and CAP_NET_ADMIN"
    )]
    Load(#[source] Box<aya::EbpfError>),
    #[error(
        "the kernel refused the program {name}: {source}; dormouse needs Linux 6.1 or later, CAP_BPF, CAP_PERFMON and \
         CAP_NET_ADMIN"
    )]
    Program { name: String, source: Box<ProgramError> },
    #[error("map {name}: {source}")]
    Map { name: &'static str, source: Box<MapError> },
    #[error("mapping the door's arrays: {0}")]
    Mmap(#[source] nix::Error),
    #[error("interface {ifindex} is gone: {source}")]
    Interface { ifindex: u32, source: io::Error },
    #[error("attaching the door to {interface}: {source}")]
    Attach { interface: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("attaching the door to the cgroup {path}: {source}")]
    Cgroup { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error(
        "DoorNotOnPath: packets to {address} do not cross interface {ifindex}, so the server can't be woken by them{}",
        source.as_ref().map(|e| format!(" ({e})")).unwrap_or_default()
    )]
    NotOnPath { address: IpAddr, ifindex: u32, source: Option<io::Error> },
}

/// The loaded door.
pub struct Door {
    ebpf: Ebpf,
    hook: TcHook,
    dir: PathBuf,
    arrays: Arc<Arrays>,
    servers: HashMap<MapData, ServerKey, ServerRef>,
    flows: HashMap<MapData, FlowKey, Flow>,
    counters: PerCpuArray<MapData, Counters>,
    probers: HashMap<MapData, u64, u64>,
    /// Every map by its name, to pin it anew.
    maps: Vec<(String, MapData)>,
}

impl Door {
    /// Loads the object and adopts what an earlier daemon pinned below `pin_dir`.
    ///
    /// # Errors
    /// bpffs, the verifier, or a map.
    pub fn load(pin_dir: &Path) -> Result<Self, DoorError> {
        let hook = if KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0)) {
            TcHook::Tcx
        } else {
            TcHook::Clsact
        };
        Self::load_with(pin_dir, hook)
    }

    /// [`Door::load`] with the hook chosen by the caller: clsact works on every kernel.
    ///
    /// # Errors
    /// As [`Door::load`].
    pub fn load_with(pin_dir: &Path, hook: TcHook) -> Result<Self, DoorError> {
        let dir = pin_dir.join(super::layout::name());
        is_bpffs(pin_dir).map_err(|source| DoorError::Pins { path: dir.clone(), source })?;
        fs::create_dir_all(&dir).map_err(|source| DoorError::Pins { path: dir.clone(), source })?;
        let mut ebpf = EbpfLoader::new()
            .default_map_pin_directory(&dir)
            .load(OBJECT)
            .map_err(|error| DoorError::Load(Box::new(error)))?;
        let arrays = Arrays::new(
            array(&ebpf, "NODE")?,
            array(&ebpf, "GATES")?,
            array(&ebpf, "STATES")?,
            array(&ebpf, "QUOTAS")?,
        )
        .map_err(DoorError::Mmap)?;
        let maps = handles(&ebpf, &dir)?;
        let servers = typed(&mut ebpf, "SERVERS")?;
        let flows = typed(&mut ebpf, "FLOWS")?;
        let counters = typed(&mut ebpf, "COUNTERS")?;
        let probers = typed(&mut ebpf, "PROBERS")?;
        let mut door =
            Self { ebpf, hook, dir, arrays: Arc::new(arrays), servers, flows, counters, probers, maps };
        for name in ["door", "answer"] {
            let program = door.program(name)?;
            program
                .load()
                .map_err(|source| DoorError::Program { name: name.to_owned(), source: Box::new(source) })?;
        }
        Ok(door)
    }

    pub fn hook(&self) -> TcHook {
        self.hook
    }

    pub fn arrays(&self) -> Arc<Arrays> {
        Arc::clone(&self.arrays)
    }

    /// Pins the maps where they are not pinned any more: `off` took the pins, and it is over.
    ///
    /// # Errors
    /// bpffs.
    pub fn pin_maps(&self) -> Result<(), DoorError> {
        let failed = |source| DoorError::Pins { path: self.dir.clone(), source };
        fs::create_dir_all(&self.dir).map_err(failed)?;
        for (name, map) in &self.maps {
            let pin = self.dir.join(name);
            if !pin.exists() {
                map.pin(&pin).map_err(|error| failed(io::Error::other(error)))?;
            }
        }
        Ok(())
    }

    pub(super) fn links_dir(&self) -> PathBuf {
        self.dir.join("links")
    }

    /// One of our TC programs, by its side: `door` (the one of this kernel's hook), `answer`, `empty`.
    ///
    /// # Errors
    /// [`DoorError::Program`] when the object holds no such program.
    pub fn program(&mut self, side: &str) -> Result<&mut SchedClassifier, DoorError> {
        let name = match (side, self.hook) {
            ("door", TcHook::Tcx) => "door_tcx",
            ("door", TcHook::Clsact) => "door_clsact",
            (other, _) => other,
        };
        let missing = || DoorError::Program {
            name: name.to_owned(),
            source: Box::new(ProgramError::UnexpectedProgramType),
        };
        self.ebpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or_else(missing)
    }

    /// The program for roads that cross no veth.
    pub(super) fn loopback_program(&mut self) -> Result<&mut CgroupSkb, DoorError> {
        let failed = |source| DoorError::Program { name: "loopback".to_owned(), source: Box::new(source) };
        let program = self.ebpf.program_mut("loopback").ok_or(failed(ProgramError::UnexpectedProgramType))?;
        let program: &mut CgroupSkb = program.try_into().map_err(failed)?;
        if program.fd().is_err() {
            program.load().map_err(failed)?;
        }
        Ok(program)
    }

    /// Routes a (scope, port, protocol) to a server.
    ///
    /// # Errors
    /// The map is full.
    pub fn watch(&mut self, key: ServerKey, server: ServerRef) -> Result<(), DoorError> {
        self.servers
            .insert(key, server, 0)
            .map_err(|source| DoorError::Map { name: "SERVERS", source: Box::new(source) })
    }

    /// Forgets a (scope, port, protocol); one that is not there is fine.
    pub fn unwatch(&mut self, key: &ServerKey) {
        let _ = self.servers.remove(key);
    }

    /// Whom a (scope, port, protocol) is routed to.
    pub fn server_at(&self, key: &ServerKey) -> Option<ServerRef> {
        self.servers.get(key, 0).ok()
    }

    /// Every (scope, port, protocol) that is routed now.
    pub fn watched(&self) -> Vec<(ServerKey, ServerRef)> {
        self.servers.iter().filter_map(Result::ok).collect()
    }

    /// Marks a connection as older than the doze.
    ///
    /// # Errors
    /// The map is full.
    pub fn mark_older(&mut self, key: &FlowKey) -> Result<(), DoorError> {
        let now = monotonic_ns();
        let mut flow = self.flows.get(key, 0).unwrap_or(Flow {
            first_ns: now,
            last_ns: now,
            start: 0,
            seen: 0,
            class: 0,
            flags: 0,
            with_syn: 0,
            pad: [0; 4],
        });
        flow.flags |= flow_flag::OLDER_THAN_DOZE;
        self.flows
            .insert(key, flow, 0)
            .map_err(|source| DoorError::Map { name: "FLOWS", source: Box::new(source) })
    }

    /// Every flow that is remembered. Walks the whole map: for a question of an operator, not for a tick.
    pub fn flows(&self) -> impl Iterator<Item = (FlowKey, Flow)> + '_ {
        self.flows.iter().filter_map(Result::ok)
    }

    /// A remembered flow.
    pub fn flow(&self, key: &FlowKey) -> Option<Flow> {
        self.flows.get(key, 0).ok()
    }

    /// What was counted for a server, over all CPUs.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn counters(&self, slot: u32) -> Result<Counters, DoorError> {
        let values = self
            .counters
            .get(&slot, 0)
            .map_err(|source| DoorError::Map { name: "COUNTERS", source: Box::new(source) })?;
        Ok(values.iter().fold(Counters::default(), |sum, one| Counters {
            packets: sum.packets + one.packets,
            bytes: sum.bytes + one.bytes,
            player: sum.player + one.player,
            query: sum.query + one.query,
            probe: sum.probe + one.probe,
            noise: sum.noise + one.noise,
            undecided: sum.undecided + one.undecided,
            parked: sum.parked + one.parked,
            no_room: sum.no_room + one.no_room,
            fail_open: sum.fail_open + one.fail_open,
            refused: sum.refused + one.refused,
            unparsed: sum.unparsed + one.unparsed,
            player_tick: sum.player_tick.max(one.player_tick),
        }))
    }

    /// Packets that could not be parsed, whoever they were for.
    ///
    /// # Errors
    /// The map can't be read.
    pub fn unparsed(&self) -> Result<u64, DoorError> {
        self.counters(NO_SERVER).map(|counters| counters.unparsed)
    }

    /// Names the cgroups whose processes probe servers; all others are strangers from now on.
    ///
    /// # Errors
    /// The map is full.
    pub fn set_probers(&mut self, cgroups: &BTreeSet<u64>) -> Result<(), DoorError> {
        let known: BTreeSet<u64> = self.probers.keys().filter_map(Result::ok).collect();
        for gone in known.difference(cgroups) {
            let _ = self.probers.remove(gone);
        }
        for new in cgroups.difference(&known) {
            self.probers
                .insert(new, 0, 0)
                .map_err(|source| DoorError::Map { name: "PROBERS", source: Box::new(source) })?;
        }
        Ok(())
    }

    /// The reader of the ring; there is one.
    ///
    /// # Errors
    /// It was taken already.
    pub fn take_reader(&mut self) -> Result<RecordReader, DoorError> {
        let map = self.ebpf.take_map("RING").ok_or_else(|| missing_map("RING"))?;
        let ring = RingBuf::try_from(map)
            .map_err(|source| DoorError::Map { name: "RING", source: Box::new(source) })?;
        Ok(RecordReader::new(ring, self.arrays()))
    }

    /// Sets the node-wide values: when a heartbeat is stale, how long the guard waits then, whose packets are replays, the hash's seed.
    pub fn configure(&self, stale_after: Duration, guard_limit: Duration, replay_cookie: u64, seed: u64) {
        let node = |index| self.arrays.node(index);
        node(node::HEARTBEAT_NS).store(monotonic_ns(), SeqCst);
        node(node::STALE_AFTER_NS).store(stale_after.as_nanos() as u64, SeqCst);
        node(node::GUARD_LIMIT_NS).store(guard_limit.as_nanos() as u64, SeqCst);
        node(node::REPLAY_COOKIE).store(replay_cookie, SeqCst);
        if node(node::SEED).load(SeqCst) == 0 {
            node(node::SEED).store(seed, SeqCst);
        }
    }
}

fn missing_map(name: &'static str) -> DoorError {
    DoorError::Map { name, source: Box::new(MapError::InvalidName { name: name.to_owned() }) }
}

/// Nothing can be pinned elsewhere, and the kernel's own words (EPERM) would point at the capabilities.
fn is_bpffs(pin_dir: &Path) -> io::Result<()> {
    let there = pin_dir.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    if statfs(there)?.filesystem_type() == FsType(libc::BPF_FS_MAGIC) {
        return Ok(());
    }
    Err(io::Error::other(format!("{} is not in a bpffs", there.display())))
}

/// A second descriptor of every map that is pinned.
fn handles(ebpf: &Ebpf, dir: &Path) -> Result<Vec<(String, MapData)>, DoorError> {
    let mut handles = vec![];
    for (name, map) in ebpf.maps().filter(|(name, _)| dir.join(name).exists()) {
        let (Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)) = map
        else {
            continue;
        };
        let fd = data.fd().as_fd().try_clone_to_owned().map_err(|error| {
            DoorError::Mmap(nix::Error::from_raw(error.raw_os_error().unwrap_or(libc::EMFILE)))
        })?;
        let copy = MapData::from_fd(fd)
            .map_err(|source| DoorError::Map { name: "maps", source: Box::new(source) })?;
        handles.push((name.to_owned(), copy));
    }
    Ok(handles)
}

fn array<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a MapData, DoorError> {
    match ebpf.map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => Err(missing_map(name)),
    }
}

fn typed<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, DoorError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or_else(|| missing_map(name))?;
    M::try_from(map).map_err(|source| DoorError::Map { name, source: Box::new(source) })
}
