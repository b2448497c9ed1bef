//! Deep: the memory goes back to the node, and everything is still there when a client comes.

use std::{fs, time::Duration};

use dormouse_api::status::Stage;
use dormouse_tests::{
    clients::{self, node::minecraft_join},
    daemon::QUICK,
    process::Place,
    swap::Swap,
};

use crate::stand::{ADDRESS, NAME, Plan, Plays, Stand, TIMEOUT};

/// What else happens on the machine moves its counters too: so many tries for one that shows the goal.
const TRIES: u32 = 5;
const PAGE_OUT_WITHIN: Duration = Duration::from_mins(3);

fn stand(plays: Plays, profile: &str) -> Stand {
    // Long enough that a client's wake is the only one, also where an answer takes seconds.
    let limits = QUICK
        .replace("doze_after = \"1s\"", "doze_after = \"15s\"")
        .replace("deep_after = \"never\"", "deep_after = \"2s\"")
        .replace("floor = \"dozing\"", "floor = \"deep\"");
    Stand::new(&Plan { limits: &limits, ..Plan::new(plays, profile) })
}

/// In bytes.
#[derive(Clone, Copy, Debug)]
struct Memory {
    free: u64,
    swap_cached: u64,
}

impl Memory {
    fn now() -> Self {
        let text = fs::read_to_string("/proc/meminfo").unwrap();
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim().split(' ').next().unwrap().parse::<u64>().unwrap() * 1024
        };
        Self { free: value("MemFree:"), swap_cached: value("SwapCached:") }
    }
}

fn is_nine_tenths(part: u64, whole: u64) -> bool {
    part * 10 >= whole * 9
}

/// Whether the node's own counters must show the memory as well: they say nothing of a small server on a machine where
/// others work.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    ByDaemon,
    ByNode,
}

/// A server that went deep by itself and handed back nine tenths of what it held.
fn deep(plays: Plays, profile: &str, shown: Shown) -> Stand {
    let mut seen = vec![];
    for _ in 0..TRIES {
        let stand = stand(plays, profile);
        stand.daemon.wait_for(NAME, Stage::Dozing, PAGE_OUT_WITHIN).unwrap();
        let before = Memory::now();
        stand.daemon.wait_for(NAME, Stage::Deep, PAGE_OUT_WITHIN).unwrap();
        let after = Memory::now();
        assert!(stand.cgroup.is_frozen().unwrap());
        let memory = stand.daemon.why(NAME).unwrap().memory.expect("told of its memory");
        let (size, back) = (memory.size_bytes, memory.handed_back.bytes);
        // True whatever else happens: its pages are on swap.
        let swapped = stand.cgroup.memory().unwrap().swapped;
        assert!(is_nine_tenths(swapped, size), "{swapped} of {size} on swap\n{}", stand.daemon.log());
        // Not in the swap cache as well.
        let freed = (after.free + before.swap_cached).saturating_sub(before.free + after.swap_cached);
        if is_nine_tenths(back, size) && (shown == Shown::ByDaemon || is_nine_tenths(freed, size)) {
            return stand;
        }
        seen.push((memory, before, after));
    }
    panic!("never handed back nine tenths: {seen:?}");
}

fn told_of_a_wake_from_deep(stand: &Stand) {
    let last = stand.until_why("told of its wake", |why| why.last_wake.is_some()).last_wake.unwrap();
    assert_eq!(last.from_stage, Stage::Deep);
}

#[test]
fn minecraft_is_joined_from_deep() {
    let _swap = Swap::make(2048).unwrap();
    let stand = deep(Plays::Minecraft, "minecraft-java", Shown::ByDaemon);
    let client = Place::netns(&stand.node.client);
    minecraft_join(client, ADDRESS, "deepa", Duration::from_secs(1)).unwrap();
    told_of_a_wake_from_deep(&stand);
}

#[test]
fn luanti_is_joined_from_deep() {
    let _swap = Swap::make(2048).unwrap();
    let stand = deep(Plays::Luanti, "luanti", Shown::ByDaemon);
    let to = ADDRESS;
    stand.node.client.run(|| clients::luanti::join(to, "deepa", TIMEOUT)).unwrap();
    told_of_a_wake_from_deep(&stand);
}

#[test]
fn a_jvm_of_a_gib_comes_back_whole_from_deep() {
    // Where the sweep touches pages only half of the swap is used (vm_swap_full).
    let _swap = Swap::make(4096).unwrap();
    let stand = deep(Plays::Heap(1024), "generic-tcp", Shown::ByNode);
    let to = ADDRESS;
    let ask = |line: &str| {
        let answer = clients::line::ask(to, line, Duration::from_mins(2)).unwrap();
        (answer.retransmissions, String::from_utf8_lossy(&answer.reply).into_owned())
    };
    stand.node.client.run(|| {
        let (retransmissions, answer) = ask("ping");
        assert!(answer.starts_with("ok ping"), "{answer}");
        assert_eq!(retransmissions, 0);
        let (_, answer) = ask("touch 1024");
        assert!(answer.starts_with("ok touch"), "{answer}");
        let (_, answer) = ask("check");
        assert!(answer.ends_with(" wrong=0"), "{answer}");
    });
    told_of_a_wake_from_deep(&stand);
}
