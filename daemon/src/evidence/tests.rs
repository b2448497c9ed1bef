use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::testing::{Process, server};
use super::*;
use crate::discover::sockets::Listener;
use crate::stage::Outbound;

fn found(process: &Process) -> Found {
    let main = process.id();
    Found { cgroup: PathBuf::from("/"), pids: vec![main.pid], main, host_network: true }
}

async fn look(
    server: &Server,
    process: &Process,
    last_player: Option<Duration>,
    run_hook: bool,
) -> (Evidence, EvidenceDetails) {
    gather(server, &found(process), &Sockets::default(), last_player, run_hook).await
}

const MINECRAFT: &str = "watchdog = [\"server.properties:max-tick-time=-1\"]\n\
    [save.hook]\ncommand = \"save-all flush\"";

#[tokio::test(start_paused = true)]
async fn nothing_known_is_told_as_such_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::in_directory(directory.path());
    let (evidence, details) = look(&server(MINECRAFT, ""), &process, None, true).await;
    assert_eq!((evidence.save, evidence.watchdog), (Save::NoEvidence, Watchdog::Unknown));
    assert_eq!(evidence.outbound, Outbound::None);
    assert_eq!(evidence.watchdog_cure.as_deref(), Some("max-tick-time=-1 in server.properties"));
    assert!(details.watchdog.starts_with("unknown (there is no /"), "{}", details.watchdog);
    let SaveDetails::Missing { reason } = details.save else { panic!("{details:?}") };
    assert_eq!(
        reason,
        "it has neither a before_doze hook (the game's own command is \"save-all flush\") nor save_files"
    );
}

#[tokio::test(start_paused = true)]
async fn an_operator_vouches_for_both() {
    let assert = "[assert]\nwatchdog = { value = \"off\", reason = \"patched\" }\n\
                  save = { value = \"not-needed\", reason = \"a lobby\" }";
    let process = Process::in_directory(Path::new("/"));
    let (evidence, details) = look(&server(MINECRAFT, assert), &process, None, true).await;
    assert_eq!((evidence.save, evidence.watchdog), (Save::NotNeeded, Watchdog::AssertedOff));
    assert_eq!(details.watchdog, "off, says its operator (patched)");
    assert_eq!(details.save, SaveDetails::NotNeeded { reason: "says its operator (a lobby)".to_owned() });
}

#[tokio::test]
async fn a_hook_that_succeeds_has_saved_and_one_that_fails_has_not() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::in_directory(directory.path());
    let ran = directory.path().join("ran");
    let hook = |script: String| {
        server(MINECRAFT, &format!("[hooks.before_doze]\nexec = [\"/bin/sh\", \"-c\", \"{script}\"]"))
    };
    let touches = hook(format!("touch {}", ran.display()));
    let before = boot_now();

    let (evidence, _) = look(&touches, &process, None, false).await;
    assert_eq!(evidence.save, Save::NotTried);
    assert!(!ran.exists(), "observe touches nothing");

    let (evidence, details) = look(&touches, &process, None, true).await;
    let Save::Saved { at } = evidence.save else { panic!("{evidence:?}") };
    assert!(ran.exists() && at >= before);
    assert!(matches!(details.save, SaveDetails::Saved { by, .. } if by == "/bin/sh"));

    let (evidence, details) = look(&hook("echo disk full; exit 1".to_owned()), &process, None, true).await;
    assert!(
        matches!(&evidence.save, Save::Failed { reason } if reason.ends_with("said: disk full")),
        "{evidence:?}"
    );
    assert!(matches!(details.save, SaveDetails::Missing { .. }));
}

#[tokio::test]
async fn a_hook_gets_no_more_time_than_a_save_may_take() {
    let process = Process::in_directory(Path::new("/"));
    let slow = server(
        MINECRAFT,
        "[limits]\nsave_wait = \"100ms\"\n[hooks.before_doze]\nexec = [\"/bin/sleep\", \"1000\"]",
    );
    let (evidence, _) = look(&slow, &process, None, true).await;
    let Save::Failed { reason } = evidence.save else { panic!("{evidence:?}") };
    assert!(reason.starts_with("/bin/sleep took longer than"), "{reason}");
}

const FILES: &str = "watchdog = \"none\"\nsave = { files = [\"worlds/*.db\"] }";

/// A world in a directory of its own, written this long ago.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("worlds")).unwrap();
        Self(directory)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("worlds/one.db")
    }

    fn written(&self, ago: Duration) {
        let file = fs::File::create(self.file()).unwrap();
        file.set_modified(SystemTime::now() - ago).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_closed_after_the_last_player_is_a_save() {
    let world = World::new();
    let process = Process::in_directory(world.0.path());
    let server = server(FILES, "");
    let ago = |seconds| boot_now().saturating_sub(Duration::from_secs(seconds));

    world.written(Duration::from_secs(2));
    let (evidence, details) = look(&server, &process, Some(ago(5)), false).await;
    assert!(matches!(evidence.save, Save::Saved { at } if at >= ago(5)), "{evidence:?}");
    assert_eq!(evidence.watchdog, Watchdog::Off);
    assert!(matches!(details.save, SaveDetails::Saved { by, .. } if by.ends_with("worlds/one.db closed")));

    let before = Instant::now();
    let (evidence, details) = look(&server, &process, Some(ago(0)), false).await;
    assert!(matches!(evidence.save, Save::Saved { at } if at < ago(0)), "{evidence:?}");
    assert!(
        matches!(details.save, SaveDetails::Missing { reason } if reason.contains("before the last player"))
    );
    assert!(before.elapsed() >= server.limits.save_wait, "it was waited for");

    fs::remove_file(world.file()).unwrap();
    let (evidence, details) = look(&server, &process, None, false).await;
    assert_eq!(evidence.save, Save::NoEvidence);
    let SaveDetails::Missing { reason } = details.save else { panic!("{details:?}") };
    assert_eq!(reason, "no file matches its save_files (worlds/*.db)");
}

#[tokio::test(start_paused = true)]
async fn a_save_that_comes_while_we_wait_is_seen() {
    let world = World::new();
    let process = Process::in_directory(world.0.path());
    let server = server(FILES, "");
    // The clock of file times is up to a tick behind.
    let player = boot_now().saturating_sub(Duration::from_secs(1));
    let (looked, ()) = tokio::join!(look(&server, &process, Some(player), true), async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        fs::write(world.file(), "world").unwrap();
    });
    assert!(matches!(looked.0.save, Save::Saved { .. }), "{looked:?}");
    assert!(matches!(looked.1.save, SaveDetails::Saved { took, .. } if took >= Duration::from_secs(9)));
}

#[tokio::test(start_paused = true)]
async fn a_file_still_written_is_no_save() {
    let world = World::new();
    let process = Process::shell(world.0.path(), "exec 3>>worlds/one.db");
    let (evidence, _) = look(&server(FILES, ""), &process, None, true).await;
    let Save::Failed { reason } = evidence.save else { panic!("{evidence:?}") };
    assert!(reason.ends_with("worlds/one.db is still open for writing"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_gone_is_neither_saved_nor_safe() {
    let process = Process::in_directory(Path::new("/"));
    let gone = found(&process);
    drop(process);
    let server = server("watchdog = [\"a.json:b=true\"]\nsave = { files = [\"*.db\"] }", "");
    let (evidence, _) = gather(&server, &gone, &Sockets::default(), None, true).await;
    assert_eq!(evidence.watchdog, Watchdog::Unknown);
    assert!(matches!(evidence.save, Save::Failed { .. }), "{evidence:?}");
}

#[test]
fn the_server_is_who_has_its_sockets() {
    let directory = tempfile::tempdir().unwrap();
    let wrapper = Process::in_directory(Path::new("/"));
    let game = Process::listening(directory.path());
    let inode = *inodes(&[game.id().pid]).unwrap().iter().next().unwrap();
    let listener = Listener {
        local: "0.0.0.0:25565".parse().unwrap(),
        v6_only: false,
        accept_queue: 0,
        backlog: 1,
        inode,
    };
    let sockets = Sockets { listeners: vec![listener], ..Sockets::default() };
    let both = Found { pids: vec![wrapper.id().pid, game.id().pid], ..found(&wrapper) };
    assert_eq!(server_process(&both, &sockets, &[25565]), game.id());
    assert_eq!(server_process(&both, &sockets, &[]), game.id());
    assert_eq!(server_process(&both, &sockets, &[1]), wrapper.id());
    assert_eq!(server_process(&both, &Sockets::default(), &[]), wrapper.id());
}

#[test]
fn a_strangers_text_is_cut_and_cleaned() {
    assert_eq!(shown("-1"), "-1");
    assert_eq!(shown("a\x1b[31m\nb"), "a·[31m·b");
    assert_eq!(shown(&"ä".repeat(100)), "ä".repeat(80) + "…");
}
