//! On the real kernel: needs root and a cgroup v2 mount.

use std::process::{Child, Command};

use super::*;
use crate::{act::doze, undo::UndoLog};

/// A cgroup of its own with processes of its own; both go with it, also on panic.
struct Scratch {
    path: PathBuf,
    children: Vec<Child>,
}

impl Scratch {
    fn new(name: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|words| words[2] == "cgroup2")
            .expect("a cgroup v2 mount")[1]
            .to_owned();
        let path = Path::new(&root).join(format!("dormouse-freezer-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self { path, children: Vec::new() }
    }

    /// Runs a shell line inside the cgroup from its first instruction on.
    fn run(&mut self, line: &str) {
        let script = format!("echo $$ > {}/cgroup.procs && {line}", self.path.display());
        self.children.push(Command::new("sh").args(["-c", &script]).spawn().unwrap());
        let started = Instant::now();
        while !Freezer::open(&self.path).unwrap().state().unwrap().populated {
            assert!(started.elapsed() < Duration::from_secs(30));
            std::thread::yield_now();
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let below = self.path.join("below");
        for cgroup in [&below, &self.path] {
            let _ = std::fs::write(cgroup.join("cgroup.kill"), "1");
            let _ = std::fs::write(cgroup.join(SETTING), "0");
        }
        for child in &mut self.children {
            let _ = child.wait();
        }
        for cgroup in [&below, &self.path] {
            for _ in 0..1000 {
                if !cgroup.exists() || std::fs::remove_dir(cgroup).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn freezes_and_thaws_forking_processes_again_and_again() {
    let mut scratch = Scratch::new("forking");
    scratch.run("while :; do true & wait; /bin/true; done");
    let mut freezer = Freezer::open(&scratch.path).unwrap();
    for _ in 0..20 {
        freezer.freeze(PATIENCE).unwrap();
        assert_eq!(freezer.state().unwrap(), FreezeState { set: true, frozen: true, populated: true });
        freezer.thaw().unwrap();
        freezer.wait_thawed(PATIENCE).unwrap();
    }
}

#[test]
fn freezes_two_hundred_threads() {
    let mut scratch = Scratch::new("threads");
    scratch.run(
        "exec python3 -c 'import threading,time\n\
         for _ in range(200): threading.Thread(target=lambda: time.sleep(600), daemon=True).start()\n\
         time.sleep(600)'",
    );
    let threads = || std::fs::read_to_string(scratch.path.join("cgroup.threads")).unwrap().lines().count();
    let started = Instant::now();
    while threads() < 201 {
        assert!(started.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut freezer = Freezer::open(&scratch.path).unwrap();
    freezer.freeze(PATIENCE).unwrap();
    freezer.thaw().unwrap();
    freezer.wait_thawed(PATIENCE).unwrap();
}

#[test]
fn an_empty_cgroup_freezes() {
    let scratch = Scratch::new("empty");
    let mut freezer = Freezer::open(&scratch.path).unwrap();
    freezer.freeze(PATIENCE).unwrap();
    assert!(!freezer.state().unwrap().populated);
}

/// A FUSE file system that never answers: who asks it waits in the kernel, killable and not freezable.
struct MuteFileSystem {
    mount: tempfile::TempDir,
    _device: File,
}

impl MuteFileSystem {
    fn new() -> Self {
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let mount = tempfile::tempdir().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&device);
        let options = format!("fd={fd},rootmode=40000,user_id=0,group_id=0");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("mute"), mount.path(), Some("fuse"), flags, Some(options.as_str())).unwrap();
        Self { mount, _device: device }
    }
}

impl Drop for MuteFileSystem {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.mount.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_freeze_that_takes_too_long_is_taken_back() {
    let mute = MuteFileSystem::new();
    let mut scratch = Scratch::new("timeout");
    scratch.run(&format!("exec cat {}/file", mute.mount.path().display()));
    let waits_in = format!("/proc/{}/wchan", scratch.children[0].id());
    let started = Instant::now();
    while !std::fs::read_to_string(&waits_in).unwrap().contains("fuse") {
        assert!(started.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut freezer = Freezer::open(&scratch.path).unwrap();
    let error = freezer.freeze(Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, FreezeError::FreezeTimeout { .. }), "{error}");
    assert!(!freezer.state().unwrap().set);
    let run_dir = tempfile::tempdir().unwrap();
    let log = UndoLog::of_server(run_dir.path(), "timeout", 0).unwrap();
    doze::freeze(&mut freezer, &log, Duration::from_millis(50)).unwrap_err();
    assert!(log.contents().unwrap().pending.is_empty());
}

#[test]
fn a_vanished_cgroup_says_so() {
    let scratch = Scratch::new("vanished");
    let mut freezer = Freezer::open(&scratch.path).unwrap();
    std::fs::remove_dir(&scratch.path).unwrap();
    for error in [
        freezer.freeze(PATIENCE).unwrap_err(),
        freezer.thaw().unwrap_err(),
        freezer.wait_thawed(PATIENCE).unwrap_err(),
        Freezer::open(&scratch.path).unwrap_err(),
    ] {
        assert!(matches!(error, FreezeError::Vanished { .. }), "{error}");
    }
}

#[test]
fn a_frozen_server_can_be_killed_and_its_cgroup_thawed() {
    let mut scratch = Scratch::new("killed");
    scratch.run("exec sleep 600");
    let mut freezer = Freezer::open(&scratch.path).unwrap();
    freezer.freeze(PATIENCE).unwrap();
    scratch.children[0].kill().unwrap();
    scratch.children[0].wait().unwrap();
    freezer.thaw().unwrap();
    freezer.wait_thawed(PATIENCE).unwrap();
    assert!(!freezer.state().unwrap().populated);
}

#[test]
fn a_frozen_ancestor_is_named() {
    let scratch = Scratch::new("ancestor");
    let below = scratch.path.join("below");
    std::fs::create_dir(&below).unwrap();
    let mut above = Freezer::open(&scratch.path).unwrap();
    let mut freezer = Freezer::open(&below).unwrap();
    above.freeze(PATIENCE).unwrap();
    assert_eq!(freezer.state().unwrap(), FreezeState { set: false, frozen: true, populated: false });
    match freezer.wait_thawed(PATIENCE).unwrap_err() {
        FreezeError::FrozenByAncestor { ancestor, .. } => assert_eq!(ancestor, scratch.path),
        other => panic!("{other}"),
    }
}

#[test]
fn a_freeze_of_somebody_else_is_left_alone() {
    let scratch = Scratch::new("else");
    std::fs::write(scratch.path.join(SETTING), "1").unwrap();
    let mut freezer = Freezer::open(&scratch.path).unwrap();
    let error = freezer.freeze(PATIENCE).unwrap_err();
    assert!(matches!(error, FreezeError::FrozenBySomebodyElse { .. }), "{error}");
    let run_dir = tempfile::tempdir().unwrap();
    let log = UndoLog::of_server(run_dir.path(), "else", 0).unwrap();
    doze::freeze(&mut freezer, &log, PATIENCE).unwrap_err();
    log.play_back().unwrap();
    assert!(freezer.state().unwrap().set);
}

#[test]
fn the_root_of_the_hierarchy_is_not_freezable() {
    let scratch = Scratch::new("root");
    let error = Freezer::open(scratch.path.parent().unwrap()).unwrap_err();
    assert!(matches!(error, FreezeError::NotFreezable { .. }), "{error}");
}
