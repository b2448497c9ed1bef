//! What the control plane is told: the same as `dormouse status` says.

use dormouse_api::registry::node::{NodeFacts, NodeReport, ServerFacts};
use dormouse_api::status::{ServerStatus, Status};

pub fn of(status: Status, follows: bool) -> NodeReport {
    let node = status.node;
    NodeReport {
        at_ms: node.now_at_ms,
        follows,
        node: NodeFacts {
            awake: node.awake,
            dozing: node.dozing,
            deep: node.deep,
            waking: node.waking,
            kept: node.kept,
            servers_bytes: node.servers_bytes,
            headroom_bytes: node.headroom_bytes,
            total_bytes: node.total_bytes,
            handed_back: node.handed_back,
            guard: node.guard,
            off: node.off,
            players_waiting: 0,
        },
        servers: status.servers.into_iter().map(server).collect(),
    }
}

fn server(status: ServerStatus) -> ServerFacts {
    ServerFacts {
        name: status.name,
        profile: status.profile,
        mode: status.mode,
        stage: status.stage,
        since_at_ms: status.since_at_ms,
        flows: status.flows,
        resident_bytes: status.resident_bytes,
        size_bytes: status.size_bytes,
        last_player_at_ms: status.last_player_at_ms,
        kept: status.kept,
        note: status.note,
    }
}
