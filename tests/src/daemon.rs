//! A daemon of the bench: the real `dormoused` in the node's namespace, with directories and pins of its own.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use dormouse_api::{
    client::Client,
    command::{SleepRequest, WakeRequest},
    status::{Selector, ServerStatus, Stage, Status},
    why::Why,
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    cgroup::Cgroup,
    netns::Netns,
    owner,
    process::{Place, Process},
    servers::echo::sibling,
};

/// A server file for the daemon.
pub struct ServerFile<'a> {
    pub name: &'a str,
    pub profile: &'a str,
    pub cgroup: &'a Cgroup,
    /// `tcp/25565`, …
    pub ports: &'a [&'a str],
    /// Lines of TOML for `[limits]`.
    pub limits: &'a str,
}

/// Limits in seconds rather than minutes, and everything vouched for that a test server has not.
pub const QUICK: &str = "doze_after = \"1s\"\ndeep_after = \"never\"\ndoze_by = \"freeze\"\nfloor = \"dozing\"\n\
                         min_awake = \"1s\"\ngrace_after_start = \"1s\"\nwakes_per_hour = 100000\n";

/// A running daemon; stopped with its guard, its pins and its directories on drop.
pub struct Daemon {
    pub process: Option<Process>,
    pub guard: Option<Process>,
    dir: TempDir,
    pin_dir: PathBuf,
}

impl Daemon {
    /// Prepares the directories; [`Daemon::start`] runs it.
    pub fn prepare() -> Result<Self> {
        mount_bpffs()?;
        let dir = owner::temp_dir("daemon")?;
        let pin_dir = Path::new("/sys/fs/bpf").join(owner::unique("pins"));
        let daemon = Self { process: None, guard: None, dir, pin_dir };
        fs::create_dir_all(daemon.path("state/servers.d"))?;
        let config = format!(
            "run_dir = \"{}\"\nstate_dir = \"{}\"\nserver_dir = \"{}\"\nprofile_dir = \"{}\"\npin_dir = \"{}\"\n\
             metrics_listen = \"never\"\nlog = \"info\"\n",
            daemon.path("run").display(),
            daemon.path("state").display(),
            daemon.path("state/servers.d").display(),
            daemon.path("state/profiles.d").display(),
            daemon.pin_dir.display(),
        );
        fs::write(daemon.path("dormoused.toml"), config)?;
        Ok(daemon)
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// Adds lines to `dormoused.toml`; before the start.
    pub fn configure(&self, lines: &str) -> Result<()> {
        let path = self.path("dormoused.toml");
        let text = fs::read_to_string(&path)?;
        fs::write(path, format!("{text}{lines}\n"))?;
        Ok(())
    }

    /// Lets it serve its metrics at the usual place of its own namespace; before the start.
    pub fn serve_metrics(&self) -> Result<()> {
        let path = self.path("dormoused.toml");
        let text = fs::read_to_string(&path)?;
        fs::write(path, text.replace("metrics_listen = \"never\"\n", ""))?;
        Ok(())
    }

    /// One of its counters or gauges now, over all series whose labels contain `label`.
    pub fn metric(&self, netns: &Netns, name: &str, label: &str) -> Result<f64> {
        let text = netns.run(|| -> Result<String> {
            let mut stream = std::net::TcpStream::connect("127.0.0.1:9877").context("metrics")?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })?;
        let lines = text.lines().filter_map(|line| line.strip_prefix("dormouse_")?.strip_prefix(name));
        let series = lines.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
        let values = series.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok());
        Ok(values.sum())
    }

    /// Writes a server file in mode full, with everything vouched for.
    pub fn manage(&self, server: &ServerFile<'_>) -> Result<()> {
        self.manage_as(
            server,
            "full",
            &[("watchdog", "off"), ("save", "not-needed"), ("outbound", "harmless")],
        )
    }

    /// Writes a server file in this mode, with these assertions.
    pub fn manage_as(&self, server: &ServerFile<'_>, mode: &str, asserted: &[(&str, &str)]) -> Result<()> {
        let mut text = String::new();
        let root = crate::cgroup::root()?;
        let cgroup = server.cgroup.path().strip_prefix(&root).context("a cgroup below the root")?;
        writeln!(text, "name = {:?}", server.name)?;
        writeln!(text, "select = \"cgroup:/{}\"", cgroup.display())?;
        writeln!(text, "profile = {:?}\nmode = {mode:?}", server.profile)?;
        writeln!(text, "ports = {:?}", server.ports)?;
        writeln!(text, "[limits]\n{}", server.limits)?;
        writeln!(text, "[assert]")?;
        for (key, value) in asserted {
            writeln!(text, "{key} = {{ value = \"{value}\", reason = \"a server of the bench\" }}")?;
        }
        let file = format!("state/servers.d/{}.toml", server.name.replace('/', "-"));
        fs::write(self.path(&file), text)?;
        Ok(())
    }

    /// The daemon's command line, for those who run it in a way of their own.
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(sibling("dormoused")?);
        command.arg("--config").arg(self.path("dormoused.toml"));
        Ok(command)
    }

    /// Runs the daemon with variables in its environment, and waits for nothing.
    pub fn launch(&mut self, netns: &Netns, env: &[(&str, &str)]) -> Result<()> {
        let mut command = self.command()?;
        command.envs(env.iter().copied());
        self.process = Some(Process::spawn("dormoused", command, Place::netns(netns))?);
        Ok(())
    }

    /// Whether the daemon that was started has ended, or none was.
    pub fn has_ended(&self) -> bool {
        let Some(process) = &self.process else { return true };
        // A zombie has ended too; nobody but we waits for it.
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    }

    /// Runs the daemon in a namespace, until it answers.
    pub fn start(&mut self, netns: &Netns) -> Result<()> {
        self.start_as(netns, self.command()?)
    }

    /// As [`Daemon::start`], by a command line of the caller's.
    pub fn start_as(&mut self, netns: &Netns, command: Command) -> Result<()> {
        let mut process = Process::spawn("dormoused", command, Place::netns(netns))?;
        let socket = self.path("run/dormouse.sock");
        process
            .wait_until(Duration::from_secs(20), || {
                anyhow::ensure!(std::os::unix::net::UnixStream::connect(&socket).is_ok(), "no socket yet");
                Ok(())
            })
            .context("dormoused did not come up")?;
        self.process = Some(process);
        Ok(())
    }

    /// Sends a signal that ends the daemon, and waits for its end. Its log is given back.
    pub fn end_by(&mut self, signal: Signal) -> Result<String> {
        let mut process = self.process.take().context("no daemon runs")?;
        process.signal(signal)?;
        process.wait(Duration::from_secs(20))?;
        Ok(process.log())
    }

    /// Runs the guard beside it.
    pub fn start_guard(&mut self, more: &[&str]) -> Result<()> {
        let mut command = self.guard_program("run")?;
        command.args(more);
        self.guard = Some(Process::spawn("dormouse-guard", command, Place::default())?);
        Ok(())
    }

    /// `dormouse-guard VERB` with this daemon's paths, for those who run it in a way of their own.
    pub fn guard_program(&self, verb: &str) -> Result<Command> {
        let mut command = Command::new(sibling("dormouse-guard")?);
        command.arg("--run-dir").arg(self.path("run")).arg("--state-dir").arg(self.path("state"));
        command.arg("--pin-dir").arg(&self.pin_dir).arg(verb);
        Ok(command)
    }

    /// `dormouse-guard off` or `on`; what it printed.
    pub fn guard_command(&self, verb: &str, netns: &Netns) -> Result<String> {
        let mut command = self.guard_program(verb)?;
        let output = netns.run(|| command.output())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        anyhow::ensure!(
            output.status.success(),
            "dormouse-guard {verb}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(text)
    }

    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Asks over the socket.
    pub fn ask<T>(&self, ask: impl AsyncFnOnce(Client) -> Result<T>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(ask(Client::new(self.path("run/dormouse.sock"))))
    }

    pub fn status(&self) -> Result<Status> {
        self.ask(async |client| Ok(client.status(&Selector::default()).await?))
    }

    pub fn server(&self, name: &str) -> Result<ServerStatus> {
        let status = self.status()?;
        status.servers.into_iter().find(|server| server.name == name).context("no such server in status")
    }

    pub fn why(&self, name: &str) -> Result<Why> {
        self.ask(async |client| Ok(client.why(name).await?))
    }

    pub fn wake(&self, name: &str) -> Result<()> {
        self.ask(async |client| {
            client.wake(name, &WakeRequest::default()).await?;
            Ok(())
        })
    }

    /// Puts a server to sleep by command, at the first try.
    pub fn sleep_once(&self, name: &str, deep: bool) -> Result<()> {
        self.ask(async |client| {
            client.sleep(name, SleepRequest { deep }).await?;
            Ok(())
        })
    }

    /// Puts a server to sleep by command, as soon as the checks allow it.
    pub fn sleep(&self, name: &str, deep: bool) -> Result<()> {
        let limit = Instant::now() + Duration::from_mins(1);
        loop {
            let asked = self.ask(async |client| Ok(client.sleep(name, SleepRequest { deep }).await?));
            match asked {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > limit => {
                    bail!("{name} does not fall asleep: {error:#}\n{}", self.log())
                }
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// Waits until a server is in a stage.
    pub fn wait_for(&self, name: &str, stage: Stage, limit: Duration) -> Result<ServerStatus> {
        let until = Instant::now() + limit;
        loop {
            let server = self.server(name)?;
            if server.stage == stage {
                return Ok(server);
            }
            if Instant::now() > until {
                bail!("{name} is {:?}, not {stage:?}: {:?}\n{}", server.stage, server.note, self.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::env::var_os("BENCH_LOG").is_some() {
            eprintln!("{}", self.log());
        }
        self.guard = None;
        self.process = None;
        let _ = fs::remove_dir_all(&self.pin_dir);
    }
}

/// The machine's bpffs, where pins live; systemd mounts it elsewhere.
pub fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf")) {
        return Ok(());
    }
    nix::mount::mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), nix::mount::MsFlags::empty(), None::<&str>)
        .context("mount a bpffs at /sys/fs/bpf")
}
