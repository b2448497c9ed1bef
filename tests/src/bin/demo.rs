//! The main job, shown on real servers and real players: see `scripts/demo`.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
    sync::OnceLock,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use dormouse_api::{command::Phases, status::Stage, why::Why};
use dormouse_tests::{
    cgroup::Cgroup,
    clients::{self, Join},
    daemon::{Daemon, ServerFile},
    process::Place,
    servers::{Server, echo::sibling, luanti, minecraft},
    swap::Swap,
    topology::{NODE, Node, Road, Transport},
};

const MINECRAFT: &str = "demo/minecraft";
const LUANTI: &str = "demo/luanti";
const MINECRAFT_PORT: u16 = 25565;
const LUANTI_PORT: u16 = 30000;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Seconds instead of the profiles' minutes, so that the demo ends before its audience does.
const LIMITS: &str = "doze_after = \"2s\"\ndeep_after = \"3s\"\nfloor = \"deep\"\ndoze_by = \"freeze\"\n\
                      min_awake = \"2s\"\ngrace_after_start = \"1s\"";

fn main() -> Result<()> {
    let stand = Stand::set_up()?;
    stand.fall_asleep()?;
    stand.strangers()?;
    let mut stand = stand;
    stand.minecraft_player()?;
    stand.luanti_player()?;
    say("done");
    tell("everything that was made here is taken away again");
    Ok(())
}

/// A line with the time since the start.
fn line(mark: &str, text: &str) {
    static START: OnceLock<Instant> = OnceLock::new();
    let at = START.get_or_init(Instant::now).elapsed();
    println!("{:7.2} s  {mark} {text}", at.as_secs_f64());
}

fn say(text: &str) {
    println!();
    line("──", text);
}

fn tell(text: &str) {
    line("  ", text);
}

/// Dropped in this order: the daemon first, so that it sees its servers to the end.
struct Stand {
    daemon: Daemon,
    minecraft: Server,
    luanti: Server,
    minecraft_cgroup: Cgroup,
    luanti_cgroup: Cgroup,
    node: Node,
    _swap: Swap,
}

impl Stand {
    fn set_up() -> Result<Self> {
        say("a node as k3s builds it: a client, a bridge, two pods, hostPorts by DNAT");
        let swap = Swap::ensure(2048)?;
        match swap.made() {
            Some(path) => {
                tell(&format!("no swap on this machine: made {} (2 GiB) for the demo", path.display()));
            }
            None => tell("deep sleepers go to this machine's own swap"),
        }
        let node = Node::create(2)?;
        node.publish(0, Road::HostPort, Transport::Tcp, MINECRAFT_PORT, MINECRAFT_PORT)?;
        node.publish(1, Road::HostPort, Transport::Udp, LUANTI_PORT, LUANTI_PORT)?;
        let minecraft_cgroup = Cgroup::create("minecraft")?;
        let luanti_cgroup = Cgroup::create("luanti")?;
        let minecraft = minecraft::start(Place::new(&node.pods[0].netns, &minecraft_cgroup), MINECRAFT_PORT)?;
        tell("a Minecraft server runs (flying-squid)");
        let luanti = luanti::start(Place::new(&node.pods[1].netns, &luanti_cgroup), LUANTI_PORT)?;
        tell("a Luanti server runs");
        let mut daemon = Daemon::prepare()?;
        for (name, profile, cgroup, port) in [
            (MINECRAFT, "minecraft-java", &minecraft_cgroup, "tcp/25565"),
            (LUANTI, "luanti", &luanti_cgroup, "udp/30000"),
        ] {
            daemon.manage(&ServerFile { name, profile, cgroup, ports: &[port], limits: LIMITS })?;
        }
        daemon.start(&node.netns)?;
        daemon.start_guard(&[])?;
        tell("dormoused and its guard run; nobody plays");
        Ok(Self { daemon, minecraft, luanti, minecraft_cgroup, luanti_cgroup, node, _swap: swap })
    }

    fn fall_asleep(&self) -> Result<()> {
        say("nobody plays, so both servers fall asleep");
        for name in [MINECRAFT, LUANTI] {
            self.daemon.wait_for(name, Stage::Awake, TIMEOUT)?;
        }
        let before = free_memory()?;
        self.show_status()?;
        for name in [MINECRAFT, LUANTI] {
            self.wait_until_deep(name)?;
        }
        self.show_status()?;
        let back = free_memory()?.saturating_sub(before);
        tell(&format!("the machine has {} MiB more free memory than before", back >> 20));
        Ok(())
    }

    fn wait_until_deep(&self, name: &str) -> Result<()> {
        self.daemon.wait_for(name, Stage::Deep, Duration::from_mins(1))?;
        let why = self.daemon.why(name)?;
        let memory = why.memory.context("a deep server has handed memory back")?;
        tell(&format!(
            "{name} is deep: {} of {} MiB handed back",
            memory.handed_back.bytes >> 20,
            memory.size_bytes >> 20
        ));
        Ok(())
    }

    fn strangers(&self) -> Result<()> {
        say("strangers come: a status ping, a port scan, a web crawler");
        let to = SocketAddr::new(NODE[0], MINECRAFT_PORT);
        let ping = self.node.client.run(|| clients::minecraft::status(to, TIMEOUT))?;
        tell(&format!("status ping answered in {} ({} bytes)", human(ping.first_reply), ping.reply.len()));
        self.node.client.run(|| {
            for seed in 0..40 {
                let _ = clients::scan::connect(to, Duration::from_millis(500));
                let _ = clients::scan::tcp_probe(to, clients::scan::Probe::Http, Duration::from_millis(20));
                let _ = clients::scan::tcp_probe(
                    to,
                    clients::scan::Probe::Random(seed),
                    Duration::from_millis(20),
                );
            }
        });
        let luanti = SocketAddr::new(NODE[0], LUANTI_PORT);
        let pinged = self.node.client.run(|| clients::luanti::ping(luanti, TIMEOUT));
        tell(&format!("Luanti server-list ping: {}", if pinged.is_ok() { "answered" } else { "no answer" }));
        sleep(Duration::from_secs(1));
        for name in [MINECRAFT, LUANTI] {
            let server = self.daemon.server(name)?;
            tell(&format!(
                "{name} is still {:?}: {} pings answered, {} scans refused, 0 wakes",
                server.stage, server.pings_answered, server.scans_refused
            ));
            anyhow::ensure!(server.stage == Stage::Deep || server.stage == Stage::Dozing, "{name} was woken");
        }
        Ok(())
    }

    fn minecraft_player(&mut self) -> Result<()> {
        say("a player joins Minecraft (mineflayer, over the hostPort)");
        let to = SocketAddr::new(NODE[0], MINECRAFT_PORT);
        let place = Place::netns(&self.node.client);
        let join = clients::node::minecraft_join(place, to, "alice", Duration::from_secs(2))?;
        let address = self.minecraft.seen_address("alice")?;
        self.timeline(MINECRAFT, &join, address)
    }

    fn luanti_player(&mut self) -> Result<()> {
        say("a player joins Luanti");
        let to = SocketAddr::new(NODE[0], LUANTI_PORT);
        let join = self.node.client.run(|| clients::luanti::join(to, "bob", TIMEOUT))?;
        let address = self.luanti.seen_address("bob")?;
        self.timeline(LUANTI, &join, address)
    }

    fn timeline(&self, name: &str, join: &Join, address: IpAddr) -> Result<()> {
        let why = self.answered(name)?;
        let last = why.last_wake.context("it was woken")?;
        let phases = last.phases;
        println!();
        println!("             first packet of the player    0");
        for (what, at) in [
            ("decided: a player", phases.decided_ns),
            ("thawed", phases.thawed_ns),
            ("first answer passes the door", phases.first_answer_ns),
        ] {
            if let Some(at) = at {
                println!("             {what:<30}{:>+9.2} ms", at as f64 / 1e6);
            }
        }
        println!(
            "             {:<30}{:>+9.2} ms  (as the player's program counts)",
            "in the world",
            join.joined.as_secs_f64() * 1e3
        );
        println!("             the server saw the player at   {address}");
        println!();
        tell(&format!("woken from {:?} by {}", last.from_stage, last.what));
        Ok(())
    }

    /// `why`, once the door has seen the first answer.
    fn answered(&self, name: &str) -> Result<Why> {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let why = self.daemon.why(name)?;
            let seen = |phases: &Phases| phases.first_answer_ns.is_some();
            if why.last_wake.as_ref().is_some_and(|wake| seen(&wake.phases)) || Instant::now() > until {
                return Ok(why);
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// What an operator sees.
    fn show_status(&self) -> Result<()> {
        let output = Command::new(sibling("dormouse")?)
            .arg("--socket")
            .arg(self.daemon.path("run/dormouse.sock"))
            .arg("status")
            .output()?;
        println!("           $ dormouse status");
        for row in String::from_utf8_lossy(&output.stdout).lines() {
            println!("           {row}");
        }
        let _ = (&self.minecraft_cgroup, &self.luanti_cgroup);
        Ok(())
    }
}

fn human(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

/// MemFree, bytes.
fn free_memory() -> Result<u64> {
    let info = fs::read_to_string("/proc/meminfo")?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemFree:")).context("MemFree")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
