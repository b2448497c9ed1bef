//! `dormoused.toml`: where things are on this node. Every key may be left out, and so may the file.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::ConfigError;
use super::reader::{Section, Source, read_file};
use super::value::OrNever;
use crate::discover::probers::ProberGlob;

/// What one daemon (or guard) works with. Several may run on one machine if their directories differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Gone after a reboot: the socket and the undo log.
    pub run_dir: PathBuf,
    /// Kept over a reboot: servers, overrides, profiles, the off marker, history.
    pub state_dir: PathBuf,
    pub server_dir: PathBuf,
    pub profile_dir: PathBuf,
    /// Must be on a bpffs.
    pub pin_dir: PathBuf,
    /// `None` = no metrics.
    pub metrics_listen: Option<SocketAddr>,
    /// Age of the heartbeat at which the door lets everything pass and the guard takes over.
    pub stale_after: Duration,
    /// How long the guard keeps sleepers asleep without a daemon before it wakes them all.
    pub guard_limit: Duration,
    /// For how many wakes at once the node keeps memory free: those of the sleepers that gave back most.
    pub headroom_wakes: usize,
    /// Bytes that page-outs may write to swap on a day (UTC); `None` = no limit.
    pub deep_write_budget: Option<u64>,
    /// Where cgroup v2 is mounted; `None` = found in the mount table.
    pub cgroup_root: Option<PathBuf>,
    /// Whose health probes are answered without a wake.
    pub probers: Vec<ProberGlob>,
    /// A filter of `tracing_subscriber::EnvFilter`, checked by the program that installs it.
    pub log: String,
    /// The control plane to dial; `None`: this node stands alone.
    pub control: Option<Control>,
    /// Where the game's and the server's layer come from; never from both (design §6).
    pub profiles_from: ProfilesFrom,
}

/// `[control]`: the region's control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// `https://HOST:PORT`
    pub url: String,
    /// This node's name in the registry.
    pub node: String,
    /// The id of the node's stored key.
    pub key: String,
    /// Holds the key's secret. Read at each login, so that it can be rotated.
    pub secret_file: PathBuf,
    /// Who vouches for the control plane; `None`: the system's authorities.
    pub authorities: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProfilesFrom {
    #[default]
    Files,
    /// As fetched last; the files' until the first fetch.
    Control,
}

impl Control {
    fn read(mut section: Section<'_>) -> Result<Self, ConfigError> {
        let control = Self {
            url: section.required("url")?,
            node: section.required("node")?,
            key: section.required("key")?,
            secret_file: section.required("secret_file")?,
            authorities: section.optional("authorities")?,
        };
        section.finish()?;
        Ok(control)
    }
}

impl Node {
    pub const DEFAULT_FILE: &str = "/etc/dormouse/dormoused.toml";

    /// The settings in a file; the defaults if it does not exist.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(file, &read_file(file)?.unwrap_or_default())
    }

    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut root = Section::parse(Source { file, text })?;
        let default_metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, 9877));
        let state_dir: PathBuf = root.optional("state_dir")?.unwrap_or_else(|| "/var/lib/dormouse".into());
        let node = Self {
            run_dir: root.optional("run_dir")?.unwrap_or_else(|| "/run/dormouse".into()),
            server_dir: root.optional("server_dir")?.unwrap_or_else(|| state_dir.join("servers.d")),
            profile_dir: root.optional("profile_dir")?.unwrap_or_else(|| state_dir.join("profiles.d")),
            state_dir,
            pin_dir: root.optional("pin_dir")?.unwrap_or_else(|| "/sys/fs/bpf/dormouse".into()),
            metrics_listen: root
                .optional::<OrNever<SocketAddr>>("metrics_listen")?
                .map_or(Some(default_metrics), Into::into),
            stale_after: at_least(&mut root, "stale_after", 2, Duration::from_millis(200))?,
            guard_limit: at_least(&mut root, "guard_limit", 600, Duration::from_secs(1))?,
            headroom_wakes: root.optional::<u32>("headroom_wakes")?.unwrap_or(3) as usize,
            deep_write_budget: write_budget(&mut root)?,
            cgroup_root: root.optional("cgroup_root")?,
            probers: root.optional("probers")?.unwrap_or_else(ProberGlob::defaults),
            log: root.optional("log")?.unwrap_or_else(|| "info".to_owned()),
            control: root.section("control")?.map(Control::read).transpose()?,
            profiles_from: root.optional("profiles_from")?.unwrap_or_default(),
        };
        root.finish()?;
        Ok(node)
    }

    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("dormouse.sock")
    }

    pub fn undo_log(&self) -> PathBuf {
        self.run_dir.join("undo.log")
    }

    pub fn overrides(&self) -> PathBuf {
        self.state_dir.join("overrides.toml")
    }

    /// While this file exists, `dormouse off` was said and `dormouse on` was not.
    pub fn off_marker(&self) -> PathBuf {
        self.state_dir.join("off")
    }

    /// The books of what sleep was worth.
    pub fn savings(&self) -> PathBuf {
        self.state_dir.join("savings")
    }

    pub fn history(&self) -> PathBuf {
        self.state_dir.join("history")
    }
}

/// Less than one page-out of a small server would forbid deep altogether, which is said otherwise.
fn write_budget(root: &mut Section<'_>) -> Result<Option<u64>, ConfigError> {
    const LEAST: u64 = 64 << 20;
    let Some(entry) = root.entry("deep_write_budget") else { return Ok(None) };
    let budget: Option<u64> = entry.read::<OrNever<u64>>()?.into();
    if budget.is_some_and(|bytes| bytes < LEAST) {
        return Err(entry.bad(
            "must be at least 64MiB a day; to keep servers from going deep at all, set floor = \"dozing\" in their \
             files"
                .to_owned(),
        ));
    }
    Ok(budget)
}

/// A duration with a default in seconds and a shortest value: below it the daemon's own beat is too slow.
fn at_least(
    root: &mut Section<'_>,
    key: &'static str,
    default: u64,
    shortest: Duration,
) -> Result<Duration, ConfigError> {
    let Some(entry) = root.entry(key) else { return Ok(Duration::from_secs(default)) };
    let value: Duration = entry.read()?;
    if value < shortest {
        return Err(entry.bad(format!("must be at least {}", humantime::format_duration(shortest))));
    }
    Ok(value)
}
