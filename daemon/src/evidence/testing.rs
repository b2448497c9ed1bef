//! A process whose files are looked at: with a working directory, and perhaps a root, of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use crate::config::{Layer, LayerPatch, Profile, Server, ServerFile, merge};
use crate::discover::process::ProcessId;

/// A server from the texts of its profile and its own file.
pub fn server(profile: &str, file: &str) -> Server {
    let profile = format!("verified = \"never\"\n{profile}\n[limits]\nfloor = \"dozing\"");
    let profile = Arc::new(Profile::parse("test", "test.toml", &profile).unwrap());
    let file = format!("name = \"survival\"\nselect = \"pid:1\"\nprofile = \"test\"\n{file}");
    let file = ServerFile::parse(Path::new("survival.toml"), &file).unwrap();
    let own =
        LayerPatch { layer: Layer::Server, from: "survival.toml".to_owned(), patch: file.patch.clone() };
    let layers = vec![profile.layer(), own];
    Server { limits: merge(&layers), file, profile, layers }
}

/// Dies with the test.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn in_directory(directory: &Path) -> Self {
        Self::shell(directory, ":")
    }

    /// One that runs a piece of shell first; back once it has.
    pub fn shell(directory: &Path, script: &str) -> Self {
        Self::start(Command::new("sh").current_dir(directory).args(["-c", &format!("{script}; {READY}")]))
    }

    /// In a mount namespace of its own, with `root` as its root and a working directory in it.
    pub fn in_own_mounts(root: &Path, directory: &str) -> Self {
        let script = format!(
            "mount --bind {root} {root} && cd {root} && mkdir -p .old && pivot_root . .old && cd {directory} && {READY}",
            root = root.display()
        );
        // pivot_root(8) is the last program: the new root has none, all after it is built into the shell.
        Self::start(Command::new("unshare").args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            &script,
        ]))
    }

    /// Chrooted, in the test's own mount namespace.
    pub fn in_chroot(root: &Path, directory: &str) -> Self {
        const PROGRAM: &str = "
import os, sys
os.chroot(sys.argv[1]); os.chdir(sys.argv[2])
print('ready', flush=True)
sys.stdin.read()";
        Self::start(Command::new("python3").args(["-c", PROGRAM]).arg(root).arg(directory))
    }

    /// With one socket, a listener.
    pub fn listening(directory: &Path) -> Self {
        const PROGRAM: &str = "
import socket, sys
listener = socket.create_server(('127.0.0.1', 0))
print('ready', flush=True)
sys.stdin.read()";
        Self::start(Command::new("python3").current_dir(directory).args(["-c", PROGRAM]))
    }

    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let process = Self { child };
        assert_eq!(line, "ready\n");
        process
    }

    pub fn id(&self) -> ProcessId {
        ProcessId::of(self.child.id() as i32).unwrap()
    }
}

/// Says so and waits for its input's end, with the shell's own words only.
const READY: &str = "echo ready; read line";

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
