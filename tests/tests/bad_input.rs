//! What is wrong on a machine or in its files: a clear message with the remedy, and every server stays reachable.

use std::{fs, process::Command};

use anyhow::ensure;
use dormouse_api::status::Stage;
use dormouse_tests::{
    cgroup::Cgroup,
    daemon::{QUICK, ServerFile},
    process::{Place, Process},
    servers::echo::{self, sibling},
    stand::{PORT, SOON, Stand},
};
use nix::sys::signal::Signal;

/// Runs a command line until it ends by itself, in the node's namespace: its exit code and what it printed.
fn ends(stand: &Stand, command: Command) -> (Option<i32>, String) {
    let mut process = Process::spawn("dormoused", command, Place::netns(&stand.node.netns)).unwrap();
    let status = process.wait(SOON).unwrap();
    (status.code(), process.log())
}

fn assert_reachable(stand: &Stand) {
    for index in 0..stand.pots.len() {
        stand.tcp(index).unwrap_or_else(|error| panic!("{index}: {error:#}\n{}", stand.daemon.log()));
        stand.udp(index).unwrap();
    }
}

#[test]
fn a_wrong_configuration_names_file_line_key_and_what_is_allowed() {
    let stand = Stand::prepare(1, "").unwrap();
    let file = stand.daemon.path("dormoused.toml");
    let good = fs::read_to_string(&file).unwrap();
    let line = good.lines().count() + 1;
    for (wrong, said) in [
        ("stale_aftr = \"1s\"", vec!["stale_aftr", "did you mean `stale_after`", "guard_limit"]),
        ("guard_limit = \"soon\"", vec!["guard_limit", "soon"]),
        ("guard_limit = \"1ms\"", vec!["guard_limit", "at least 1s"]),
        ("this is no TOML", vec!["not valid TOML"]),
    ] {
        fs::write(&file, format!("{good}{wrong}\n")).unwrap();
        let (code, log) = ends(&stand, stand.daemon.command().unwrap());
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(&format!("{}:{line}:", file.display())), "{log}");
        for word in said {
            assert!(log.contains(word), "{word:?} is missing: {log}");
        }
    }
    assert_reachable(&stand);
}

/// A wrong server file takes no other server down, and its own is woken.
#[test]
fn a_server_file_that_goes_wrong_lets_its_server_go() {
    let mut stand = Stand::prepare(2, "").unwrap();
    stand.start().unwrap();
    stand.doze_all().unwrap();
    stand.write_file(0, "doze_aftr = \"1s\"\n").unwrap();
    stand.daemon.process.as_ref().unwrap().signal(Signal::SIGHUP).unwrap();
    stand
        .wait_until("its server is woken", || {
            ensure!(stand.frozen()? == [false, true]);
            Ok(())
        })
        .unwrap();
    let log = stand.daemon.log();
    assert!(log.contains("bench-echo0.toml") && log.contains("doze_aftr"), "{log}");
    assert_reachable(&stand);

    // The same while no daemon runs: the next one wakes whom it does not manage.
    stand.write_file(0, "").unwrap();
    stand.daemon.process.as_ref().unwrap().signal(Signal::SIGHUP).unwrap();
    stand.wait_until("it is known again", || stand.doze(0)).unwrap();
    stand.daemon.end_by(Signal::SIGTERM).unwrap();
    stand.write_file(0, "doze_aftr = \"1s\"\n").unwrap();
    stand.start_daemon().unwrap();
    stand
        .wait_until("its server is woken", || {
            ensure!(!stand.pots[0].cgroup.is_frozen()?);
            Ok(())
        })
        .unwrap();
    assert_reachable(&stand);
}

#[test]
fn a_port_that_two_claim_belongs_to_one_and_a_cgroup_to_neither() {
    let mut stand = Stand::prepare(2, "").unwrap();
    // The first pod's cgroup, under another name and with its port.
    let claim = |stand: &Stand, ports: &[&str]| {
        let second = ServerFile {
            name: "bench/second",
            profile: "generic-tcp",
            cgroup: &stand.pots[0].cgroup,
            ports,
            limits: QUICK,
        };
        stand.daemon.manage(&second).unwrap();
    };
    claim(&stand, &["tcp/7100"]);
    stand.start_daemon().unwrap();
    let note = |name: &str, words: &[&str]| {
        stand
            .wait_until(name, || {
                let note = stand.daemon.server(name)?.note.unwrap_or_default();
                ensure!(words.iter().all(|word| note.contains(word)), "{name}: {note:?}");
                Ok(())
            })
            .unwrap();
    };
    stand
        .wait_until("one of them is refused", || {
            let notes: Vec<_> = ["bench/second", "bench/echo0"]
                .iter()
                .map(|name| Ok(stand.daemon.server(name)?.note.unwrap_or_default()))
                .collect::<anyhow::Result<_>>()?;
            ensure!(
                notes.iter().any(|note| note.contains("tcp/7100") && note.contains("select")),
                "{notes:?}"
            );
            Ok(())
        })
        .unwrap();
    assert_reachable(&stand);

    // Ports of its own: then the cgroup is what they share, and neither may sleep.
    claim(&stand, &["tcp/7101"]);
    stand.daemon.process.as_ref().unwrap().signal(Signal::SIGHUP).unwrap();
    note("bench/second", &["cgroup", "bench/echo0"]);
    note("bench/echo0", &["cgroup", "bench/second"]);
    stand.daemon.wait_for(&stand.pots[1].name, Stage::Dozing, SOON).unwrap();
    assert_eq!(stand.frozen().unwrap(), [false, true]);
    assert_reachable(&stand);
}

/// Two servers in one namespace share the door: when one goes, the other's door stays.
#[test]
fn servers_on_one_veth_share_the_door() {
    let mut stand = Stand::prepare(1, "").unwrap();
    let cgroup = Cgroup::create("second").unwrap();
    let second = echo::start(Place::new(&stand.node.pods[0].netns, &cgroup), 7200).unwrap();
    stand
        .daemon
        .manage(&ServerFile {
            name: "bench/second",
            profile: "generic-tcp",
            cgroup: &cgroup,
            ports: &["tcp/7200"],
            limits: QUICK,
        })
        .unwrap();
    stand.start().unwrap();
    stand.doze_all().unwrap();
    drop(second);
    drop(cgroup);
    stand
        .wait_until("the second is gone", || {
            ensure!(stand.daemon.server("bench/second")?.note.is_some());
            Ok(())
        })
        .unwrap();
    stand.doze(0).unwrap();
    assert_eq!(stand.tcp(0).unwrap().retransmissions, 0);
}

/// Killed while it is frozen, and started again in the same cgroup or in a new one: the next is reachable.
#[test]
fn a_frozen_server_is_killed_and_its_successor_is_reachable() {
    let mut stand = Stand::prepare(1, "").unwrap();
    stand.start_blind().unwrap();
    for _ in 0..2 {
        stand.doze_all().unwrap();
        stand.pots[0].server = None;
        let cgroup = &stand.pots[0].cgroup;
        stand
            .wait_until("the cgroup is let go", || {
                ensure!(
                    !cgroup.is_frozen()? && fs::read_to_string(cgroup.path().join("cgroup.freeze"))? == "0\n"
                );
                Ok(())
            })
            .unwrap();
        stand.pots[0].server =
            Some(echo::start(Place::new(&stand.node.pods[0].netns, &stand.pots[0].cgroup), PORT).unwrap());
        assert_reachable(&stand);
    }
    stand.doze_all().unwrap();
    assert_eq!(stand.tcp(0).unwrap().retransmissions, 0);
}

#[test]
fn a_cgroup_that_vanishes_while_asleep_is_found_again_under_its_name() {
    let mut stand = Stand::prepare(2, "").unwrap();
    stand.start_blind().unwrap();
    stand.doze_all().unwrap();
    let path = stand.pots[0].cgroup.path().to_owned();
    stand.pots[0].server = None;
    fs::remove_dir(&path).unwrap();
    stand
        .wait_until("its absence is told", || {
            let server = stand.daemon.server(&stand.pots[0].name)?;
            ensure!(server.note.is_some() && server.stage == Stage::Awake, "{server:?}");
            Ok(())
        })
        .unwrap();
    fs::create_dir(&path).unwrap();
    stand.pots[0].server =
        Some(echo::start(Place::new(&stand.node.pods[0].netns, &stand.pots[0].cgroup), PORT).unwrap());
    assert_reachable(&stand);
    // The log of the old cgroup keeps nobody awake.
    stand.doze(0).unwrap();
    assert_reachable(&stand);
}

#[test]
fn a_veth_that_is_made_anew_gets_a_new_door() {
    let mut stand = Stand::prepare(1, "").unwrap();
    stand.start_blind().unwrap();
    stand.doze_all().unwrap();
    let (node, pod) = (&stand.node, &stand.node.pods[0]);
    node.netns.ip(&format!("link del {}", pod.host_veth)).unwrap();
    stand
        .wait_until("it is let go when its veth is gone", || {
            ensure!(!stand.pots[0].cgroup.is_frozen()?);
            Ok(())
        })
        .unwrap();
    pod.netns
        .ip(&format!("link add eth0 type veth peer name {} netns {}", pod.host_veth, node.netns.name()))
        .unwrap();
    node.netns.ip(&format!("link set {} master cni0", pod.host_veth)).unwrap();
    node.netns.ip(&format!("link set {} up", pod.host_veth)).unwrap();
    pod.netns.ip("link set eth0 up").unwrap();
    pod.netns.ip(&format!("addr add {}/24 dev eth0", pod.v4)).unwrap();
    pod.netns.ip(&format!("addr add {}/64 dev eth0", pod.v6)).unwrap();
    pod.netns.ip("route add default via 10.42.0.1").unwrap();
    assert_reachable(&stand);
    stand.wait_until("it dozes behind its new door", || stand.doze(0)).unwrap();
    assert_eq!(stand.tcp(0).unwrap().retransmissions, 0);
}

/// What the kernel or the machine refuses ends the daemon with a reason and touches nobody.
#[test]
fn what_is_missing_is_said() {
    let mut stand = Stand::prepare(1, "").unwrap();
    let before = stand.snapshot().unwrap();
    for (capability, said) in [("net_raw", "CAP_NET_RAW"), ("bpf,-perfmon,-sys_admin", "CAP_BPF")] {
        let inner = stand.daemon.command().unwrap();
        let mut command = Command::new("setpriv");
        command.arg(format!("--bounding-set=-{capability}")).arg("--").arg(inner.get_program());
        command.args(inner.get_args());
        let (code, log) = ends(&stand, command);
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(said), "{said} is missing: {log}");
    }

    let lonely = stand.daemon.path("lonely");
    fs::copy(sibling("dormoused").unwrap(), &lonely).unwrap();
    let mut command = Command::new(&lonely);
    command.arg("--config").arg(stand.daemon.path("dormoused.toml"));
    let (code, log) = ends(&stand, command);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("dormouse-netns") && log.contains("installed beside"), "{log}");

    let (config, good) = (stand.daemon.path("dormoused.toml"), stand.daemon.pin_dir().display().to_string());
    let text = fs::read_to_string(&config).unwrap();
    for (wrong, said) in [("/proc/dormouse", "mount -t bpf"), ("/tmp/dormouse-pins", "not in a bpffs")] {
        fs::write(&config, text.replace(&good, wrong)).unwrap();
        let (code, log) = ends(&stand, stand.daemon.command().unwrap());
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(said), "{said} is missing: {log}");
    }
    let run = stand.daemon.path("run").display().to_string();
    fs::write(&config, text.replace(&run, "/proc/dormouse")).unwrap();
    let (code, log) = ends(&stand, stand.daemon.command().unwrap());
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("/proc/dormouse"), "{log}");
    fs::write(&config, text).unwrap();

    // Maps may be pinned; nothing of a server's was touched.
    let after = stand.snapshot().unwrap();
    let servers = |text: &str| {
        text.lines().filter(|line| !line.starts_with("pin ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(servers(&after), servers(&before));
    stand.start().unwrap();
    assert_reachable(&stand);
}

/// A second daemon on the same directories ends by itself and takes nothing away from the first.
#[test]
fn a_second_daemon_takes_nothing_from_the_first() {
    let mut stand = Stand::prepare(1, "").unwrap();
    stand.start().unwrap();
    stand.doze_all().unwrap();
    let (code, log) = ends(&stand, stand.daemon.command().unwrap());
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("another daemon answers"), "{log}");
    assert_eq!(stand.frozen().unwrap(), [true]);
    assert_eq!(stand.tcp(0).unwrap().retransmissions, 0);
    stand.doze_all().unwrap();
    stand.udp(0).unwrap();
}

/// Without swap there is no deep: refused with the reason, and it stays dozing.
#[test]
fn without_swap_it_stays_dozing() {
    let mut stand = Stand::prepare(1, "").unwrap();
    let file = stand.daemon.path("state/servers.d/bench-echo0.toml");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("\"never\"", "\"1h\"").replace("floor = \"dozing\"", "floor = \"deep\"");
    fs::write(&file, text).unwrap();
    // For the daemon alone: the machine may have swap.
    let none = stand.daemon.path("swaps");
    fs::write(&none, "Filename\tType\tSize\tUsed\tPriority\n").unwrap();
    let inner = stand.daemon.command().unwrap();
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" /proc/swaps && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(&none).arg(inner.get_program()).args(inner.get_args());
    stand.daemon.start_as(&stand.node.netns, command).unwrap();
    stand.wait_until("it is watched", || stand.doze(0)).unwrap();
    let refused = stand.daemon.sleep_once(&stand.pots[0].name, true).unwrap_err();
    assert!(format!("{refused:#}").contains("swap"), "{refused:#}");
    assert_eq!(stand.daemon.server(&stand.pots[0].name).unwrap().stage, Stage::Dozing);
    assert_eq!(stand.tcp(0).unwrap().retransmissions, 0);
}
