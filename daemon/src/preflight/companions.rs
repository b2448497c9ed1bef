//! Who works beside the daemon: the guard, the helper for namespaces, systemd.

use std::path::{Path, PathBuf};

use dormouse_api::preflight::Check;

use super::{fail, ok, warn, whole};
use crate::config::Node;
use crate::netns::Helper;

const GUARD: &str = "dormouse-guard";
/// The guard's own default (`dormouse-guard --help`).
const RUN_DIR: &str = "/run/dormouse";

pub fn checks(node: &Node) -> [Check; 3] {
    [guard(node), helper(&helper_path()), systemd(Path::new("/run/systemd/system"))]
}

/// The helper's place: beside this program.
pub fn helper_path() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.parent().unwrap_or(Path::new("/")).join("dormouse-netns")
}

/// The guard of this node, by its program and the run directory that it was given.
pub fn guard_pid(node: &Node) -> Option<i32> {
    let processes = procfs::process::all_processes().ok()?.flatten();
    let mut guards = processes.filter(|process| process.stat().is_ok_and(|stat| stat.comm == GUARD));
    guards
        .find(|process| process.cmdline().is_ok_and(|line| guards_here(&line, &node.run_dir)))
        .map(|process| process.pid)
}

fn guards_here(cmdline: &[String], run_dir: &Path) -> bool {
    let mut words = cmdline.iter();
    let (mut runs, mut dir) = (false, RUN_DIR);
    while let Some(word) = words.next() {
        match word.as_str() {
            "run" => runs = true,
            "--run-dir" => dir = words.next().map_or(dir, String::as_str),
            word => dir = word.strip_prefix("--run-dir=").unwrap_or(dir),
        }
    }
    runs && Path::new(dir) == run_dir
}

fn guard(node: &Node) -> Check {
    match guard_pid(node) {
        Some(pid) => ok("guard", format!("runs as pid {pid}")),
        None => fail(
            "guard",
            "does not run: if the daemon died, nobody would wake its sleepers",
            format!(
                "systemctl enable --now dormouse-guard, or start `dormouse-guard run --run-dir {}`",
                node.run_dir.display()
            ),
        ),
    }
}

/// Really asked for sockets, in our own namespace: entering one needs the same right whosever it is.
fn helper(path: &Path) -> Check {
    let name = "dormouse-netns";
    let asked = Helper::spawn(path).and_then(|helper| helper.sockets(std::process::id() as i32));
    match asked {
        Ok(_) => ok(name, format!("{} opens sockets in a server's namespace", path.display())),
        Err(error) => fail(
            name,
            whole(error),
            "install dormouse-netns beside the daemon and let it have CAP_SYS_ADMIN (setcap cap_sys_admin+ep, with \
             the capability in the unit's CapabilityBoundingSet=); only it needs that, to enter namespaces",
        ),
    }
}

/// sd_booted(3).
fn systemd(sign: &Path) -> Check {
    if sign.is_dir() {
        ok("systemd", "runs: servers can be named by unit:NAME")
    } else {
        let found = "does not run: there are no units, and nobody restarts the daemon or the guard";
        warn("systemd", found, "name servers by cgroup:GLOB, and let a supervisor of yours restart both")
    }
}

#[cfg(test)]
mod tests {
    use dormouse_api::preflight::CheckResult;

    use super::*;

    #[test]
    fn a_guard_is_known_by_what_it_was_started_with() {
        let guards = |line: &str, dir: &str| {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            guards_here(&words, Path::new(dir))
        };
        assert!(guards("/usr/bin/dormouse-guard run", "/run/dormouse"));
        assert!(guards("dormouse-guard --run-dir /a run --stale-after 2s", "/a"));
        assert!(guards("dormouse-guard run --run-dir=/a", "/a"));
        assert!(!guards("dormouse-guard run --run-dir /b", "/a"));
        assert!(!guards("dormouse-guard status", "/run/dormouse"));
        assert!(!guards("dormouse-guard run --run-dir", "/a"));
    }

    #[test]
    fn who_is_missing_is_told_with_the_remedy() {
        let missing = helper(Path::new("/no/such/dormouse-netns"));
        assert!(missing.result == CheckResult::Fail && missing.found.contains("/no/such"), "{missing:?}");
        assert_eq!(helper(Path::new("/bin/true")).result, CheckResult::Fail);
        let text = "run_dir = \"/run/no-such-dormouse\"";
        let node = Node::parse(Path::new("/x.toml"), text).unwrap();
        assert!(guard(&node).remedy.unwrap().contains("/run/no-such-dormouse"));
        assert_eq!(systemd(Path::new("/no/such")).result, CheckResult::Warn);
    }
}
