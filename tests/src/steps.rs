//! The test's side of the daemon's steps ([`dormouse_daemon::failpoint`]): lets a program run until it stands
//! at a wanted one, and holds it there.

use std::{
    collections::BTreeSet,
    io::Read,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use dormouse_daemon::failpoint;
use tempfile::TempDir;

use crate::owner;

/// Listens to programs that were started with [`Steps::env`].
pub struct Steps {
    path: PathBuf,
    wanted: Arc<Mutex<Option<String>>>,
    seen: Arc<Mutex<BTreeSet<String>>>,
    caught: Mutex<mpsc::Receiver<Held>>,
    over: Arc<AtomicBool>,
    _dir: TempDir,
}

/// A program's thread stands at the wanted step until this is dropped.
pub struct Held {
    _program: UnixStream,
}

impl Steps {
    /// # Errors
    /// No socket can be made.
    pub fn listen() -> Result<Self> {
        let dir = owner::temp_dir("steps")?;
        let path = dir.path().join("steps.sock");
        let listener = UnixListener::bind(&path).context("listen to steps")?;
        let (sender, caught) = mpsc::channel();
        let wanted = Arc::new(Mutex::new(None::<String>));
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let over = Arc::new(AtomicBool::new(false));
        let steps = Self {
            path,
            wanted: Arc::clone(&wanted),
            seen: Arc::clone(&seen),
            caught: Mutex::new(caught),
            over: Arc::clone(&over),
            _dir: dir,
        };
        thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let mut step = String::new();
                if stream.read_to_string(&mut step).is_err() {
                    continue;
                }
                let mut wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
                if wanted.as_deref() == Some(&step) {
                    *wanted = None;
                    let _ = sender.send(Held { _program: stream });
                }
                drop(wanted);
                seen.lock().unwrap_or_else(PoisonError::into_inner).insert(step);
            }
        });
        Ok(steps)
    }

    /// What a program's environment needs.
    pub fn env(&self) -> (&'static str, String) {
        (failpoint::SOCKET, self.path.display().to_string())
    }

    /// The next that comes to this step is held there.
    pub fn want(&self, step: &str) {
        // Who was held for an earlier wish and never asked for goes on.
        self.caught.lock().unwrap_or_else(PoisonError::into_inner).try_iter().for_each(drop);
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(step.to_owned());
    }

    /// Waits for the wanted one; `None` when it does not come in time, and the wish is gone.
    pub fn caught(&self, within: Duration) -> Option<Held> {
        let held = self.caught.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(within).ok();
        if held.is_none() {
            *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        held
    }

    /// Every step that was come to so far.
    pub fn seen(&self) -> BTreeSet<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        // Ends the wait for the next one.
        let _ = UnixStream::connect(&self.path);
    }
}
