//! Starting: the door, the threads, the agent's task, the socket.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use dormouse_abi::node;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::{
    Agent, Journal, Message, Place, bring_up::ERRANDS, clock::unix_now_ms, device::Device, saved, signs,
    wear::Wear,
};
use crate::{
    config::{self, Loaded},
    control,
    discover::mounts::{CgroupRoot, MountError},
    door::{
        Door, DoorError, Replayer,
        layout::{self, LayoutError},
        monotonic_ns,
    },
    failpoint, guard,
    metrics::{self, Metrics},
    netns::{Helper, NetnsError},
    pool::Pool,
    preflight::features,
    savings::Books,
    sleep::{Node, watch},
    socket,
};

/// The heartbeat's pace, as a part of the time after which it is stale.
const BEATS: u32 = 8;

/// A running agent, for those who ask it.
#[derive(Clone)]
pub struct Handle {
    pub(super) outbox: mpsc::UnboundedSender<Message>,
    pub(super) journal: Arc<Journal>,
    pub(super) config: config::Node,
    pub(super) place: Arc<Place>,
    pub(super) books: Arc<Books>,
    pub(super) changes: watch::Sender<()>,
}

impl Handle {
    /// Reads the configuration again.
    pub fn reload(&self) {
        let _ = self.outbox.send(Message::Reload);
    }

    /// Ends the agent. Sleepers sleep on.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        let _ = self.outbox.send(Message::Stop(done));
        let _ = stopped.await;
    }
}

impl metrics::Refresh for Handle {
    /// An agent that is busy is waited for, but not long: old numbers are better than none.
    async fn refresh(&self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let (done, measured) = oneshot::channel();
        if self.outbox.send(Message::Measure(done)).is_ok() {
            let _ = tokio::time::timeout(PATIENCE, measured).await;
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the directory {path} can't be made: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error("the socket for replays can't be opened (CAP_NET_RAW): {0}")]
    Replayer(#[source] io::Error),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Listen(#[from] socket::ListenError),
    #[error("a thread can't be started: {0}")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Node(#[from] anyhow::Error),
}

/// Starts everything; must be called within a tokio runtime.
///
/// # Errors
/// [`StartError`] says what is missing; nothing was changed then.
pub fn start(config: config::Node, helper: PathBuf) -> Result<Handle, StartError> {
    for path in [&config.run_dir, &config.state_dir, &config.server_dir] {
        std::fs::create_dir_all(path)
            .map_err(|source| StartError::Directory { path: path.clone(), source })?;
    }
    // Before anything is touched: a second daemon on the same directories would take the ring and the replay
    // socket's cookie away from the first.
    let (listener, bound) = socket::listen(&config.socket())?;
    let root = match &config.cgroup_root {
        Some(path) => CgroupRoot::at(path)?,
        None => CgroupRoot::find()?,
    };
    let helper = Helper::spawn(helper)?;
    layout::leave_others(&config.pin_dir, &config.run_dir)?;
    let door = Door::load(&config.pin_dir)?;
    failpoint::at("door-loaded");
    let replayer = Replayer::new().map_err(StartError::Replayer)?;
    let seed = monotonic_ns() ^ u64::from(std::process::id()) << 32;
    door.configure(config.stale_after, config.guard_limit, replayer.cookie(), seed);
    failpoint::at("door-configured");
    let (reports, mut reported) = mpsc::unbounded_channel();
    let node = Arc::new(Node::new(door, replayer, reports)?);
    let records: BTreeMap<_, _> =
        saved::load(&config.run_dir).into_iter().map(|record| (record.name.clone(), record)).collect();
    node.expect(records.values().map(|record| record.slot));
    let (outbox, inbox) = mpsc::unbounded_channel();
    let journal = Arc::new(Journal::default());
    heartbeat(&node, config.stale_after / BEATS)?;
    let watched = Arc::clone(&node);
    std::thread::Builder::new()
        .name("dm-watch".into())
        .spawn(move || watch(&watched, &|| false))
        .map_err(StartError::Thread)?;
    let forward = outbox.clone();
    tokio::spawn(async move {
        while let Some(report) = reported.recv().await {
            let _ = forward.send(Message::Report(report));
        }
    });
    if let Err(error) = signs::watch_links(outbox.clone()) {
        tracing::warn!(%error, "lost veths will be noticed late");
    }
    let errands = Arc::new(Semaphore::new(ERRANDS));
    let place = Arc::new(Place { root, helper, run_dir: config.run_dir.clone(), node, errands });
    let books = Arc::new(Books::open(config.savings(), unix_now_ms()));
    let changes = watch::Sender::default();
    let handle = Handle {
        changes: changes.clone(),
        outbox: outbox.clone(),
        journal: Arc::clone(&journal),
        config: config.clone(),
        place: Arc::clone(&place),
        books: Arc::clone(&books),
    };
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
    let features = features::features(&config);
    features::tell(&features);
    metrics.kernel_features(&features);
    metrics.deep_write_budget(config.deep_write_budget);
    if let Some(address) = config.metrics_listen {
        serve_metrics(address, &metrics, handle.clone());
    }
    let operator = Arc::new(handle.clone());
    tokio::spawn(async move {
        let _bound = bound;
        if let Err(error) = socket::serve(listener, operator).await {
            tracing::error!(%error, "the socket for operators is lost");
        }
    });
    if let Some(control) = config.control.clone() {
        let (asked, reloaded) = (Arc::new(handle.clone()), handle.clone());
        let follow = config.profiles_from == config::ProfilesFrom::Control;
        let reload = move || reloaded.reload();
        tokio::spawn(control::run(control, config.state_dir.clone(), follow, asked, reload));
    }
    let paths = guard::Paths {
        run_dir: config.run_dir.clone(),
        state_dir: config.state_dir.clone(),
        pin_dir: config.pin_dir.clone(),
    };
    let agent = Agent {
        off: paths.is_off(),
        place,
        metrics,
        books,
        pool: Pool::default(),
        pool_exhausted: false,
        device: Device::default(),
        wear: Wear::default(),
        config,
        paths,
        loaded: Loaded::default(),
        servers: BTreeMap::default(),
        journal,
        changes,
        inbox,
        outbox,
        records,
    };
    tokio::spawn(agent.run());
    Ok(handle)
}

/// Metrics are worth having, not worth failing for: who asks in vain finds the reason in the log.
fn serve_metrics(address: SocketAddr, metrics: &Arc<Metrics>, source: Handle) {
    let metrics = Arc::clone(metrics);
    tokio::spawn(async move {
        match metrics::bind(address).await {
            Ok(listener) => {
                if let Err(error) = metrics::serve(listener, metrics, source).await {
                    tracing::error!(%error, "metrics are no longer served");
                }
            }
            Err(error) => {
                tracing::error!(%error, "metrics are not served; set metrics_listen to a free address");
            }
        }
    });
}

/// A thread that does nothing else: whatever else hangs, a living daemon is known to live; a stopped one is
/// known to be stopped.
fn heartbeat(node: &Arc<Node>, every: Duration) -> Result<(), StartError> {
    let node = Arc::clone(node);
    let first = AtomicBool::new(true);
    std::thread::Builder::new()
        .name("dm-heartbeat".into())
        .spawn(move || {
            loop {
                node.arrays.node(node::HEARTBEAT_NS).store(monotonic_ns(), SeqCst);
                if first.swap(false, SeqCst) {
                    tracing::debug!(?every, "heartbeat");
                }
                std::thread::sleep(every);
            }
        })
        .map(drop)
        .map_err(StartError::Thread)
}
