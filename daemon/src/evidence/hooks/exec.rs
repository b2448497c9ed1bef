//! A program of the operator's: no shell, no input, a process group of its own in the daemon's cgroup (the
//! server's is about to be frozen).

use std::io;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;

use super::Moment;
use crate::evidence::shown;

/// What is kept of its output, bytes; the rest is read and dropped, so that it never waits for us.
const MOST_OUTPUT: usize = 4096;
/// What a pipe holds (pipe(7)).
const PIPE: usize = 65536;

#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("cannot start {program}: {source}; it must exist on the node and be executable")]
    Start { program: String, source: io::Error },
    #[error("{program} ended with {status}{}", said(.last_line))]
    Failed { program: String, status: ExitStatus, last_line: String },
}

fn said(last_line: &str) -> String {
    if last_line.is_empty() { String::new() } else { format!(" and said: {last_line}") }
}

/// Kills the whole group unless its leader has ended by itself.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

/// Its success is an exit status of 0. Its surroundings are `PATH`, `DORMOUSE_SERVER` and `DORMOUSE_STAGE`
/// (the hook's key): the daemon's own are nobody else's business.
pub async fn run(argv: &[String], server: &str, moment: Moment) -> Result<(), ExecError> {
    let program = argv.first().cloned().unwrap_or_default();
    let start = || {
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(&program);
        command.args(argv.iter().skip(1)).env_clear();
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.env("DORMOUSE_SERVER", server).env("DORMOUSE_STAGE", moment.name()).process_group(0);
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).kill_on_drop(true);
        // The command goes at the end of this block, and with it our copies of the pipe's writing end.
        Ok((Receiver::from_owned_fd(reader.into())?, command.spawn()?))
    };
    let (mut output, mut child) =
        start().map_err(|source| ExecError::Start { program: program.clone(), source })?;
    let mut group = Group(child.id().map(|id| Pid::from_raw(id as i32)));

    let (mut kept, mut chunk, mut open) = (Vec::new(), [0; 4096], true);
    let mut keep = |bytes: &[u8]| {
        kept.extend_from_slice(bytes);
        // The end of it tells what went wrong.
        kept.drain(..kept.len().saturating_sub(MOST_OUTPUT));
    };
    let ended = loop {
        tokio::select! {
            ended = child.wait() => break ended,
            read = output.read(&mut chunk), if open => match read {
                Ok(len @ 1..) => keep(&chunk[..len]),
                Ok(0) | Err(_) => open = false,
            },
        }
    };
    group.0 = None;
    // What is in the pipe by now; a process that it left behind may keep it open, and full, for ever. Not
    // through the runtime, which may not have heard yet that there is something.
    let mut left = PIPE;
    while left > 0
        && let Ok(len @ 1..) = nix::unistd::read(&output, &mut chunk)
    {
        keep(&chunk[..len]);
        left = left.saturating_sub(len);
    }
    let status = ended.map_err(|source| ExecError::Start { program: program.clone(), source })?;
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&kept);
    let last_line = shown(text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim());
    Err(ExecError::Failed { program, status, last_line })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::config::{Action, Hook};
    use crate::discover::testing::eventually;
    use crate::evidence::hooks::{self, HookError};

    async fn sh(script: &str, timeout: Duration) -> Result<(), HookError> {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let hook = Hook { action: Action::Exec(argv), timeout };
        hooks::run(&hook, "acme/survival", Moment::BeforeDoze).await
    }

    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn it_knows_its_server_and_nothing_of_the_daemon() {
        let script = "test \"$DORMOUSE_SERVER $DORMOUSE_STAGE\" = 'acme/survival before_doze' && \
                      test -z \"$CARGO$HOME\" && test \"$(ps -o pgid= -p $$ | tr -d ' ')\" = $$ && ! read line";
        sh(script, LONG).await.unwrap();
    }

    #[tokio::test]
    async fn a_failure_tells_its_last_words() {
        let error = sh("echo saving; echo 'disk \x1b[1mfull' >&2; exit 3", LONG).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("exit status: 3") && text.contains("said: disk") && text.ends_with("full"),
            "{text}"
        );
        assert!(!text.contains('\x1b'));
        assert!(sh("kill -9 $$", LONG).await.unwrap_err().to_string().contains("signal: 9"));
        let none = Hook { action: Action::Exec(vec!["/no/such".to_owned()]), timeout: LONG };
        let error = hooks::run(&none, "s", Moment::AfterWake).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot start /no/such"), "{error}");
    }

    #[tokio::test]
    async fn a_flood_of_output_neither_stops_it_nor_fills_memory() {
        let error =
            sh("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end; exit 1", LONG).await.unwrap_err();
        assert!(error.to_string().ends_with("said: end"), "{error}");
    }

    #[tokio::test]
    async fn what_it_leaves_behind_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pid_file = directory.path().join("pid");
        sh(&format!("sleep 1000 & echo $! > {}", pid_file.display()), LONG).await.unwrap();
        let left: i32 = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(Pid::from_raw(left), Signal::SIGKILL).unwrap();
    }

    /// Whether the process is gone, or about to be buried.
    fn dead(pid_file: &Path) -> bool {
        let pid = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
        crate::discover::process::ProcessId::of(pid).is_err()
    }

    /// As a timeout does too.
    #[tokio::test]
    async fn dropped_half_way_it_is_killed_with_all_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = format!("sh -c 'echo $$ > {0}.new; mv {0}.new {0}; sleep 1000'; true", file.display());
        tokio::select! {
            ended = sh(&script, LONG) => panic!("{ended:?}"),
            () = async { while !file.exists() { tokio::task::yield_now().await; } } => {}
        }
        eventually("the grandchild is dead", || dead(&file));
    }

    #[tokio::test]
    async fn too_slow_it_has_failed() {
        let error = sh("sleep 1000", Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, HookError::TimedOut { .. }), "{error}");
        assert_eq!(error.to_string(), "/bin/sh took longer than 50ms and was ended");
    }
}
