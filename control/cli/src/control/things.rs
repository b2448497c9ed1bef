//! What only a control plane has: servers and nodes of a region, its bus, erasures, the index.

use dormouse_api::path;
use dormouse_api::registry::bus::{BusEvent, DeadLetter};
use dormouse_api::registry::erasure::{
    Erasure, ErasureAnswer, ErasureState, NewErasure, Replay, Replayed, ServiceState,
};
use dormouse_api::registry::locate::{DifferenceKind, IndexCheck, Location};
use dormouse_api::registry::node::{NewNode, Node};
use dormouse_api::registry::server::{NewServer, Server};
use http_body_util::BodyExt;
use hyper::Method;

use super::Asks;
use crate::args::{BusVerb, ErasureVerb, IndexVerb, NodesVerb, ServersVerb};
use crate::exit::Silent;
use crate::render::table::table;
use crate::units::{self, Clock};
use crate::{output, render};

pub async fn servers(asks: &Asks, verb: ServersVerb) -> anyhow::Result<()> {
    match verb {
        ServersVerb::List { tenant, profile, node } => {
            let filters = [("tenant", tenant), ("profile", profile), ("node", node)];
            let filters: Vec<String> = filters
                .into_iter()
                .filter_map(|(key, value)| Some(format!("{key}={}", path::encode(&value?))))
                .collect();
            let servers: Vec<Server> = asks.all(&format!("/v1/servers?{}", filters.join("&"))).await?;
            asks.print(&servers, |servers| list(servers))
        }
        ServersVerb::Add { server, profile, memory, node, near } => {
            let (mode, address) = (None, None);
            let new = NewServer { name: server, profile, mode, memory_bytes: memory, address, node, near };
            let added: Server = asks.remote.call(Method::POST, "/v1/servers", Some(&new)).await?;
            asks.print(&added, |added| list(std::slice::from_ref(added)))
        }
        ServersVerb::Remove { server } => {
            let path = format!("/v1/servers/{}", path::encode(&server));
            asks.remote.call::<()>(Method::DELETE, &path, None::<&()>).await?;
            Ok(output::text(&format!("{server}  removed\n"))?)
        }
        ServersVerb::Locate { server } => {
            let place: Location = asks.remote.get(&format!("/v1/locate/{}", path::encode(&server))).await?;
            asks.print(&place, |place| format!("{}  {}  {}\n", place.server, place.region, place.url))
        }
    }
}

fn list(servers: &[Server]) -> String {
    let clock = Clock::now();
    let none = || "-".to_owned();
    let row = |one: &Server| {
        let report = one.report.as_ref();
        [
            one.name.clone(),
            one.profile.clone(),
            render::mode(one.mode).to_owned(),
            report.map_or_else(none, |report| render::stage(report.stage).to_owned()),
            report.map_or_else(none, |report| clock.since(report.since_at_ms)),
            one.node.clone().unwrap_or_else(none),
            report.and_then(|report| report.note.clone()).unwrap_or_default(),
        ]
    };
    table(
        ["SERVER", "PROFILE", "MODE", "STAGE", "FOR", "NODE", "NOTE"],
        &servers.iter().map(row).collect::<Vec<_>>(),
    )
}

pub async fn nodes(asks: &Asks, verb: NodesVerb) -> anyhow::Result<()> {
    match verb {
        NodesVerb::List => {
            let nodes: Vec<Node> = asks.all("/v1/nodes").await?;
            asks.print(&nodes, |nodes| node_list(nodes))
        }
        NodesVerb::Add { node, memory } => {
            let new = NewNode { name: node, total_bytes: memory };
            let added: Node = asks.remote.call(Method::POST, "/v1/nodes", Some(&new)).await?;
            asks.print(&added, |added| node_list(std::slice::from_ref(added)))
        }
        NodesVerb::Remove { node } => {
            let path = format!("/v1/nodes/{}", path::encode(&node));
            asks.remote.call::<()>(Method::DELETE, &path, None::<&()>).await?;
            Ok(output::text(&format!("{node}  removed\n"))?)
        }
    }
}

fn node_list(nodes: &[Node]) -> String {
    let clock = Clock::now();
    let row = |one: &Node| {
        let facts = one.report.as_ref();
        [
            one.name.clone(),
            facts.map_or_else(String::new, |facts| {
                format!("{} awake {} dozing {} deep", facts.awake + facts.waking, facts.dozing, facts.deep)
            }),
            format!("{} of {}", units::bytes(one.free_bytes), units::bytes(one.total_bytes)),
            facts.map_or_else(String::new, |facts| units::bytes(facts.handed_back.bytes)),
            one.reported_at_ms.map_or_else(|| "never".to_owned(), |at| format!("{} ago", clock.since(at))),
        ]
    };
    let rows: Vec<_> = nodes.iter().map(row).collect();
    table(["NODE", "SERVERS", "FREE", "HANDED BACK", "REPORTED"], &rows)
}

pub async fn bus(asks: &Asks, verb: BusVerb) -> anyhow::Result<()> {
    match verb {
        BusVerb::Tail { watch, after, kind } => {
            let kind = kind.map(|kind| format!("&type={}", path::encode(&kind))).unwrap_or_default();
            if watch { follow(asks, after, &kind).await } else { tail(asks, after, &kind).await }
        }
        BusVerb::Dead => {
            let letters: Vec<DeadLetter> = asks.all("/v1/dead-letters").await?;
            let row = |one: &DeadLetter| {
                [
                    one.id.clone(),
                    one.group.clone(),
                    one.event.kind.clone(),
                    one.deliveries.to_string(),
                    one.reason.clone(),
                ]
            };
            asks.print(&letters, |letters| {
                table(
                    ["ID", "SERVICE", "TYPE", "TRIES", "REASON"],
                    &letters.iter().map(row).collect::<Vec<_>>(),
                )
            })
        }
        BusVerb::Redrive { id } => {
            let path = format!("/v1/dead-letters/{}/redrive", path::encode(&id));
            asks.remote.call::<()>(Method::POST, &path, None::<&()>).await?;
            Ok(output::text(&format!("{id}  given to its service again\n"))?)
        }
    }
}

fn print(asks: &Asks, event: &BusEvent) -> anyhow::Result<()> {
    if asks.json {
        return output::json_line(event);
    }
    let subject = event.subject.as_deref().unwrap_or("-");
    Ok(output::text(&format!("{:>8}  {}  {}  {subject}\n", event.position, event.time, event.kind))?)
}

async fn tail(asks: &Asks, mut after: u64, kind: &str) -> anyhow::Result<()> {
    loop {
        let page: dormouse_api::registry::Page<BusEvent> =
            asks.remote.get(&format!("/v1/bus?limit=500&after={after}{kind}")).await?;
        for event in &page.items {
            print(asks, event)?;
        }
        match page.next.and_then(|next| next.parse().ok()) {
            Some(next) => after = next,
            None => return Ok(()),
        }
    }
}

/// Server-sent events (WHATWG HTML, 9.2): an event's `data` is one line here.
async fn follow(asks: &Asks, after: u64, kind: &str) -> anyhow::Result<()> {
    let accept = [("accept", "text/event-stream")];
    let path = format!("/v1/bus?after={after}{kind}");
    let mut body = asks.remote.open(&path, &accept).await?.into_body();
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| asks.remote.broken(error))?;
        read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        while let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = read.drain(..=end).collect();
            if let Some(data) = line.strip_prefix(b"data: ") {
                print(asks, &serde_json::from_slice(data)?)?;
            }
        }
    }
    Ok(())
}

pub async fn erasure(asks: &Asks, verb: ErasureVerb) -> anyhow::Result<()> {
    match verb {
        ErasureVerb::List => {
            let erasures: Vec<Erasure> = asks.all("/v1/erasures").await?;
            asks.print(&erasures, |erasures| requests(erasures))
        }
        ErasureVerb::Request { subject, tenant } => {
            let new = NewErasure { subject, tenant };
            let made: Erasure = asks.remote.call(Method::POST, "/v1/erasures", Some(&new)).await?;
            asks.print(&made, matrix)
        }
        ErasureVerb::Show { id } => {
            let erasure: Erasure = asks.remote.get(&format!("/v1/erasures/{}", path::encode(&id))).await?;
            asks.print(&erasure, matrix)
        }
        ErasureVerb::Skip { id, service, reason } => {
            let skipped =
                ErasureAnswer { service, state: ServiceState::Skipped, count: 0, reason: Some(reason) };
            let path = format!("/v1/erasures/{}/answers", path::encode(&id));
            let erasure: Erasure = asks.remote.call(Method::POST, &path, Some(&skipped)).await?;
            asks.print(&erasure, matrix)
        }
        ErasureVerb::Replay { since } => {
            let back = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
            let request = Replay { since_at_ms: now.saturating_sub(back) };
            let replayed: Replayed =
                asks.remote.call(Method::POST, "/v1/erasures/replay", Some(&request)).await?;
            asks.print(&replayed, |replayed| format!("{} asked again\n", replayed.requests))
        }
    }
}

const fn state(state: ErasureState) -> &'static str {
    match state {
        ErasureState::Open => "open",
        ErasureState::Overdue => "OVERDUE",
        ErasureState::Completed => "completed",
    }
}

fn requests(erasures: &[Erasure]) -> String {
    let clock = Clock::now();
    let row = |one: &Erasure| {
        let waiting = one.services.iter().filter(|service| service.state == ServiceState::Waiting);
        let waiting: Vec<_> = waiting.map(|service| service.service.clone()).collect();
        [
            one.id.clone(),
            one.subject.clone(),
            state(one.state).to_owned(),
            clock.minute(one.deadline_at_ms),
            waiting.join(", "),
        ]
    };
    table(["ID", "SUBJECT", "STATE", "DEADLINE", "WAITS FOR"], &erasures.iter().map(row).collect::<Vec<_>>())
}

fn matrix(erasure: &Erasure) -> String {
    let rows: Vec<_> = erasure
        .services
        .iter()
        .map(|one| {
            let reason = one.reason.clone().unwrap_or_default();
            [one.service.clone(), one.state.name().to_owned(), one.count.to_string(), reason]
        })
        .collect();
    let head = format!("{}  {}  {}\n", erasure.id, erasure.subject, state(erasure.state));
    head + &table(["SERVICE", "STATE", "ROWS", "REASON"], &rows)
}

pub async fn index(asks: &Asks, verb: IndexVerb) -> anyhow::Result<()> {
    let IndexVerb::Check { repair } = verb;
    let check: IndexCheck = if repair {
        asks.remote.call(Method::POST, "/v1/index/repair", None::<&()>).await?
    } else {
        asks.remote.get("/v1/index/check").await?
    };
    asks.print(&check, |check| {
        if check.differences.is_empty() {
            return "the index agrees with the registry\n".to_owned();
        }
        let what = |kind| match kind {
            DifferenceKind::Missing => "missing in the index",
            DifferenceKind::Old => "old in the index",
            DifferenceKind::Foreign => "another region's, says the index",
            DifferenceKind::Ghost => "in the index, and nowhere else",
        };
        let rows: Vec<_> =
            check.differences.iter().map(|one| [one.server.clone(), what(one.kind).to_owned()]).collect();
        table(["SERVER", "DIFFERENCE"], &rows)
    })?;
    if check.differences.is_empty() { Ok(()) } else { Err(Silent(1).into()) }
}
