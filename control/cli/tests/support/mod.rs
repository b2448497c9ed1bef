//! A daemon's stand-in: answers HTTP on a Unix socket from a script, and remembers what was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Status and body for a method and path.
pub type Script = fn(&str) -> (u16, String);

pub struct Daemon {
    pub socket: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Daemon {
    pub fn start(script: Script) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("dormouse.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let ending = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (asked, ending) = (Arc::clone(&asked), Arc::clone(&ending));
            move || {
                for stream in listener.incoming() {
                    if ending.load(Ordering::Acquire) {
                        return;
                    }
                    answer(&stream.unwrap(), script, &asked);
                }
            }
        });
        Self { socket, asked, ending, thread: Some(thread), _folder: folder }
    }

    /// Runs `dormouse` against this daemon.
    pub fn run(&self, words: &[&str]) -> Output {
        dormouse().arg("--socket").arg(&self.socket).args(words).output().unwrap()
    }

    /// What was asked since the last time: method, path, body.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        // Wakes the accept; if it fails the listener is gone already.
        let _ = UnixStream::connect(&self.socket);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(stream: &UnixStream, script: Script, asked: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap() <= 2 {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let question = first.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let body = String::from_utf8(body).unwrap();
    asked.lock().unwrap().push(format!("{question} {body}").trim_end().to_owned());
    let (status, body) = script(&question);
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    // A caller that ends early is its own affair.
    let _ = { stream }.write_all((head + &body).as_bytes());
}

/// The command, with nothing of our own environment that it looks at.
pub fn dormouse() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
    command.env_remove("DORMOUSE_SOCKET").env_remove("SUDO_USER").env("USER", "anna").env("TZ", "UTC");
    command
}

pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}
