use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dormouse_packet::Game;

use super::super::*;
use crate::limits::{DozeBy, Floor};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

/// A state directory of its own; gone at the end of the test.
struct House {
    _dir: tempfile::TempDir,
    node: Node,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("state_dir = \"{}\"", dir.path().display());
        let node = Node::parse(Path::new("f"), &text).unwrap();
        fs::create_dir(&node.server_dir).unwrap();
        fs::create_dir(&node.profile_dir).unwrap();
        Self { _dir: dir, node }
    }

    fn server(&self, file: &str, text: &str) -> PathBuf {
        let path = self.node.server_dir.join(file);
        fs::write(&path, text).unwrap();
        path
    }

    fn profile(&self, file: &str, text: &str) -> PathBuf {
        let path = self.node.profile_dir.join(file);
        fs::write(&path, text).unwrap();
        path
    }

    fn load(&self) -> Loaded {
        load(&self.node, NOW)
    }
}

fn errors(loaded: &Loaded) -> Vec<String> {
    loaded.errors.iter().map(ToString::to_string).collect()
}

fn port(text: &str) -> PortSpec {
    let text = format!("select = \"pid:1\"\nprofile = \"x\"\nports = [\"{text}\"]");
    ServerFile::parse(Path::new("s.toml"), &text).unwrap().ports[0].port
}

const SOUND: &str = "select = \"pid:1\"\nprofile = \"luanti\"\n";

#[test]
fn a_bad_file_takes_no_other_down() {
    let house = House::new();
    house.server("good.toml", SOUND);
    let bad = house.server("bad.toml", "select = ");
    house.server("notes.txt", "not read");
    let loaded = house.load();
    assert_eq!(loaded.servers.keys().collect::<Vec<_>>(), ["good"]);
    assert_eq!(loaded.errors.len(), 1);
    assert_eq!(loaded.errors[0].file(), Some(bad.as_path()));
}

#[test]
fn no_directory_is_no_server() {
    let house = House::new();
    fs::remove_dir(&house.node.server_dir).unwrap();
    fs::remove_dir(&house.node.profile_dir).unwrap();
    let loaded = house.load();
    assert!(loaded.servers.is_empty() && loaded.errors.is_empty());
    assert_eq!(loaded.profiles.len(), 16);
}

#[test]
fn two_files_of_one_name() {
    let house = House::new();
    let a = house.server("a.toml", &format!("name = \"acme/x\"\n{SOUND}"));
    let b = house.server("b.toml", &format!("name = \"acme/x\"\n{SOUND}"));
    house.server("c.toml", SOUND);
    let loaded = house.load();
    assert_eq!(loaded.servers.keys().collect::<Vec<_>>(), ["c"]);
    let expected = format!(
        "server `acme/x` is described twice, in {} and in {}: rename or remove one; neither is used",
        a.display(),
        b.display()
    );
    assert_eq!(errors(&loaded), [expected]);
}

#[test]
fn a_profile_that_is_not_there() {
    let house = House::new();
    let file = house.server("a.toml", "select = \"pid:1\"\nprofile = \"minecraft-jawa\"");
    let loaded = house.load();
    let expected = format!(
        "{}: no profile `minecraft-jawa` (did you mean `minecraft-java`?): there are ddnet, factorio, generic-tcp, \
         generic-udp, luanti, minecraft-bedrock, minecraft-java, palworld, project-zomboid, quake3, rust, source, \
         teeworlds, terraria, valheim, valheim-crossplay",
        file.display()
    );
    assert_eq!(errors(&loaded), [expected]);
}

#[test]
fn an_own_profile_takes_the_place_of_the_shipped_one() {
    let house = House::new();
    house.server("a.toml", SOUND);
    let file = house.profile("luanti.toml", "[limits]\ndoze_after = \"1h\"");
    let loaded = house.load();
    let server = &loaded.servers["a"];
    assert_eq!(server.limits.doze_after, Duration::from_hours(1));
    assert_eq!(server.limits.doze_by, DozeBy::Throttle, "nothing of the shipped one is left");
    assert_eq!(server.profile.from, file.display().to_string());
}

#[test]
fn a_broken_profile_does_not_fall_back_to_the_shipped_one() {
    let house = House::new();
    let server = house.server("a.toml", SOUND);
    house.server("b.toml", "select = \"pid:1\"\nprofile = \"ddnet\"");
    let profile = house.profile("luanti.toml", "doze = 1");
    let loaded = house.load();
    assert_eq!(loaded.servers.keys().collect::<Vec<_>>(), ["b"]);
    let cause = format!(
        "{}:1: unknown key `doze`: allowed are verified, protocol, ports, limits, watchdog, save, \
         harmless_outbound, ready, refuse, refuse_freeze",
        profile.display()
    );
    let effect = format!("{}: its profile `luanti` cannot be used: {cause}", server.display());
    assert_eq!(errors(&loaded), [cause, effect]);
}

#[test]
fn an_override_holds_until_its_end_and_is_explained() {
    let house = House::new();
    let file = house.server("a.toml", &format!("{SOUND}limits.doze_after = \"6m\""));
    let until = NOW + Duration::from_mins(1);
    let entry = Override::new("a", "doze_after", "7m", until, Some("LAN party".to_owned()), NOW).unwrap();
    house.server("other.toml", SOUND);
    house.load().set(entry, NOW).unwrap();

    let loaded = house.load();
    assert_eq!(loaded.servers["other"].limits.doze_after, Duration::from_mins(5), "another server's");
    assert_eq!(loaded.next_end(), Some(until));
    let server = &loaded.servers["a"];
    assert_eq!(server.limits.doze_after, Duration::from_mins(7));
    let explained = explain(&server.layers);
    let told = explained.iter().find(|explained| explained.key == "doze_after").unwrap();
    let values: Vec<_> = told.values.iter().map(|v| (v.layer, v.from.clone(), v.value.as_str())).collect();
    let from = format!("{} until 1970-01-01T00:01:00Z, \"LAN party\"", house.node.overrides().display());
    assert_eq!(
        values,
        [
            (Layer::BuiltIn, "built in".to_owned(), "\"30m\""),
            (Layer::Profile, "built in".to_owned(), "\"5m\""),
            (Layer::Server, file.display().to_string(), "\"6m\""),
            (Layer::Override, from, "\"7m\""),
        ]
    );

    let later = load(&house.node, until);
    assert_eq!(later.servers["a"].limits.doze_after, Duration::from_mins(6));
    assert_eq!(later.next_end(), None);
}

#[test]
fn an_override_that_breaks_a_rule_or_has_no_server_is_not_written() {
    let house = House::new();
    house.server("arena.toml", SOUND);
    house.server("fort.toml", "select = \"pid:1\"\nprofile = \"rust\"");
    let loaded = house.load();
    let refused = |server: &str, key: &str, typed: &str| {
        let until = NOW + Duration::from_mins(1);
        let entry = Override::new(server, key, typed, until, None, NOW).unwrap();
        loaded.set(entry, NOW).unwrap_err().to_string()
    };
    assert_eq!(refused("arenna", "floor", "awake"), "no server `arenna` (did you mean `arena`?)");
    assert_eq!(
        refused("arena", "throttle_percent", "0"),
        "arena: throttle_percent = 0 (from this command until 1970-01-01T00:01:00Z): must be from 1 to 100 \
         (percent of one core)"
    );
    assert_eq!(
        refused("fort", "doze_by", "freeze"),
        "fort: doze_by = \"freeze\" (from this command until 1970-01-01T00:01:00Z): must be \"throttle\" with \
         profile rust: decay and upkeep must go on, and a server that lost Steam lets nobody in"
    );
    assert!(!house.node.overrides().exists());
}

#[test]
fn a_refused_game_stays_awake_whatever_its_file_says() {
    let house = House::new();
    house.server("v.toml", "select = \"pid:1\"\nprofile = \"valheim-crossplay\"");
    assert_eq!(house.load().servers["v"].limits.floor, Floor::Awake);
    house.server("v.toml", "select = \"pid:1\"\nprofile = \"valheim-crossplay\"\nlimits.floor = \"dozing\"");
    let loaded = house.load();
    assert!(loaded.servers.is_empty());
    assert!(
        errors(&loaded)[0]
            .contains("must be \"awake\" with profile valheim-crossplay: with -crossplay players")
    );
}

#[test]
fn an_owner_may_ask_for_deep() {
    let house = House::new();
    house.server("a.toml", &format!("{SOUND}limits.floor = \"deep\""));
    assert_eq!(house.load().servers["a"].limits.floor, Floor::Deep);
}

#[test]
fn each_port_has_its_parser() {
    let house = House::new();
    house.server(
        "a.toml",
        "select = \"pid:1\"\nprofile = \"minecraft-java\"\n\
         ports = [\"tcp/1\", { port = \"tcp/2\", protocol = \"generic-tcp\" }, \"udp/3\"]",
    );
    let loaded = house.load();
    let server = &loaded.servers["a"];
    assert_eq!(server.name(), "a");
    assert_eq!(server.game(port("tcp/1")), Game::MinecraftJava);
    assert_eq!(server.game(port("tcp/2")), Game::GenericTcp);
    assert_eq!(server.game(port("udp/3")), Game::GenericUdp);
    assert_eq!(server.game(port("tcp/4")), Game::MinecraftJava, "found from its socket");
}

#[test]
fn save_files_of_the_server_take_the_place_of_the_profiles() {
    let house = House::new();
    house.server("a.toml", &format!("{SOUND}save_files = [\"x.db\"]"));
    house.server("b.toml", SOUND);
    house.server("c.toml", "select = \"pid:1\"\nprofile = \"ddnet\"");
    let loaded = house.load();
    let files = |name: &str| loaded.servers[name].save_files().map(<[_]>::len);
    assert_eq!((files("a"), files("b"), files("c")), (Some(1), Some(5), None));
}

#[test]
fn what_an_operator_vouches_for_is_not_asked_again() {
    let house = House::new();
    house.profile("mine.toml", "harmless_outbound = [\"tcp/443\"]\nwatchdog = [\"a:b=c\"]");
    let text = "select = \"pid:1\"\nprofile = \"mine\"\n";
    house.server("asked.toml", text);
    let sure = |key: &str, value: &str| format!("{key} = {{ value = \"{value}\", reason = \"mine\" }}\n");
    let (watchdog, save) = (sure("watchdog", "off"), sure("save", "not-needed"));
    house.server("sure.toml", &format!("{text}[assert]\n{watchdog}{save}{}", sure("outbound", "harmless")));
    let loaded = house.load();

    let asked = &loaded.servers["asked"];
    assert!(matches!(asked.watchdog(), Watchdog::Settings(checks) if checks.len() == 1));
    assert_eq!(asked.save_files(), Some(&[][..]));
    assert!(asked.bears_outbound(port("tcp/443")) && !asked.bears_outbound(port("tcp/5432")));

    let sure = &loaded.servers["sure"];
    assert_eq!((sure.watchdog(), sure.save_files()), (&Watchdog::None, None));
    assert!(sure.bears_outbound(port("tcp/5432")));
}
