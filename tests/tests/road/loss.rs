//! Players on a way that loses packets and lets them overtake each other: all get in, with every byte in its place.

use std::time::Duration;

use dormouse_tests::{
    lossy::Weather,
    stand::{Stand, udp_until_answered},
    topology::Node,
};

use crate::{
    LIMITS,
    case::{POTS, Road},
};

/// Of each kind, at each rate.
const PLAYERS: usize = 8;

#[test]
fn players_get_in_through_loss_and_reordering() {
    let node = Node::create(POTS).unwrap();
    let link = node.lossy_uplink(0x1055).unwrap();
    let mut road = Road::new(Stand::prepare_on(node, LIMITS).unwrap());
    road.lossy = true;
    for (percent, late_in_thousand) in [(0, 0), (1, 20), (3, 60)] {
        let weather =
            Weather { lost_in_thousand: 10 * percent, late_in_thousand, late_by: Duration::from_millis(4) };
        let mut again = 0;
        for player in 0..if percent == 0 { 2 } else { PLAYERS } {
            link.set(weather);
            again += road.case(&format!("{percent} % lost: TCP {player}"), |at| {
                let to = at.addresses()[player % 2];
                at.tcp(to, 40_000)
            });
            road.case(&format!("{percent} % lost: UDP {player}"), |at| {
                let to = at.v4();
                let sent = at.client(|| udp_until_answered(to))?;
                eprintln!("answered after {sent} datagrams");
                Ok(())
            });
        }
        let (lost, late) = link.lost_and_late();
        eprintln!("{percent} % lost: {lost} frames lost and {late} late so far; {again} segments sent again");
        if percent == 0 {
            assert_eq!(again, 0, "nothing is lost, nothing is sent again");
        }
    }
    let (lost, late) = link.lost_and_late();
    assert!(lost > 0 && late > 0, "the link lost {lost} and held back {late}: the test tests nothing");
    road.finish();
    drop(link);
}
