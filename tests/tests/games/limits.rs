//! What keeps a server from being frozen, and what is learnt when it was frozen all the same.

use std::{fs, thread, time::Duration};

use dormouse_api::{command::SleepRequest, event::EventKind, status::Stage};
use dormouse_tests::{
    clients,
    daemon::QUICK,
    servers::java::{self, WATCHDOG_EXIT},
    skip,
};

use crate::stand::{ADDRESS, NAME, PORT, Plan, Plays, SOON, Stand, TIMEOUT};

/// Longer than the forged watchdog's patience.
const FROZEN_FOR: Duration = Duration::from_secs(5);
const SHORT_PATIENCE_MS: i64 = 3_000;

fn sleep_is_refused(stand: &Stand) -> String {
    let asked = stand.daemon.ask(async |client| Ok(client.sleep(NAME, SleepRequest { deep: false }).await?));
    let error = asked.expect_err("refused");
    assert!(!stand.cgroup.is_frozen().unwrap());
    format!("{error:#}")
}

#[test]
fn without_a_cpu_controller_a_throttled_server_stays_awake() {
    let limits = QUICK.replace("doze_by = \"freeze\"", "doze_by = \"throttle\"");
    let stand = Stand::new(&Plan { limits: &limits, ..Plan::new(Plays::Echo, "generic-tcp") });
    if stand.cgroup.path().join("cpu.max").exists() {
        return skip("this machine's cgroups have a v2 cpu controller");
    }
    stand.until_why("told why it stays awake", |why| {
        why.stage == Stage::Awake && why.reasons.iter().any(|reason| reason.contains("no v2 cpu controller"))
    });
    assert!(!stand.cgroup.is_frozen().unwrap());
}

#[test]
fn a_server_with_a_watchdog_is_never_frozen_by_default() {
    let asserted = &[("save", "not-needed"), ("outbound", "harmless")];
    let stand = Stand::new(&Plan { asserted, ..Plan::new(Plays::Tick(60_000), "minecraft-java") });
    let why = stand.until_why("told of its watchdog", |why| {
        why.reasons.iter().any(|reason| reason.contains("watchdog"))
    });
    // The line that would allow it is the game's own.
    assert!(why.reasons.iter().any(|reason| reason.contains("max-tick-time=-1")), "{why:?}");
    for _ in 0..50 {
        assert!(!stand.cgroup.is_frozen().unwrap(), "{}", stand.daemon.log());
        thread::sleep(Duration::from_millis(100));
    }
    if why.stage == Stage::Awake {
        let refused = sleep_is_refused(&stand);
        assert!(refused.contains("watchdog"), "{refused}");
    }
    let to = ADDRESS;
    stand.node.client.run(|| clients::minecraft::status(to, TIMEOUT)).unwrap();
}

#[test]
fn a_server_that_dies_of_its_freeze_is_not_frozen_again() {
    let mut stand = Stand::new(&Plan::new(Plays::Tick(SHORT_PATIENCE_MS), "minecraft-java"));
    stand.doze();
    thread::sleep(FROZEN_FOR);
    let to = ADDRESS;
    // It may answer before its watchdog looks, or not.
    let _ = stand.node.client.run(|| clients::minecraft::login(to, "luckless", TIMEOUT));
    let status = stand.server.process.wait(SOON).unwrap();
    assert_eq!(status.code(), Some(WATCHDOG_EXIT));

    stand.until("seen to be gone", |server| {
        server.note.as_deref().is_some_and(|note| note.contains("not running"))
    });
    let demoted = stand.events(EventKind::Demoted);
    let [event] = &demoted[..] else { panic!("{demoted:?}\n{}", stand.daemon.log()) };
    assert!(event.detail.as_deref().unwrap_or_default().contains("died"), "{event:?}");
    let stored = fs::read_dir(stand.daemon.path("state/demotions")).unwrap().count();
    assert_eq!(stored, 1);

    // Its next process: the demotion holds, and is told.
    stand.server = java::tick(stand.place(), PORT, -1).unwrap();
    stand.until_why("told of its demotion", |why| {
        why.stage == Stage::Awake && why.reasons.iter().any(|reason| reason.contains("demoted"))
    });
    if !stand.cgroup.path().join("cpu.max").exists() {
        let refused = stand.until_why("kept awake by it", |why| {
            why.reasons.iter().any(|reason| reason.contains("a freeze went wrong before"))
        });
        assert_eq!(refused.stage, Stage::Awake);
        sleep_is_refused(&stand);
    }
    stand.node.client.run(|| clients::minecraft::status(to, TIMEOUT)).unwrap();
    assert!(!stand.cgroup.is_frozen().unwrap());
}
