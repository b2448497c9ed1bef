use std::io::Write as _;
use std::process::{Command, Stdio};

use super::*;
use crate::discover::mounts::Controllers;
use crate::discover::testing::{Cgroup, Namespace, Victim, message};

fn root() -> CgroupRoot {
    CgroupRoot::find().unwrap()
}

fn selector(text: &str) -> Selector {
    text.parse().unwrap()
}

#[test]
fn a_cgroup_is_found_by_glob_with_its_processes_and_again_after_a_restart() {
    let games = Cgroup::new("select");
    let (one, two) = (games.child("one"), games.child("two"));
    let name = games.name();
    let first = Victim::sleep_in(&one.join("below"));
    let all = selector(&format!("cgroup:/{name}/*"));
    let found = all.resolve(&root()).unwrap();
    assert_eq!(found.cgroup, one);
    assert_eq!(found.pids, [first.pid()]);
    assert_eq!(found.main, ProcessId::of(first.pid()).unwrap());
    assert!(found.host_network);

    let second = Victim::sleep_in(&two);
    assert_eq!(all.matches(&root()), [one.clone(), two]);
    let error = all.resolve(&root()).unwrap_err();
    assert!(message(&error).contains(&format!("/{name}/one, /{name}/two")), "{error}");
    let error = selector(&format!("cgroup:/{name}/three")).resolve(&root()).unwrap_err();
    assert!(matches!(error, ResolveError::NoMatch { .. }));
    assert!(message(&error).contains(&format!("/{name}/one, /{name}/two")), "{error}");

    drop((first, second));
    let error = all.resolve(&root()).unwrap_err();
    assert!(matches!(error, ResolveError::NotRunning { .. }), "{error}");
    let again = Victim::sleep_in(&one);
    assert_eq!(all.resolve(&root()).unwrap().main.pid, again.pid());
}

#[test]
fn a_pid_is_found_by_its_cgroup_and_refused_where_a_freeze_would_harm() {
    let cgroup = Cgroup::new("pid");
    let victim = Victim::sleep_in(cgroup.path());
    let selector = Selector::Pid(victim.pid());
    assert_eq!(selector.resolve(&root()).unwrap().cgroup, cgroup.path());

    drop(victim);
    let error = selector.resolve(&root()).unwrap_err();
    assert!(message(&error).contains("is gone"), "{error}");
    let outside = Victim::sleep_in(&root().path);
    let error = Selector::Pid(outside.pid()).resolve(&root()).unwrap_err();
    assert!(matches!(error, ResolveError::Refused { why: Refusal::Root, .. }), "{error}");
}

#[test]
fn pid_1_and_ourselves_are_refused() {
    // A directory that stands in for the hierarchy: the real ones must not be moved.
    let directory = tempfile::tempdir().unwrap();
    let root = CgroupRoot { path: directory.path().to_owned(), controllers: Controllers::default() };
    let cgroup = directory.path().join("games");
    std::fs::create_dir(&cgroup).unwrap();
    let selector = selector("cgroup:/games");
    std::fs::write(cgroup.join("cgroup.procs"), "1\n").unwrap();
    let error = selector.resolve(&root).unwrap_err();
    assert!(message(&error).contains("pid 1"), "{error}");
    std::fs::write(cgroup.join("cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
    let error = selector.resolve(&root).unwrap_err();
    assert!(message(&error).contains("dormouse itself"), "{error}");
}

#[test]
fn answers_of_systemctl_and_of_the_runtimes_are_read() {
    let unit = selector("unit:game");
    let answer = "MainPID=42\nControlGroup=/system.slice/game.service\nLoadState=loaded\n";
    assert_eq!(unit.read_unit(answer).unwrap(), ("/system.slice/game.service".to_owned(), Some(42)));
    let answer = "MainPID=0\nControlGroup=\nLoadState=loaded\n";
    assert!(matches!(unit.read_unit(answer), Err(ResolveError::NotRunning { .. })));
    let answer = "MainPID=0\nControlGroup=\nLoadState=not-found\n";
    assert!(matches!(unit.read_unit(answer), Err(ResolveError::NoSuchUnit { .. })));

    let container = selector("docker:mc");
    assert_eq!(container.read_pid("docker", "4242\n").unwrap(), 4242);
    assert!(matches!(container.read_pid("docker", "0\n"), Err(ResolveError::NotRunning { .. })));
    assert!(matches!(container.read_pid("docker", "<no value>"), Err(ResolveError::Answer { .. })));
}

/// Stands in for docker and podman: answers with a pid if it is asked as they are.
fn fake_runtime(directory: &Path, pid: i32) -> &'static str {
    let script = format!(
        "#!/bin/sh\n[ \"$*\" = 'inspect --type container -f {{{{.State.Pid}}}} -- mc' ] || exit 9\necho {pid}\n"
    );
    let path = directory.join("runtime");
    // Written by another process: a descriptor open for writing, inherited by some fork of a test beside this
    // one, would make the kernel refuse to run it (ETXTBSY).
    let mut shell = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod +x \"$0\""])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
    String::leak(path.to_str().unwrap().to_owned())
}

#[test]
fn a_container_is_found_in_its_cgroup_and_refused_in_its_runtimes() {
    const PARENT: &str = "
import subprocess
child = subprocess.Popen(['sleep', '1000'])
print('ready')
child.wait()
";
    let cgroup = Cgroup::new("container");
    let directory = tempfile::tempdir().unwrap();
    let container = selector("docker:mc");
    let namespace = Namespace::new();
    let server =
        Victim::python("import time; print('ready'); time.sleep(1000)", cgroup.path(), Some(&namespace));
    let runtime = fake_runtime(directory.path(), server.pid());
    let (path, main) = container.container(&root(), runtime, "mc").unwrap();
    assert_eq!(main.unwrap().pid, server.pid());
    let found = container.checked(&root(), path, main).unwrap();
    assert_eq!(found.cgroup, cgroup.path());
    assert!(!found.host_network);

    let shared = cgroup.child("shared");
    let _runtime = Victim::python(PARENT, &shared, None);
    let pids = cgroup_pids(&shared).unwrap();
    let child = pids.iter().copied().max_by_key(|&pid| ProcessId::of(pid).unwrap()).unwrap();
    let runtime = fake_runtime(directory.path(), child);
    let error = container.container(&root(), runtime, "mc").unwrap_err();
    assert!(matches!(error, ResolveError::Refused { why: Refusal::SharedWithRuntime(_), .. }), "{error}");
}

#[test]
fn a_missing_runtime_is_named() {
    let selector = selector("docker:mc");
    let error = selector.tool(OsStr::new("no-such-runtime"), &[]).unwrap_err();
    assert!(message(&error).contains("docker:mc"), "{error}");
    assert!(message(&error).contains("no-such-runtime is not installed"), "{}", message(&error));
}
