//! Clients of a sleeping server who may be players: silent ones, undecided ones, those who completed a
//! handshake with a server that speaks first. Its kernel is asked whether they are really there, with one list of
//! sockets for all who are due: strangers choose how many there are, not what they cost.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{discover::sockets::Sockets, door::Knock};

/// More at once than this are no list any more: then everybody whom nobody has accepted is asked for.
const MOST: usize = 1024;
/// Between two lists of one server's sockets.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Who waits at one server.
#[derive(Default)]
pub struct Waiting {
    clients: BTreeMap<(SocketAddr, u16), (Instant, Knock)>,
    /// Somebody found the list full; his knock stands for all whom it has not.
    overflow: Option<(Instant, Knock)>,
    /// A question is planned or under way.
    asking: bool,
    asked: Option<Instant>,
}

/// Those whose time has come.
#[derive(Debug, Default)]
pub struct Due {
    clients: BTreeMap<(SocketAddr, u16), Knock>,
    overflow: Option<Knock>,
}

impl Waiting {
    /// Somebody waits who is to be asked for at this time; a client who comes again keeps his first.
    pub fn add(&mut self, knock: Knock, due: Instant) {
        let client = (knock.from, knock.server_port);
        if self.clients.len() < MOST || self.clients.contains_key(&client) {
            self.clients.entry(client).or_insert((due, knock));
        } else {
            self.overflow.get_or_insert((due, knock));
        }
    }

    /// When to ask next, if nobody does already; from then on somebody does.
    pub fn plan(&mut self) -> Option<Instant> {
        let due = self.clients.values().chain(&self.overflow).map(|(due, _)| *due).min()?;
        if std::mem::replace(&mut self.asking, true) {
            return None;
        }
        Some(self.asked.map_or(due, |asked| due.max(asked + ASK_EVERY)))
    }

    /// Takes out who is due.
    pub fn take(&mut self, now: Instant) -> Due {
        self.asked = Some(now);
        let overflow = self.overflow.take_if(|(due, _)| *due <= now).map(|(_, knock)| knock);
        let due = self.clients.extract_if(.., |_, (due, _)| *due <= now);
        Due { clients: due.map(|(client, (_, knock))| (client, knock)).collect(), overflow }
    }

    /// The question is answered; the next may be planned.
    pub fn answered(&mut self) {
        self.asking = false;
    }
}

impl Due {
    /// One of them who is really there: an open connection of his stands in the server's kernel.
    pub fn found(&self, sockets: &Sockets, ports: &[u16]) -> Option<Knock> {
        sockets.connections_on(ports).filter(|connection| !connection.closed_by_remote).find_map(
            |connection| {
                let remote = SocketAddr::new(connection.remote.ip().to_canonical(), connection.remote.port());
                let known = self.clients.get(&(remote, connection.local.port()));
                // Who came while the server slept has been accepted by nobody.
                let stranger = || self.overflow.filter(|_| connection.inode == 0);
                known.copied().or_else(stranger)
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use dormouse_packet::Class;

    use super::*;
    use crate::discover::sockets::Connection;

    fn knock(port: u16) -> Knock {
        let from = SocketAddr::from(([192, 0, 2, 1], port));
        Knock { slot: 0, class: Class::Undecided, from, server_port: 7, protocol: 6, time_ns: 1 }
    }

    fn connection(port: u16, inode: u64) -> Sockets {
        let one = Connection {
            local: SocketAddr::from(([10, 0, 0, 1], 7)),
            remote: SocketAddr::from(([192, 0, 2, 1], port)),
            unread: 0,
            closed_by_remote: false,
            inode,
            heard: None,
        };
        Sockets { connections: vec![one], ..Sockets::default() }
    }

    #[test]
    fn one_question_for_all_and_no_more_than_one_at_a_time() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let soon = now + Duration::from_secs(3);
        waiting.add(knock(1), soon);
        waiting.add(knock(1), soon + Duration::from_secs(9));
        waiting.add(knock(2), now);
        assert_eq!(waiting.plan(), Some(now));
        waiting.add(knock(3), now);
        assert_eq!(waiting.plan(), None, "it is planned");
        let due = waiting.take(now);
        assert_eq!(due.clients.len(), 2);
        assert_eq!(due.found(&connection(3, 0), &[7]).map(|knock| knock.from.port()), Some(3));
        assert_eq!(due.found(&connection(1, 0), &[7]), None, "not due yet");
        waiting.answered();
        assert_eq!(waiting.plan(), Some(soon));
    }

    #[test]
    fn strangers_without_end_cost_one_list_and_hide_nobody() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for port in 0..20_000 {
            waiting.add(knock(port), now);
        }
        assert_eq!(waiting.clients.len(), MOST);
        let due = waiting.take(now);
        assert!(due.found(&connection(19_999, 0), &[7]).is_some(), "he found the list full");
        assert!(due.found(&connection(19_999, 12), &[7]).is_none(), "accepted: older than the doze");
        assert!(due.found(&connection(5, 12), &[7]).is_some());
        assert_eq!(waiting.plan(), None);
    }
}
