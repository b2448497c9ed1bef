use super::*;

#[test]
fn every_check_of_this_machine_says_what_it_found_and_what_to_do() {
    let pins = format!("/sys/fs/bpf/dormouse-test-preflight-all-{}", std::process::id());
    let text = format!("pin_dir = {pins:?}\nrun_dir = \"/run/no-such-dormouse\"\n");
    let node = Node::parse(Path::new("/x.toml"), &text).unwrap();
    let found = preflight(&node);
    for check in &found.checks {
        eprintln!("{:?} {}: {} {:?}", check.result, check.name, check.found, check.remedy);
        assert!(!check.found.is_empty(), "{check:?}");
        assert_eq!(check.remedy.is_none(), check.result == CheckResult::Ok, "{check:?}");
    }
    for name in
        ["kernel", "BTF", "bpffs", "BPF object", "CAP_BPF", "cgroup v2", "freezer", "guard", "systemd"]
    {
        assert_eq!(found.checks.iter().filter(|check| check.name == name).count(), 1, "{name}");
    }
    assert!(!Path::new(&pins).exists());
}

#[test]
fn a_machine_without_anything_still_gets_an_answer() {
    let text = "pin_dir = \"/no/such/pins\"\ncgroup_root = \"/no/such/cgroups\"\n";
    let found = preflight(&Node::parse(Path::new("/x.toml"), text).unwrap());
    let failed =
        |name: &str| found.checks.iter().any(|check| check.name == name && check.result == CheckResult::Fail);
    assert!(failed("bpffs") && failed("BPF object") && failed("cgroup v2"), "{found:?}");
}
