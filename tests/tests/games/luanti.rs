//! Luanti: the server list's ping and a player, at a dozing server.

use dormouse_api::status::Stage;
use dormouse_tests::{clients, topology::CLIENT};

use crate::stand::{ADDRESS, Plan, Plays, Stand, TIMEOUT};

fn dozing() -> Stand {
    let stand = Stand::new(&Plan::new(Plays::Luanti, "luanti"));
    stand.doze();
    stand
}

#[test]
fn the_server_lists_pings_are_answered_and_wake_nobody() {
    dozing().assert_pings_wake_nobody(|| clients::luanti::ping(ADDRESS, TIMEOUT));
}

#[test]
fn a_player_joins_from_the_doze() {
    let mut stand = dozing();
    let to = ADDRESS;
    stand.node.client.run(|| clients::luanti::join(to, "sam", TIMEOUT)).unwrap();
    assert_eq!(stand.server.seen_address("sam").unwrap(), CLIENT[0]);
    let last = stand.until_why("told of its wake", |why| why.last_wake.is_some()).last_wake.unwrap();
    assert_eq!(last.from_stage, Stage::Dozing);
    stand.wait_for(Stage::Dozing);
}
