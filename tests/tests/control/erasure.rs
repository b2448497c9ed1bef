//! A person is erased on the node too: in its memory, and on its disk, where no address ever is.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result, ensure};
use dormouse_api::{event::EventFilter, status::Stage};
use hyper::Method;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::region::Region;

const NAME: &str = "bench/echo0";
const PERSON: &str = "person-17";

/// What the node says of people: addresses, and whose keep there is.
fn said(region: &Region) -> Result<String> {
    region.stand.daemon.ask(async |client| {
        let mut text = format!("{:?}", client.why(NAME).await?);
        let mut events = client.events(&EventFilter::default()).await?;
        while let Some(event) = events.next().await? {
            writeln!(text, "{event:?}")?;
        }
        Ok(text)
    })
}

/// The files of the daemon that hold a text.
fn holding(folder: &Path, text: &str, into: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            holding(&path, text, into)?;
        } else if entry.file_type()?.is_file() && String::from_utf8_lossy(&fs::read(&path)?).contains(text) {
            into.push(path.display().to_string());
        }
    }
    Ok(())
}

fn on_disk(region: &Region, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["run", "state"] {
        holding(&region.stand.daemon.path(folder), text, &mut found).unwrap();
    }
    found
}

fn erase(region: &Region) -> String {
    let asked = region.ask(Method::POST, "/v1/erasures", json!({ "subject": PERSON })).unwrap();
    asked["id"].as_str().unwrap().to_owned()
}

/// How many things the node erased, when it did.
fn erased(region: &Region, id: &str) -> u64 {
    let mut count = 0;
    region
        .stand
        .wait_until("the node's answer", || {
            let erasure = region.get(&format!("/v1/erasures/{id}"))?;
            let services = erasure["services"].as_array().context("a matrix")?;
            let own = services.iter().find(|one| one["service"] == "node:fra-1").context("the node")?;
            ensure!(own["state"] == "erased" && erasure["state"] == "completed", "{erasure}");
            count = own["count"].as_u64().context("a count")?;
            Ok(())
        })
        .unwrap();
    count
}

/// A player wakes it, and somebody keeps it awake, which a refused sleep tells.
fn leave_traces(region: &Region) -> String {
    region.stand.doze(0).unwrap();
    let answer = region.stand.tcp(0).unwrap();
    region.stand.daemon.wait_for(NAME, Stage::Awake, dormouse_tests::stand::SOON).unwrap();
    let keep = json!({ "for_ms": 3_600_000, "reason": "party", "owner": PERSON });
    region.ask(Method::POST, "/v1/servers/bench%2Fecho0/keep", keep).unwrap();
    region
        .stand
        .wait_until("the keep", || {
            ensure!(region.known(0)?.report.is_some_and(|report| report.kept.is_some()), "not kept yet");
            Ok(())
        })
        .unwrap();
    assert_eq!(region.dormouse(&["sleep", NAME]).unwrap(), 3);
    answer.local.ip().to_string()
}

#[test]
fn a_node_erases_a_person_also_when_it_was_away() {
    let mut region = Region::start(1, false).unwrap();
    let address = leave_traces(&region);
    let before = said(&region).unwrap();
    assert!(before.contains(&address) && before.contains(PERSON), "{before}");
    // No address is ever written down, erased or not; whose keep it is must outlive the daemon.
    assert_eq!(on_disk(&region, &address), [""; 0]);
    assert!(!region.stand.daemon.log().contains(&address), "{}", region.stand.daemon.log());
    assert_eq!(
        on_disk(&region, PERSON).len(),
        2,
        "the stage file and the answers: {:?}",
        on_disk(&region, PERSON)
    );

    let id = erase(&region);
    // The wake in the journal and in `why`, the cause, the keep three times (server, journal, answer).
    let count = erased(&region, &id);
    assert!(count >= 5, "{count}");
    let after = said(&region).unwrap();
    assert!(!after.contains(&address) && !after.contains(PERSON), "{after}");
    assert_eq!(on_disk(&region, PERSON), [""; 0]);
    let kept = region.stand.daemon.server(NAME).unwrap().kept.unwrap();
    assert_eq!(
        (kept.owner.as_str(), kept.reason.as_str()),
        ("erased", "party"),
        "it stays awake all the same"
    );
    region
        .stand
        .wait_until("the registry to hear of it", || {
            let kept = region.known(0)?.report.and_then(|report| report.kept);
            ensure!(kept.as_ref().is_some_and(|kept| kept.owner == "erased"), "{kept:?}");
            Ok(())
        })
        .unwrap();

    // Asked again it has nothing more.
    region.ask(Method::POST, "/v1/erasures/replay", json!({ "since_at_ms": 0 })).unwrap();
    assert_eq!(erased(&region, &id), 0);

    // Away: the matrix waits, and the next daemon answers. What it adopted from the disk is erased there too.
    region.dormouse(&["release", NAME]).unwrap();
    leave_traces(&region);
    region.stand.daemon.end_by(Signal::SIGTERM).unwrap();
    let id = erase(&region);
    assert_eq!(on_disk(&region, PERSON).len(), 2);
    region.stand.start_daemon().unwrap();
    let count = erased(&region, &id);
    assert!(count >= 2, "the keep and the answer, found again or not: {count}");
    assert_eq!(on_disk(&region, PERSON), [""; 0]);
}
