//! What was parked for one sleeper and not yet given back. Bounded, so that no outsider chooses what a
//! sleeper costs; a retransmission takes the place of its older copy.

use std::{collections::VecDeque, time::Duration};

use dormouse_packet::{
    Class,
    headers::{self, TCP},
};

use crate::door::Parked;

/// The most that is kept for one server.
const MAX_PACKETS: usize = 512;
const MAX_BYTES: usize = 1 << 20;
/// A packet older than this is of no use: its sender has given up or sent it again (hazards, State).
const STALE: Duration = Duration::from_secs(15);

/// The packets of one sleeper, in the order in which they came.
#[derive(Default)]
pub struct Queue {
    packets: VecDeque<Entry>,
    bytes: usize,
}

struct Entry {
    parked: Parked,
    /// TCP: where in the stream it stands.
    sequence: Option<u32>,
}

/// How many records ended without being replayed; each must be taken back from the gate's count.
pub type Ended = u32;

impl Queue {
    /// Takes a packet in. Room is made by ending the oldest that are no player's.
    pub fn push(&mut self, parked: Parked) -> Ended {
        let sequence = stream_sequence(&parked);
        let mut ended = 0;
        if sequence.is_some()
            && let Some(twin) = self.packets.iter_mut().find(|entry| {
                entry.sequence == sequence
                    && entry.parked.knock.from == parked.knock.from
                    && entry.parked.knock.server_port == parked.knock.server_port
                    && entry.parked.frame.len() <= parked.frame.len()
            })
        {
            self.bytes = self.bytes + parked.frame.len() - twin.parked.frame.len();
            twin.parked = parked;
            return 1;
        }
        self.bytes += parked.frame.len();
        self.packets.push_back(Entry { parked, sequence });
        while self.packets.len() > MAX_PACKETS || self.bytes > MAX_BYTES {
            let at = self.packets.iter().position(|e| e.parked.knock.class != Class::Player).unwrap_or(0);
            self.remove(at);
            ended += 1;
        }
        ended
    }

    /// The next packet to replay.
    pub fn pop(&mut self) -> Option<Parked> {
        let entry = self.packets.pop_front()?;
        self.bytes -= entry.parked.frame.len();
        Some(entry.parked)
    }

    /// Ends what is too old.
    pub fn expire(&mut self, now_ns: u64) -> Ended {
        self.retain(|parked| now_ns.saturating_sub(parked.knock.time_ns) < STALE.as_nanos() as u64)
    }

    /// Ends undecided datagrams that stayed alone for `patience`.
    pub fn expire_undecided_datagrams(&mut self, now_ns: u64, patience: Duration) -> Ended {
        self.retain(|parked| {
            parked.knock.protocol == TCP
                || parked.knock.class != Class::Undecided
                || now_ns.saturating_sub(parked.knock.time_ns) < patience.as_nanos() as u64
        })
    }

    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    fn retain(&mut self, keep: impl Fn(&Parked) -> bool) -> Ended {
        let before = self.packets.len();
        self.packets.retain(|entry| keep(&entry.parked));
        self.bytes = self.packets.iter().map(|entry| entry.parked.frame.len()).sum();
        (before - self.packets.len()) as Ended
    }

    fn remove(&mut self, at: usize) {
        if let Some(entry) = self.packets.remove(at) {
            self.bytes -= entry.parked.frame.len();
        }
    }
}

fn stream_sequence(parked: &Parked) -> Option<u32> {
    if parked.knock.protocol != TCP {
        return None;
    }
    let frame = parked.frame.as_slice();
    let packet = headers::ethernet(&frame).ok()?;
    Some(headers::segment(&frame, &packet)?.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::Knock;

    fn parked(class: Class, port: u16, protocol: u8, frame: Vec<u8>, time_ns: u64) -> Parked {
        let from = ([192, 0, 2, 7], port).into();
        let knock = Knock { slot: 1, class, from, server_port: 25565, protocol, time_ns };
        Parked { knock, sequence: 0, ifindex: 2, gso_size: 0, vlan: None, frame }
    }

    fn segment(sequence: u32, payload: usize) -> Vec<u8> {
        let mut f = vec![0; 12];
        f.extend([8, 0, 0x45, 0]);
        f.extend((40 + payload as u16).to_be_bytes());
        f.extend([0, 1, 0, 0, 64, 6, 0, 0, 192, 0, 2, 7, 10, 0, 0, 2, 4, 210, 0x63, 0xdd]);
        f.extend(sequence.to_be_bytes());
        f.extend([0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
        f.resize(54 + payload, 1);
        f
    }

    #[test]
    fn packets_come_out_in_order() {
        let mut queue = Queue::default();
        for n in 0..5u16 {
            assert_eq!(queue.push(parked(Class::Player, n, 17, vec![n as u8], 0)), 0);
        }
        let ports: Vec<u16> = std::iter::from_fn(|| queue.pop()).map(|p| p.knock.from.port()).collect();
        assert_eq!(ports, [0, 1, 2, 3, 4]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_retransmission_replaces_its_older_copy() {
        let mut queue = Queue::default();
        assert_eq!(queue.push(parked(Class::Player, 9, TCP, segment(7, 10), 1)), 0);
        assert_eq!(queue.push(parked(Class::Player, 9, TCP, segment(17, 5), 2)), 0);
        assert_eq!(queue.push(parked(Class::Player, 9, TCP, segment(7, 15), 3)), 1);
        assert_eq!(queue.push(parked(Class::Player, 8, TCP, segment(7, 15), 4)), 0, "another client");
        let times: Vec<u64> = std::iter::from_fn(|| queue.pop()).map(|p| p.knock.time_ns).collect();
        assert_eq!(times, [3, 2, 4]);
    }

    #[test]
    fn room_is_made_from_those_who_are_no_players() {
        let mut queue = Queue::default();
        assert_eq!(queue.push(parked(Class::Player, 1, 17, vec![0], 0)), 0);
        for _ in 0..MAX_PACKETS - 1 {
            assert_eq!(queue.push(parked(Class::Query, 2, 17, vec![0], 0)), 0);
        }
        assert_eq!(queue.push(parked(Class::Player, 3, 17, vec![0], 0)), 1);
        assert_eq!(queue.pop().unwrap().knock.from.port(), 1);
        assert_eq!(queue.push(parked(Class::Query, 2, 17, vec![0; MAX_BYTES - 1000], 0)), 0);
        assert!(queue.push(parked(Class::Player, 4, 17, vec![0; 1500], 0)) > 0);
    }

    #[test]
    fn the_old_and_the_undecided_end() {
        let mut queue = Queue::default();
        queue.push(parked(Class::Player, 1, 17, vec![0], 0));
        queue.push(parked(Class::Undecided, 1, 17, vec![0], 10_000_000_000));
        queue.push(parked(Class::Player, 1, 17, vec![0], 12_000_000_000));
        assert_eq!(queue.expire(15_000_000_000), 1);
        assert_eq!(queue.expire_undecided_datagrams(13_500_000_000, Duration::from_secs(3)), 1);
        assert_eq!(queue.pop().unwrap().knock.time_ns, 12_000_000_000);
    }
}
