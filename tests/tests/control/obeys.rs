//! Reports, commands, thresholds, and the control plane away.

use anyhow::ensure;
use dormouse_api::status::Stage;
use dormouse_tests::stand::SOON;
use nix::sys::signal::Signal;

use crate::region::Region;

const NAME: &str = "bench/echo0";

#[test]
fn a_node_reports_obeys_follows_and_needs_no_control_plane() {
    let mut region = Region::start(1, false).unwrap();
    // Until the first fetch the files' thresholds hold: it may be asleep.
    assert_eq!(region.dormouse(&["wake", NAME]).unwrap(), 0);
    assert_eq!(region.known(0).unwrap().node.as_deref(), Some("fra-1"));

    // Thresholds are the registry's: the file's doze_after of one second would have put it to sleep by now.
    let limits = |region: &Region| {
        region.stand.daemon.ask(async |client| {
            Ok(client.explain(&dormouse_api::profile::Target::Server(NAME.to_owned())).await?)
        })
    };
    let is_the_registrys = |region: &Region| {
        let explain = limits(region)?;
        let doze_after = explain.settings.iter().find(|setting| setting.key == "doze_after");
        ensure!(doze_after.is_some_and(|setting| setting.value == "1h"), "{doze_after:?}");
        Ok(())
    };
    region.stand.wait_until("the registry's thresholds", || is_the_registrys(&region)).unwrap();

    // Commands. Who gives one sees what the one before it did.
    let stage = |region: &Region| region.known(0).unwrap().report.map(|report| report.stage);
    region
        .stand
        .wait_until("a sleep by command", || {
            let status = region.dormouse(&["sleep", NAME])?;
            ensure!(status == 0, "dormouse sleep ended with {status}\n{}", region.stand.daemon.log());
            Ok(())
        })
        .unwrap();
    assert_eq!(stage(&region), Some(Stage::Dozing));
    assert_eq!(region.stand.frozen().unwrap(), [true]);
    assert_eq!(region.dormouse(&["wake", NAME]).unwrap(), 0);
    assert_eq!(stage(&region), Some(Stage::Awake));
    assert_eq!(region.stand.frozen().unwrap(), [false]);
    let keep = ["keep", NAME, "--for", "1h", "--reason", "party"];
    assert_eq!(region.dormouse(&keep).unwrap(), 0);
    assert!(region.known(0).unwrap().report.unwrap().kept.is_some());
    assert_eq!(region.dormouse(&["sleep", NAME]).unwrap(), 3, "kept: refused");
    assert_eq!(region.dormouse(&["release", NAME]).unwrap(), 0);
    for words in
        [&["servers", "list"][..], &["nodes"], &["bus", "tail"], &["profile", "history", "-p", "generic-tcp"]]
    {
        assert_eq!(region.dormouse(words).unwrap(), 0, "{words:?}");
    }

    // A change of stage is told because it came, not because ten seconds are over.
    region.stand.doze(0).unwrap();
    region.until_reported(0, Stage::Dozing).unwrap();
    let report = region.known(0).unwrap().report.unwrap();
    assert!(report.reported_at_ms < report.since_at_ms + 5000, "{report:?}");

    // The control plane dies: a player wakes the server all the same, with the thresholds fetched last.
    region.plane.kill().unwrap();
    assert_eq!(region.dormouse(&["nodes"]).unwrap(), 4, "unreachable");
    let answer = region.stand.tcp(0).unwrap();
    assert_eq!(answer.retransmissions, 0);
    region.stand.daemon.wait_for(NAME, Stage::Awake, SOON).unwrap();
    region.stand.daemon.end_by(Signal::SIGTERM).unwrap();
    region.stand.start_daemon().unwrap();
    region.stand.daemon.wait_for(NAME, Stage::Awake, SOON).unwrap();
    is_the_registrys(&region).unwrap();

    // It comes back: the node finds it again.
    region.start_control().unwrap();
    let before = region.known(0).unwrap().report.unwrap().reported_at_ms;
    region
        .stand
        .wait_until("a new report", || {
            let report = region.known(0)?.report;
            ensure!(report.is_some_and(|report| report.reported_at_ms > before), "no report yet");
            Ok(())
        })
        .unwrap();
}
