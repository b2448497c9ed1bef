//! Echo servers, each in a pod and a cgroup of its own behind the door, and what crash tests ask of them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dormouse_api::status::Stage;

use crate::{
    cgroup::Cgroup,
    clients::{self, Answer},
    daemon::{Daemon, QUICK, ServerFile},
    process::Place,
    servers::{Server, echo},
    topology::Node,
};

pub const PORT: u16 = 7100;
/// Far longer than anything here takes on a machine with nothing else to do.
pub const SOON: Duration = Duration::from_secs(30);

/// One echo server.
pub struct Pot {
    pub name: String,
    pub server: Option<Server>,
    pub cgroup: Cgroup,
}

/// A node with a daemon that is ready to start, and servers that run.
pub struct Stand {
    pub daemon: Daemon,
    pub pots: Vec<Pot>,
    pub node: Node,
}

impl Stand {
    /// Nothing is managed yet but all is written: [`Stand::start`] runs the daemon. With limits beyond
    /// [`QUICK`].
    ///
    /// # Errors
    /// Not root, or a tool is missing.
    pub fn prepare(count: u8, limits: &str) -> Result<Self> {
        Self::prepare_on(Node::create(count)?, limits)
    }

    /// [`Stand::prepare`] on a node of the caller's: a server in each of its pods.
    ///
    /// # Errors
    /// As there.
    pub fn prepare_on(node: Node, limits: &str) -> Result<Self> {
        Self::prepare_with(node, "stale_after = \"300ms\"", &quick_but(limits))
    }

    /// With lines of `dormoused.toml` and all limits of the caller's.
    ///
    /// # Errors
    /// As [`Stand::prepare`].
    pub fn prepare_with(node: Node, node_config: &str, limits: &str) -> Result<Self> {
        let daemon = Daemon::prepare()?;
        daemon.configure(node_config)?;
        let mut pots = vec![];
        for (index, pod) in node.pods.iter().enumerate() {
            let cgroup = Cgroup::create("echo")?;
            let server = echo::start(Place::new(&pod.netns, &cgroup), PORT)?;
            pots.push(Pot { name: format!("bench/echo{index}"), server: Some(server), cgroup });
        }
        let stand = Self { daemon, pots, node };
        for index in 0..stand.pots.len() {
            stand.write_limits(index, limits)?;
        }
        Ok(stand)
    }

    /// Writes (or writes anew) the server file of a pot, with limits beyond [`QUICK`].
    ///
    /// # Errors
    /// The directory can't be written.
    pub fn write_file(&self, index: usize, limits: &str) -> Result<()> {
        self.write_limits(index, &quick_but(limits))
    }

    /// Writes the server file of a pot, with all its limits.
    ///
    /// # Errors
    /// The directory can't be written.
    pub fn write_limits(&self, index: usize, limits: &str) -> Result<()> {
        self.daemon.manage(&ServerFile {
            name: &self.pots[index].name,
            profile: "generic-tcp",
            cgroup: &self.pots[index].cgroup,
            ports: &["tcp/7100", "udp/7100"],
            limits,
        })
    }

    /// Starts the daemon and waits until all are watched and awake.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(&mut self) -> Result<()> {
        let command = self.daemon.command()?;
        self.start_as(command)
    }

    /// As [`Stand::start`], with a daemon that looks at its servers once an hour, unless something makes it look.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start_blind(&mut self) -> Result<()> {
        let mut command = self.daemon.command()?;
        command.env("DORMOUSE_LOOK_EVERY", "3600");
        self.start_as(command)
    }

    /// [`Stand::start`] by a command line of the caller's.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start_as(&mut self, command: Command) -> Result<()> {
        self.daemon.start_as(&self.node.netns, command)?;
        for pot in &self.pots {
            self.daemon.wait_for(&pot.name, Stage::Awake, SOON)?;
        }
        self.wait_until("all are watched", || {
            let status = self.daemon.status()?;
            ensure!(status.servers.iter().all(|server| server.note.is_none()), "{:?}", status.servers);
            Ok(())
        })
    }

    /// Starts the daemon and waits for its socket only.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start_daemon(&mut self) -> Result<()> {
        self.daemon.start(&self.node.netns)
    }

    /// Puts all to doze.
    ///
    /// # Errors
    /// One does not fall asleep.
    pub fn doze_all(&self) -> Result<()> {
        for index in 0..self.pots.len() {
            self.doze(index)?;
        }
        Ok(())
    }

    /// Puts one to doze.
    ///
    /// # Errors
    /// It does not fall asleep.
    pub fn doze(&self, index: usize) -> Result<()> {
        let pot = &self.pots[index];
        // Of a wake that has just been the daemon may hear a moment after the player, and still call it asleep.
        self.wait_until("it dozes and is frozen", || {
            self.daemon.sleep(&pot.name, false)?;
            ensure!(pot.cgroup.is_frozen()?, "{} says it dozes and is not frozen", pot.name);
            Ok(())
        })
    }

    /// The address of a pot, as a client reaches it.
    pub fn address(&self, index: usize) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.node.pods[index].v4), PORT)
    }

    /// Which are frozen.
    ///
    /// # Errors
    /// A cgroup is gone.
    pub fn frozen(&self) -> Result<Vec<bool>> {
        self.pots.iter().map(|pot| pot.cgroup.is_frozen()).collect()
    }

    /// A player's first payload by TCP.
    ///
    /// # Errors
    /// No answer within half a minute.
    pub fn tcp(&self, index: usize) -> Result<Answer> {
        let to = self.address(index);
        self.node.client.run(|| clients::echo::tcp(to, b"let me in", SOON))
    }

    /// A player by UDP, who sends again each half second as games do, until there is an answer. Gives back
    /// how many datagrams it took.
    ///
    /// # Errors
    /// No answer within half a minute.
    pub fn udp(&self, index: usize) -> Result<u32> {
        let to = self.address(index);
        self.node.client.run(|| udp_until_answered(to))
    }

    /// Asks again and again until `ready`; the last error is told.
    ///
    /// # Errors
    /// Not within half a minute.
    pub fn wait_until(&self, what: &str, mut ready: impl FnMut() -> Result<()>) -> Result<()> {
        let until = Instant::now() + SOON;
        loop {
            match ready() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > until => {
                    return Err(error.context(format!("never: {what}\n{}", self.daemon.log())));
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Everything that dormouse may change, in words: settings of the cgroups, programs, filters and qdiscs of
    /// the veths, sysctls of node and pods, pins.
    ///
    /// # Errors
    /// Something can't be read.
    pub fn snapshot(&self) -> Result<String> {
        let mut text = String::new();
        for pot in &self.pots {
            let mut files = BTreeMap::new();
            settings(pot.cgroup.path(), &mut files)?;
            for (file, value) in files {
                writeln!(text, "{} {file}: {}", pot.name, value.trim_end().replace('\n', " | "))?;
            }
        }
        let pods = self.node.pods.iter().map(|pod| &pod.netns);
        for (number, netns) in std::iter::once(&self.node.netns).chain(pods).enumerate() {
            writeln!(text, "namespace {number}: {}", netns.run(network)?)?;
        }
        for pin in pins(self.daemon.pin_dir()) {
            writeln!(text, "pin {pin}")?;
        }
        Ok(text)
    }
}

/// [`QUICK`], less what `limits` says otherwise, and `limits`.
fn quick_but(limits: &str) -> String {
    let key = |line: &str| line.split_once(" = ").map(|(key, _)| key.to_owned());
    let said: Vec<_> = limits.lines().filter_map(key).collect();
    let kept = QUICK.lines().filter(|line| key(line).is_none_or(|key| !said.contains(&key)));
    kept.chain(limits.lines()).flat_map(|line| [line, "\n"]).collect()
}

/// A player by UDP from the namespace of the caller; how many datagrams it took.
///
/// # Errors
/// No answer within half a minute.
pub fn udp_until_answered(to: SocketAddr) -> Result<u32> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut buffer = [0; 2048];
    let until = Instant::now() + SOON;
    let mut sent = 0;
    while Instant::now() < until {
        sent += 1;
        socket.send(format!("let me in {sent}").as_bytes())?;
        if socket.recv(&mut buffer).is_ok() {
            return Ok(sent);
        }
    }
    anyhow::bail!("no answer from {to} to {sent} datagrams")
}

/// The files of a cgroup that somebody sets, below it too: not what the kernel counts.
fn settings(cgroup: &Path, into: &mut BTreeMap<String, String>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for entry in fs::read_dir(cgroup).with_context(|| format!("list {}", cgroup.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let mode = entry.metadata()?.permissions().mode();
        let counted =
            [".pressure", ".peak", "cgroup.procs", "cgroup.threads"].iter().any(|end| name.ends_with(end));
        if entry.file_type()?.is_dir() {
            settings(&entry.path(), into)?;
        } else if mode & 0o600 == 0o600 && !counted {
            into.insert(entry.path().display().to_string(), fs::read_to_string(entry.path())?);
        }
    }
    Ok(())
}

/// Qdiscs, filters, programs and sysctls of the caller's namespace.
fn network() -> Result<String> {
    let mut text = run(&["tc", "qdisc", "show"])?;
    for link in fs::read_dir("/proc/sys/net/ipv4/conf")? {
        let link = link?.file_name().to_string_lossy().into_owned();
        if !link.starts_with("veth") {
            continue;
        }
        for side in ["ingress", "egress"] {
            text += &run(&["tc", "filter", "show", "dev", &link, side])?;
        }
        text += &programs_on(&link)?;
    }
    sysctls(Path::new("/proc/sys/net"), &mut text)?;
    Ok(text)
}

fn programs_on(link: &str) -> Result<String> {
    use aya::programs::{SchedClassifier, TcAttachType};
    let mut text = String::new();
    for side in [TcAttachType::Ingress, TcAttachType::Egress] {
        // Kernels before 6.6 have no tcx, and then no programs there.
        let programs =
            SchedClassifier::query_tcx(link, side).map(|(_, programs)| programs).unwrap_or_default();
        for program in programs {
            writeln!(text, "{link} {side:?}: {}", program.name_as_str().unwrap_or("?"))?;
        }
    }
    Ok(text)
}

fn sysctls(folder: &Path, into: &mut String) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            sysctls(&path, into)?;
        } else if !path.ends_with("nf_conntrack_count")
            && let Ok(value) = fs::read_to_string(&path)
        {
            writeln!(into, "{} = {}", path.display(), value.trim_end())?;
        }
    }
    Ok(())
}

/// What is pinned below a folder.
pub fn pins(folder: &Path) -> Vec<String> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(pins(&entry.path()));
        } else {
            found.push(entry.path().display().to_string());
        }
    }
    found.sort();
    found
}

fn run(words: &[&str]) -> Result<String> {
    let output =
        Command::new(words[0]).args(&words[1..]).output().with_context(|| format!("run {words:?}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
