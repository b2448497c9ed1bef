//! `off` puts back all that dormouse ever changed and keeps it so; `on` lets it begin again.

use std::{
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::sys::statfs::{FsType, statfs};

use super::{
    Paths, Pins,
    watch::{Verdict, Watch},
};
use crate::{
    door::monotonic_ns,
    failpoint,
    undo::{Change, Outcome, Owner, UndoLog, logs},
};

/// How long a living daemon gets to see the marker and put everything back itself.
const YIELD: Duration = Duration::from_secs(3);

/// Turns dormouse off and tells `out` what was put back. Needs no daemon; idempotent.
///
/// Returns whether everything is as it was before dormouse.
pub fn off(paths: &Paths, out: &mut impl Write) -> anyhow::Result<bool> {
    // Before anything else, so that a living daemon does not do it again.
    let marker = paths.off_marker();
    let written = std::fs::create_dir_all(&paths.state_dir)
        .and_then(|()| std::fs::write(&marker, "dormouse is off until `dormouse on`\n"));
    if let Err(error) = &written {
        // Servers that sleep now matter more than a restart later.
        writeln!(
            out,
            "cannot write {}: {error}; dormouse will be on again after a restart",
            marker.display()
        )?;
    }
    failpoint::at("off-marked");
    wait_for_daemon(paths)?;
    let mut complete = written.is_ok();
    for log in logs(&paths.run_dir).context("cannot read what to put back")? {
        complete &= play(&log, out)?;
    }
    failpoint::at("off-played");
    complete &= remove_pins(&paths.pin_dir, out)?;
    writeln!(out, "dormouse is off{}", if complete { "" } else { ", but not all is put back; see above" })?;
    Ok(complete)
}

/// Removes the marker; a running daemon goes on by itself.
pub fn on(paths: &Paths, out: &mut impl Write) -> anyhow::Result<()> {
    let marker = paths.off_marker();
    match std::fs::remove_file(&marker) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => writeln!(out, "dormouse was not off")?,
        removed => {
            removed.with_context(|| format!("cannot remove {}", marker.display()))?;
            failpoint::at("on-unmarked");
            writeln!(out, "dormouse is on")?;
        }
    }
    Ok(())
}

fn wait_for_daemon(paths: &Paths) -> anyhow::Result<()> {
    let deadline = Instant::now() + YIELD;
    let Ok(pins) = Pins::open(&paths.pin_dir) else { return Ok(()) };
    // The door's own stale_after counts; this one only if it has none.
    let mut watch = Watch::new(YIELD, YIELD);
    while Instant::now() < deadline
        && watch.judge(monotonic_ns(), pins.reading()) == Verdict::Alive
        && !logs(&paths.run_dir).context("cannot read what to put back")?.is_empty()
    {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn play(log: &UndoLog, out: &mut impl Write) -> anyhow::Result<bool> {
    let owner = match log.owner() {
        Owner::Server(name) => format!("server {name}"),
        Owner::Node => "node".to_owned(),
    };
    let played = match log.play_back() {
        Ok(played) => played,
        Err(error) => {
            writeln!(out, "{owner}: {:#}", anyhow::Error::from(error))?;
            return Ok(false);
        }
    };
    let mut complete = true;
    if played.unreadable > 0 {
        writeln!(
            out,
            "{owner}: {} lines of its undo log cannot be read and were passed over",
            played.unreadable
        )?;
    }
    if let Some(error) = played.unmarked {
        complete = false;
        writeln!(out, "{owner}: put back, but still in the log: {:#}", anyhow::Error::from(error))?;
    }
    for (change, outcome) in played.changes {
        match outcome {
            Ok(outcome) => writeln!(out, "{owner}: {change} {outcome}")?,
            Err(error) => {
                complete = false;
                writeln!(out, "{owner}: {change}: {:#}", anyhow::Error::from(error))?;
            }
        }
    }
    Ok(complete)
}

/// Removes dormouse's folder in the bpffs with all that is pinned in it, of every layout.
fn remove_pins(pin_dir: &Path, out: &mut impl Write) -> anyhow::Result<bool> {
    if !pin_dir.exists() {
        return Ok(true);
    }
    let kind =
        statfs(pin_dir).with_context(|| format!("cannot look at {}", pin_dir.display()))?.filesystem_type();
    if kind != FsType(libc::BPF_FS_MAGIC) {
        writeln!(out, "{} is not in a bpffs, left alone", pin_dir.display())?;
        return Ok(true);
    }
    remove_tree(pin_dir, out)
}

pub(crate) fn remove_tree(folder: &Path, out: &mut impl Write) -> anyhow::Result<bool> {
    let context = || format!("cannot list {}", folder.display());
    let mut complete = true;
    for entry in std::fs::read_dir(folder).with_context(context)? {
        let entry = entry.with_context(context)?;
        let path = entry.path();
        if entry.file_type().with_context(context)?.is_dir() {
            complete &= remove_tree(&path, out)?;
            continue;
        }
        let change = Change::Pin { path };
        let removed = change.put_back();
        failpoint::at("off-unpinned");
        match removed {
            Ok(Outcome::Restored) => writeln!(out, "node: {change} removed")?,
            Ok(_) => {}
            Err(error) => {
                complete = false;
                writeln!(out, "node: {:#}", anyhow::Error::from(error))?;
            }
        }
    }
    if complete {
        std::fs::remove_dir(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(complete)
}
