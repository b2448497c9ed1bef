//! Counters that rise, made of absolute values that may begin anew (a door that was loaded again).

use dormouse_abi::server::Counters;

use crate::sleep::Tally;

/// One such counter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rising {
    total: u64,
    last: u64,
}

impl Rising {
    pub fn total(self) -> u64 {
        self.total
    }

    /// The source shows `now`. One that fell has been zero in between: all that it shows is new. The first
    /// value counts whole, so that a restarted daemon goes on where the door, which stayed, is.
    pub fn follow(&mut self, now: u64) {
        self.total = self.total.saturating_add(now.checked_sub(self.last).unwrap_or(now));
        self.last = now;
    }
}

macro_rules! door_totals {
    ($($name:ident),+) => {
        /// Everything that is counted at the door of one server.
        #[derive(Clone, Debug, Default)]
        pub(super) struct DoorTotals {
            $($name: Rising,)+
            replayed: Rising,
            expired: Rising,
            untold: Rising,
        }

        impl DoorTotals {
            pub fn follow(&mut self, counters: &Counters, tally: Tally) {
                $(self.$name.follow(counters.$name);)+
                self.replayed.follow(tally.replayed);
                self.expired.follow(tally.expired);
                self.untold.follow(tally.untold);
            }
        }
    };
}

door_totals!(packets, bytes, player, query, probe, noise, undecided, parked, no_room, fail_open, refused);

impl DoorTotals {
    /// Name, help, value.
    pub fn plain(&self) -> [(&'static str, &'static str, u64); 9] {
        [
            ("packets", "Packets towards the server that the door saw", self.packets.total),
            ("packet_bytes", "Bytes of these packets", self.bytes.total),
            ("parked", "Packets that were held while the server slept", self.parked.total),
            ("replayed", "Parked packets that were given to the server", self.replayed.total),
            ("expired", "Parked packets that were dropped for their age", self.expired.total),
            ("refused", "Packets of noise that were consumed while the server slept", self.refused.total),
            (
                "no_room",
                "Packets that found no room in the ring buffer; they passed and woke",
                self.no_room.total,
            ),
            (
                "knocks_untold",
                "Knocks that were counted and not looked at one by one, since too many came at once",
                self.untold.total,
            ),
            ("fail_open", "Packets that passed because the heartbeat was stale", self.fail_open.total),
        ]
    }

    /// Payload packets that came while the server slept, by class.
    pub fn knocks(&self) -> [(&'static str, u64); 5] {
        [
            ("player", self.player.total),
            ("query", self.query.total),
            ("probe", self.probe.total),
            ("noise", self.noise.total),
            ("undecided", self.undecided.total),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_total_never_falls_and_counts_what_was_counted(steps: Vec<(bool, u32)>) {
            let (mut rising, mut source, mut counted) = (Rising::default(), 0_u64, 0_u64);
            for (anew, more) in steps {
                // A source that begins anew and overtakes its old value between two looks can't be told.
                if anew && u64::from(more) < source {
                    source = 0;
                }
                source += u64::from(more);
                counted += u64::from(more);
                let before = rising.total;
                rising.follow(source);
                proptest::prop_assert!(rising.total >= before);
                proptest::prop_assert_eq!(rising.total, counted);
            }
        }
    }
}
