//! The other programs of this installation: beside our own, else in PATH.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use dormouse_api::preflight::Preflight;

pub fn find(name: &str) -> Option<PathBuf> {
    let beside = env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|folder| folder.join(name));
    beside.into_iter().chain(in_path).find(|candidate| candidate.is_file())
}

/// Becomes the guard: its output and exit status are ours. Comes back only with an error.
pub fn become_guard(verb: &str) -> anyhow::Error {
    let Some(guard) = find("dormouse-guard") else {
        return anyhow::anyhow!(
            "dormouse-guard is neither beside this program nor in PATH: install it again"
        );
    };
    let error = Command::new(&guard).arg(verb).exec();
    anyhow::Error::new(error).context(format!("cannot run {}", guard.display()))
}

/// Runs `dormoused preflight` itself. `None`: it isn't installed here.
pub fn preflight() -> anyhow::Result<Option<Preflight>> {
    let Some(daemon) = find("dormoused") else { return Ok(None) };
    let shown = daemon.display();
    let output = Command::new(&daemon)
        .args(["preflight", "-o", "json"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    // A check that fails may show in its exit status too; the checks themselves say it better.
    match serde_json::from_slice(&output.stdout) {
        Ok(preflight) => Ok(Some(preflight)),
        Err(_) if !output.status.success() => bail!("{shown} preflight failed: {}", output.status),
        Err(error) => Err(error).with_context(|| format!("what {shown} preflight printed is not understood")),
    }
}
