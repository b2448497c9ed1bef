//! Runs a local tool (systemctl, docker, podman) without a shell and never waits for it for long.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A tool that hangs (a stuck container runtime) is killed after this.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Answers are a few lines; a pipe holds this much without anybody reading.
const OUTPUT: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{program} is not installed (or not in PATH)")]
    Missing { program: String },
    #[error("cannot run {program}")]
    Run { program: String, source: io::Error },
    #[error("{program} gave no answer within {} s and was stopped: is its service stuck?", TIMEOUT.as_secs())]
    Timeout { program: String },
    #[error("{program} failed ({status}): {stderr}")]
    Failed { program: String, status: std::process::ExitStatus, stderr: String },
}

/// The standard output of `program arguments…`.
pub fn run(program: &OsStr, arguments: &[&str]) -> Result<String, CommandError> {
    run_within(TIMEOUT, program, arguments)
}

/// As [`run`], for a tool that takes whoever lacks CAP_SYS_ADMIN for an ordinary user and shows him other things, as
/// podman does (containers/storage, pkg/unshare). dormoused's unit has no such right: there systemd runs the tool.
pub fn run_as_root(program: &OsStr, arguments: &[&str]) -> Result<String, CommandError> {
    if is_sys_admin() {
        return run(program, arguments);
    }
    let limit = format!("RuntimeMaxSec={}", TIMEOUT.as_secs());
    let program = program.to_string_lossy();
    let tool = std::iter::once(&*program).chain(arguments.iter().copied());
    // systemd puts variables in.
    let tool: Vec<String> = tool.map(|word| word.replace('$', "$$")).collect();
    let mut words = vec!["--quiet", "--pipe", "--wait", "--collect", "--property", &limit, "--"];
    words.extend(tool.iter().map(String::as_str));
    run(OsStr::new("systemd-run"), &words)
}

/// The line `CapEff` of proc_pid_status(5); who can't read it will hear of it from the tool.
fn is_sys_admin() -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let status = procfs::process::Process::myself().and_then(|own| own.status());
    status.map_or(true, |status| status.capeff & CAP_SYS_ADMIN != 0)
}

fn run_within(timeout: Duration, program: &OsStr, arguments: &[&str]) -> Result<String, CommandError> {
    let name = || program.to_string_lossy().into_owned();
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => CommandError::Missing { program: name() },
            _ => CommandError::Run { program: name(), source },
        })?;
    let deadline = Instant::now() + timeout;
    let waited = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) if Instant::now() >= deadline => break Err(CommandError::Timeout { program: name() }),
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(source) => break Err(CommandError::Run { program: name(), source }),
        }
    };
    if waited.is_err() {
        // The child is not reaped yet, so the number is still its own. Failures mean that it is gone.
        let _ = child.kill();
        let _ = child.wait();
    }
    let status = waited?;
    let stdout = child.stdout.take().map(what_is_there).unwrap_or_default();
    if status.success() {
        return Ok(stdout);
    }
    let stderr = child.stderr.take().map(what_is_there).unwrap_or_default();
    Err(CommandError::Failed { program: name(), status, stderr: stderr.trim().to_owned() })
}

/// What the tool has written. One read of a pipe gives all that is in it; waiting for its end could take as
/// long as a left-over grandchild lives.
fn what_is_there(mut pipe: impl Read + std::os::fd::AsFd) -> String {
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    let mut text = vec![0; OUTPUT];
    let length = nix::fcntl::fcntl(pipe.as_fd(), flags)
        .map_err(io::Error::from)
        .and_then(|_| pipe.read(&mut text))
        .unwrap_or_default();
    text.truncate(length);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_failure_absence_and_hanging_are_told_apart() {
        let sh = OsStr::new("sh");
        assert_eq!(run(sh, &["-c", "echo $LC_ALL; sleep 2 & echo two"]).unwrap(), "C\ntwo\n");
        let error = run(sh, &["-c", "echo no such thing >&2; exit 3"]).unwrap_err();
        assert!(error.to_string().ends_with("no such thing"), "{error}");
        let error = run(OsStr::new("no-such-tool"), &[]).unwrap_err();
        assert!(matches!(error, CommandError::Missing { .. }), "{error}");
        let error = run_within(Duration::from_millis(50), sh, &["-c", "exec sleep 1000"]).unwrap_err();
        assert!(matches!(error, CommandError::Timeout { .. }), "{error}");
    }
}
