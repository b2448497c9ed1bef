//! Frozen, throttled, deep, awake, off: each as the kernel tells it, not as the daemon says.

use std::fs;

use dormouse_api::status::Stage;
use dormouse_tests::swap::Swap;

use crate::stand::{MIB, NAME, Stand, is_pure_v2, kernel};

const HELD: u64 = (MIB as u64) << 20;

fn is_nine_tenths(part: u64, whole: u64) -> bool {
    part * 10 >= whole * 9
}

#[test]
fn a_frozen_server_is_woken_by_a_player() {
    if !is_pure_v2() {
        return;
    }
    let stand = Stand::new("freeze").start();
    stand.daemon.sleep(NAME, false).unwrap();
    assert!(stand.cgroup.is_frozen().unwrap());
    assert_eq!(stand.file("cgroup.freeze"), "1");
    stand.is_whole();
    stand.wait_for(Stage::Awake);
    assert_eq!(stand.file("cgroup.freeze"), "0");
}

#[test]
fn a_throttled_server_ticks_on_and_gets_its_cpu_back() {
    if !is_pure_v2() {
        return;
    }
    let stand = Stand::new("throttle");
    // An operator's own limit is what it must get back.
    stand.write("cpu.max", "150000 200000");
    let stand = stand.start();
    stand.daemon.sleep(NAME, false).unwrap();
    assert!(!stand.cgroup.is_frozen().unwrap());
    let throttled = stand.file("cpu.max");
    let (quota, period) = throttled.split_once(' ').unwrap();
    assert_eq!(period, "200000");
    assert!(quota.parse::<u64>().unwrap() <= 20_000, "{throttled}");
    stand.is_whole();
    stand.wait_for(Stage::Awake);
    assert_eq!(stand.file("cpu.max"), "150000 200000");
}

#[test]
fn off_gives_a_throttled_server_its_cpu_back() {
    if !is_pure_v2() {
        return;
    }
    let stand = Stand::new("throttle").start();
    stand.daemon.sleep(NAME, false).unwrap();
    assert_ne!(stand.file("cpu.max"), "max 100000");
    let said = stand.daemon.guard_command("off", &stand.node.netns).unwrap();
    assert_eq!(stand.file("cpu.max"), "max 100000", "{said}");
}

/// Deep, with swap forbidden by the container runtime as runc does it.
#[test]
fn deep_hands_the_memory_back_and_a_player_finds_all_of_it_again() {
    if !is_pure_v2() {
        return;
    }
    let _swap = Swap::ensure(512).unwrap();
    let stand = Stand::new("freeze");
    stand.write("memory.swap.max", "0");
    let stand = stand.start();
    let before = stand.bytes("memory.current");
    let files = stand.stat("file");
    for round in 1..=2 {
        stand.daemon.sleep(NAME, true).unwrap();
        stand.wait_for(Stage::Deep);
        assert!(stand.cgroup.is_frozen().unwrap());
        let told = stand.daemon.why(NAME).unwrap().memory.unwrap();
        let now = stand.bytes("memory.current");
        println!(
            "{:?} round {round}: held {before}, now {now}, swapcached {}, swap {}, told {told:?}",
            kernel(),
            stand.stat("swapcached"),
            stand.file("memory.swap.current"),
        );
        assert!(!told.handed_back.estimated);
        assert_eq!(told.current_bytes, Some(now));
        assert!(is_nine_tenths(told.handed_back.bytes, HELD), "{told:?}\n{}", stand.daemon.log());
        assert!(
            is_nine_tenths(before.saturating_sub(now), HELD),
            "{before} -> {now}\n{}",
            stand.daemon.log()
        );
        assert!(stand.stat("swapcached") * 50 <= HELD, "{}", stand.file("memory.stat"));
        assert!(is_nine_tenths(stand.stat("file"), files), "its file pages were thrown out");
        assert_eq!(stand.file("memory.swap.max"), "max");
        stand.is_whole();
        stand.wait_for(Stage::Awake);
        assert_eq!(stand.file("cgroup.freeze"), "0");
        stand.until("its swap limit is put back", || stand.file("memory.swap.max") == "0");
    }
}

#[test]
fn off_brings_a_deep_sleeper_back_to_what_it_was() {
    if !is_pure_v2() {
        return;
    }
    let _swap = Swap::ensure(512).unwrap();
    let stand = Stand::new("freeze");
    stand.write("memory.swap.max", "4096");
    let stand = stand.start();
    stand.daemon.sleep(NAME, true).unwrap();
    stand.wait_for(Stage::Deep);
    assert_eq!(stand.file("memory.swap.max"), "max");
    let said = stand.daemon.guard_command("off", &stand.node.netns).unwrap();
    assert_eq!(stand.file("memory.swap.max"), "4096", "{said}");
    assert_eq!(stand.file("cgroup.freeze"), "0", "{said}");
    stand.is_whole();
}

/// A cgroup above that forbids swap is not ours to change: the server dozes on, and the reason is told.
#[test]
fn a_cgroup_above_that_forbids_swap_is_left_alone() {
    if !is_pure_v2() {
        return;
    }
    let _swap = Swap::ensure(512).unwrap();
    let stand = Stand::new("freeze");
    let above = stand.above.path().join("memory.swap.max");
    fs::write(&above, "0").unwrap();
    let stand = stand.start();
    stand.daemon.sleep(NAME, false).unwrap();
    let error = stand.daemon.sleep_once(NAME, true).unwrap_err();
    assert!(format!("{error:#}").contains("forbids swap"), "{error:#}");
    assert!(stand.cgroup.is_frozen().unwrap());
    assert_eq!(fs::read_to_string(above).unwrap(), "0\n");
    stand.is_whole();
}
