//! Two hundred nodes that report every ten seconds, beside fifty changes a second: an open loop, each answer's time
//! counted from the moment it was due.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use dormouse_api::registry::login::Role;
use dormouse_api::registry::node::{NodeFacts, NodeReport, ServerFacts};
use dormouse_api::remote::Remote;
use dormouse_api::status::{Guard, HandedBack, Mode, Stage};
use dormouse_tests::cpus;
use hyper::Method;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::region::{Database, Running};
use super::{LOAD_CORE, seed};
use crate::stats::{Estimate, bootstrap, quantile};

const NODES: u32 = 200;
const EVERY: Duration = Duration::from_secs(10);
const SERVERS: u32 = NODES * seed::PER_NODE;
const WRITES_PER_SECOND: u32 = 50;

/// One answer.
#[derive(Clone, Copy)]
struct Sample {
    is_report: bool,
    ms: f64,
}

/// Of reports and of changes, the worse.
pub fn run(on: Database<'_>, quick: bool) -> Result<Estimate> {
    let control = Running::control(on, "reports")?;
    Runtime::new()?.block_on(seed::fill(&control.database, SERVERS))?;
    let length = if quick { EVERY } else { 6 * EVERY };
    let samples = cpus::on(LOAD_CORE, || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(load(&control, length))
    })?;
    let p99 = |wanted: bool| {
        let some: Vec<f64> =
            samples.iter().filter(|sample| sample.is_report == wanted).map(|sample| sample.ms).collect();
        let name = if wanted { "reports" } else { "changes" };
        println!(
            "{name}: {} answers, p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            some.len(),
            quantile(&some, 0.5),
            quantile(&some, 0.99),
            quantile(&some, 1.0)
        );
        bootstrap(&some, |drawn| quantile(&drawn.iter().map(|ms| **ms).collect::<Vec<_>>(), 0.99))
    };
    let (reports, changes) = (p99(true), p99(false));
    Ok(if reports.value > changes.value { reports } else { changes })
}

/// One round of reports to warm up, then `length`.
async fn load(control: &Running, length: Duration) -> Result<Vec<Sample>> {
    let begin = Instant::now() + Duration::from_millis(200);
    let (from, end) = (begin + EVERY / 5, begin + EVERY / 5 + length);
    let mut tasks = JoinSet::new();
    for node in 0..NODES {
        let name = format!("n{node:04}");
        let remote =
            Remote::new(&control.url, None)?.with_token(control.token(&name, Role::Node, Some(&name))?);
        // Nodes start when they start: spread, but not evenly.
        let first = begin + EVERY.mul_f64(f64::from(node * 7919 % 1009) / 1009.0);
        tasks.spawn(async move {
            let (mut samples, mut due, mut round) = (vec![], first, 0);
            while due < end {
                tokio::time::sleep_until(due).await;
                let path = format!("/v1/nodes/{name}/reports");
                let _: Value = remote.call(Method::POST, &path, Some(&report(node, round))).await?;
                samples.push((due, Sample { is_report: true, ms: due.elapsed().as_secs_f64() * 1e3 }));
                (due, round) = (due + EVERY, round + 1);
            }
            anyhow::Ok(samples)
        });
    }
    let operator = Remote::new(&control.url, None)?.with_token(control.token.clone());
    for number in 0u32.. {
        let due = begin + Duration::from_secs(1) * number / WRITES_PER_SECOND;
        if due >= end {
            break;
        }
        let operator = operator.clone();
        tasks.spawn(async move {
            tokio::time::sleep_until(due).await;
            let server = u64::from(number) * 7919 % u64::from(SERVERS);
            let path = format!("/v1/servers/t{:04}%2Fs{:02}", server / 100, server % 100);
            let body = json!({ "memory_bytes": (u64::from(number) + 1) << 20 });
            let key = format!("change-{number}");
            let reply = operator.ask(Method::PATCH, &path, &[("idempotency-key", &key)], Some(&body)).await?;
            operator.accepted(&Method::PATCH, &path, reply)?;
            anyhow::Ok(vec![(due, Sample { is_report: false, ms: due.elapsed().as_secs_f64() * 1e3 })])
        });
    }
    let mut all = vec![];
    while let Some(done) = tasks.join_next().await {
        all.extend(done.context("a task of the load")??);
    }
    Ok(all.into_iter().filter(|(due, _)| *due >= from).map(|(_, sample)| sample).collect())
}

/// All of a node's servers; one of fifty has changed its stage since the report before.
fn report(node: u32, round: u32) -> NodeReport {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let server = |number: u32| ServerFacts {
        name: format!("t{:04}/s{:02}", number / 100, number % 100),
        profile: "minecraft-java".to_owned(),
        mode: Mode::Full,
        stage: if number % seed::PER_NODE == round % seed::PER_NODE { Stage::Awake } else { Stage::Deep },
        since_at_ms: now,
        flows: 0,
        resident_bytes: 1 << 30,
        size_bytes: 4 << 30,
        last_player_at_ms: Some(now),
        kept: None,
        note: None,
    };
    let facts = NodeFacts {
        awake: 1,
        dozing: 0,
        deep: seed::PER_NODE - 1,
        waking: 0,
        kept: 0,
        servers_bytes: 200 << 30,
        headroom_bytes: 8 << 30,
        total_bytes: 256 << 30,
        handed_back: HandedBack { bytes: 150 << 30, estimated: false },
        guard: Guard::Ok,
        off: false,
        players_waiting: 0,
    };
    let servers = (node * seed::PER_NODE..(node + 1) * seed::PER_NODE).map(server).collect();
    NodeReport { at_ms: now, follows: true, node: facts, servers }
}
