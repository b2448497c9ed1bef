//! DDNet: the server browser's info queries and a player, at a dozing server.

use std::time::Duration;

use dormouse_api::status::Stage;
use dormouse_tests::{
    clients::{self, node::ddnet_join},
    process::Place,
    topology::CLIENT,
};

use crate::stand::{ADDRESS, Plan, Plays, Stand, TIMEOUT};

fn dozing() -> Stand {
    let stand = Stand::new(&Plan::new(Plays::DdNet, "ddnet"));
    stand.doze();
    stand
}

#[test]
fn info_queries_are_answered_and_wake_nobody() {
    dozing().assert_pings_wake_nobody(|| clients::ddnet::info(ADDRESS, TIMEOUT));
}

#[test]
fn a_player_joins_from_the_doze() {
    let mut stand = dozing();
    let client = Place::netns(&stand.node.client);
    ddnet_join(client, ADDRESS, "tee", Duration::from_secs(2)).unwrap();
    assert_eq!(stand.server.seen_address("tee").unwrap(), CLIENT[0]);
    stand.until_why("told of its wake", |why| why.last_wake.is_some());
    stand.wait_for(Stage::Dozing);
}
