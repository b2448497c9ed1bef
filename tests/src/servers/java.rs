//! Two small Java servers: a big live heap, and a tick with a watchdog as Minecraft has it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::{Game, Server, own};
use crate::clients;
use crate::owner;
use crate::process::{Place, Process};

/// Exit code with which the tick server's watchdog halts it (fixtures/java/Tick.java).
pub const WATCHDOG_EXIT: i32 = 71;

/// What the live heap consists of.
#[derive(Clone, Copy, Debug)]
pub enum Objects {
    /// 256 KiB each, as a game's chunks of its world. A collector does not read what is in them.
    Large,
    /// 2 KiB each: a collector comes to every page.
    Small,
}

/// A JVM with `mib` MiB of live heap that ticks 20 times a second and answers lines on TCP.
pub fn heap(place: Place<'_>, port: u16, mib: u32, objects: Objects) -> Result<Server> {
    let dir = owner::temp_dir("heap")?;
    compile("Heap", &dir)?;
    // Serial GC keeps a third of the heap for the young: the old generation must hold all that lives.
    let mut command = java(&dir, mib * 3 / 2 + 64);
    let bytes = match objects {
        Objects::Large => 256 << 10,
        Objects::Small => 2 << 10,
    };
    command.args(["Heap".to_owned(), mib.to_string(), port.to_string(), bytes.to_string()]);
    let mut process = Process::spawn("java Heap", command, place)?;
    process.wait_until(Duration::from_mins(2), || {
        place.run(|| clients::line::ask(own(port), "ping", Duration::from_secs(2)))
    })?;
    Ok(Server { game: Game::Heap, port, process, dir })
}

/// A server that speaks Minecraft's status and login, ticks 20 times a second, and halts with
/// [`WATCHDOG_EXIT`] when a tick took longer than `max-tick-time` (ms; -1 = off), which it reads from its
/// `server.properties` when it starts, like Mojang's server. Default there: 60,000.
pub fn tick(place: Place<'_>, port: u16, max_tick_time_ms: i64) -> Result<Server> {
    let dir = owner::temp_dir("tick")?;
    compile("Tick", &dir)?;
    set_max_tick_time(dir.path(), port, max_tick_time_ms)?;
    let mut command = java(&dir, 64);
    command.arg("Tick");
    let mut process = Process::spawn("java Tick", command, place)?;
    process.wait_until(Duration::from_mins(1), || {
        place.run(|| clients::minecraft::status(own(port), Duration::from_secs(2)))
    })?;
    Ok(Server { game: Game::Tick, port, process, dir })
}

/// Writes a `server.properties`; a running tick server doesn't look again, so this also forges the setting.
pub fn set_max_tick_time(dir: &Path, port: u16, max_tick_time_ms: i64) -> Result<()> {
    let path = dir.join("server.properties");
    let text =
        format!("#Minecraft server properties\nserver-port={port}\nmax-tick-time={max_tick_time_ms}\n");
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

fn java(dir: &TempDir, heap_mib: u32) -> Command {
    let mut command = Command::new("java");
    command.args([
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
        &format!("-Xmx{heap_mib}m"),
        "-cp",
    ]);
    command.arg(dir.path()).current_dir(dir.path());
    command
}

fn compile(class: &str, dir: &TempDir) -> Result<()> {
    let source = crate::fixtures().join("java").join(format!("{class}.java"));
    let out = Command::new("javac").arg("-d").arg(dir.path()).arg(&source).output();
    let out = out.context("run javac: run scripts/setup games")?;
    if !out.status.success() {
        bail!("javac {}: {}", source.display(), String::from_utf8_lossy(&out.stderr));
    }
    Ok(())
}
