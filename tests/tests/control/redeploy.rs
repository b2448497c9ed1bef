//! Control plane, PostgreSQL and Redis are deployed anew while players come: none of them notices.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use dormouse_api::status::Stage;
use dormouse_tests::stand::SOON;
use hyper::Method;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::region::Region;

const SLEEPERS: u8 = 20;

#[test]
fn a_redeploy_of_all_of_it_is_no_players_business() {
    let mut region = Region::start(SLEEPERS, true).unwrap();
    let count = usize::from(SLEEPERS);
    region.stand.doze_all().unwrap();
    for index in 0..count {
        region.until_reported(index, Stage::Dozing).unwrap();
    }

    // One player after the other while everything is stopped, is away, and starts.
    let Region { plane, stand } = &mut region;
    let answers = thread::scope(|scope| {
        let redeploy = scope.spawn(|| -> Result<()> {
            plane.stop()?;
            plane.start(&stand.node.netns)
        });
        let answers: Vec<_> = (0..count)
            .map(|index| {
                let answer = stand.tcp(index);
                thread::sleep(Duration::from_millis(100));
                answer
            })
            .collect();
        redeploy.join().unwrap().unwrap();
        answers
    });
    let lost: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(lost.is_empty(), "{lost:?}");
    let again: u32 = answers.iter().flatten().map(|answer| answer.retransmissions).sum();
    assert_eq!(again, 0, "segments sent again by {SLEEPERS} players");

    // It knows the truth again, and is obeyed.
    for index in 0..count {
        region.until_reported(index, Stage::Awake).unwrap();
    }
    region
        .stand
        .wait_until("a sleep by command", || {
            let status = region.dormouse(&["sleep", "bench/echo3"])?;
            ensure!(status == 0, "dormouse sleep ended with {status}\n{}", region.stand.daemon.log());
            Ok(())
        })
        .unwrap();
    assert_eq!(region.dormouse(&["wake", "bench/echo3"]).unwrap(), 0);

    // A `sleep` that was asked for before everything went away, and a player since: dropped.
    region.stand.daemon.end_by(Signal::SIGTERM).unwrap();
    let late = region.ask(Method::POST, "/v1/servers/bench%2Fecho0/sleep", json!({ "deep": false })).unwrap();
    region.plane.stop().unwrap();
    region.stand.start_daemon().unwrap();
    region.stand.daemon.wait_for("bench/echo0", Stage::Awake, SOON).unwrap();
    region.stand.doze(0).unwrap();
    region.stand.tcp(0).unwrap();
    region.stand.daemon.wait_for("bench/echo0", Stage::Awake, SOON).unwrap();
    region.start_control().unwrap();
    let path = format!("/v1/commands/{}", late["id"].as_str().unwrap());
    let mut command = late;
    let end = std::time::Instant::now() + 3 * SOON;
    while command["state"] == "waiting" {
        assert!(std::time::Instant::now() < end, "{command}");
        thread::sleep(Duration::from_millis(100));
        command = region.get(&path).unwrap();
    }
    assert!(command["state"] == "refused" || command["state"] == "expired", "{command}");
    assert_eq!(region.stand.daemon.server("bench/echo0").unwrap().stage, Stage::Awake);
    assert!(!region.stand.frozen().unwrap()[0]);
}
