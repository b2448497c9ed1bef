use std::fs;
use std::time::SystemTime;

use dormouse_api::Problem;

use super::*;
use crate::config::{self, load};
use crate::discover::testing::{Cgroup, Victim};
use crate::limits::Mode;

/// A directory of configuration, and a helper that is never asked: these servers share our namespace.
struct Bench {
    directory: tempfile::TempDir,
    helper: Helper,
}

impl Bench {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), helper: Helper::spawn("/bin/true").unwrap() }
    }

    fn node(&self) -> Node {
        let text = format!("state_dir = {:?}\n", self.directory.path());
        Node::parse(Path::new("/etc/dormouse/dormoused.toml"), &text).unwrap()
    }

    fn loaded(&self) -> Loaded {
        load(&self.node(), SystemTime::now())
    }

    fn adopt(&self, select: &str, profile: Option<&str>) -> Result<AdoptResult, AdoptError> {
        let request = AdoptRequest { select: select.to_owned(), profile: profile.map(str::to_owned) };
        let root = CgroupRoot::find().unwrap();
        adopt(&self.node(), &root, &self.helper, &self.loaded(), &request)
    }
}

/// Listens on a UDP and a TCP port of the kernel's choice and on one of loopback; prints nothing of them.
const SERVER: &str = "\
import socket, time
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(('0.0.0.0', 0))
tcp = socket.socket(); tcp.bind(('0.0.0.0', 0)); tcp.listen()
rcon = socket.socket(); rcon.bind(('127.0.0.1', 0)); rcon.listen()
print('ready'); time.sleep(1000)
";

#[test]
fn a_running_server_is_adopted_with_what_was_guessed_from_what() {
    let cgroup = Cgroup::new("adopt");
    let _server = Victim::python(SERVER, cgroup.path(), None);
    let bench = Bench::new();
    let select = format!("cgroup:/{}", cgroup.name());
    let result = bench.adopt(&select, None).unwrap();

    assert_eq!(result.servers, [cgroup.name()]);
    assert_eq!(fs::read_to_string(&result.file).unwrap(), result.text);
    assert!(
        result.notes[0].contains("generic-tcp") && result.notes[0].contains("listens on TCP"),
        "{result:?}"
    );
    assert!(result.text.contains("only over its own loopback"), "{}", result.text);
    assert!(result.text.contains("chosen by the kernel"), "{}", result.text);
    assert!(result.text.contains("save: frozen only with evidence"), "{}", result.text);
    let loaded = bench.loaded();
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    let server = &loaded.servers[&cgroup.name()];
    assert_eq!((server.file.mode, server.file.ports.len()), (Mode::Observe, 1));
    assert_eq!(server.file.select.to_string(), select);

    let again = bench.adopt(&select, None).unwrap_err();
    assert!(matches!(again, AdoptError::Known { .. }), "{again}");
    fs::write(&result.file, "broken").unwrap();
    let taken = bench.adopt(&select, None).unwrap_err();
    assert!(matches!(taken, AdoptError::Exists { .. }), "{taken}");
    assert_eq!(Problem::from(taken).code, dormouse_api::Code::Refused);
    assert_eq!(fs::read_to_string(&result.file).unwrap(), "broken");
}

#[test]
fn a_glob_makes_one_file_for_each_cgroup_and_says_who_was_left_out() {
    let games = Cgroup::new("adopt-glob");
    let _one = Victim::python(SERVER, &games.child("luanti"), None);
    let _two = Victim::python(SERVER, &games.child("mc [1]"), None);
    let _mute = Victim::sleep_in(&games.child("mute"));
    games.child("empty");
    let bench = Bench::new();
    let result = bench.adopt(&format!("cgroup:/{}/*", games.name()), None).unwrap();
    assert_eq!(result.servers, ["luanti", "mc-1"]);
    let left_out = result.notes.last().unwrap();
    assert!(left_out.starts_with("left out: ") && left_out.contains("mute listens on no port"), "{left_out}");
    let servers = bench.loaded().servers;
    assert_eq!(servers.len(), 2);
    // The path's own brackets are no pattern.
    let selector: Selector = servers["mc-1"].file.select.to_string().parse().unwrap();
    assert_eq!(selector.resolve(&CgroupRoot::find().unwrap()).unwrap().cgroup, games.path().join("mc [1]"));

    // With its profile named it is taken without ports.
    let result = bench.adopt(&format!("cgroup:/{}/mute", games.name()), Some("minecraft-java")).unwrap();
    assert!(result.text.contains("it listens on none now"), "{}", result.text);
    assert!(result.text.contains("max-tick-time=-1 in server.properties"), "{}", result.text);
    assert!(bench.loaded().servers["mute"].file.ports.is_empty());
}

#[test]
fn what_may_not_sleep_or_is_not_there_is_refused_with_the_reason() {
    let bench = Bench::new();
    let refused = |select: &str, profile: Option<&str>| bench.adopt(select, profile).unwrap_err().whole();
    assert!(refused("cgroup:/", None).contains("root cgroup is the whole machine"));
    assert!(refused("cgroup:/no/such/*", None).contains("matches no cgroup"));
    assert!(refused("games", None).contains("cgroup:GLOB"));
    assert!(refused("cgroup:/a", Some("minecraft")).contains("there are ddnet, "));

    let cgroup = Cgroup::new("adopt-refused");
    let victim = Victim::sleep_in(cgroup.path());
    let by_pid = refused(&format!("pid:{}", victim.pid()), None);
    assert!(by_pid.contains(&format!("adopt its cgroup, cgroup:/{}", cgroup.name())), "{by_pid}");
    let mute = refused(&format!("cgroup:/{}", cgroup.name()), None);
    assert!(mute.contains("-p"), "{mute}");

    let root = Victim::sleep_in(&CgroupRoot::find().unwrap().path);
    let of_root = refused(&format!("pid:{}", root.pid()), None);
    assert!(of_root.contains("root cgroup, which can't be frozen"), "{of_root}");
    assert!(!bench.node().server_dir.exists());
}

#[test]
fn rcon_beside_the_game_s_port_gets_the_generic_parser() {
    let loaded = Bench::new().loaded();
    let port = |transport, port| config::PortSpec { transport, port };
    let open = vec![
        port(config::Transport::Tcp, 25565),
        port(config::Transport::Tcp, 25575),
        port(config::Transport::Udp, 25565),
    ];
    let ports = Ports { open, ..Ports::default() };
    let facts = text::Facts {
        selector: &Selector::Unit("mc".to_owned()),
        profile: &loaded.profiles["minecraft-java"],
        because: "its command line names \n[assert]\u{7f}",
        ports: &ports,
        sockets: &Sockets::default(),
    };
    let (text, _) = facts.write();
    assert!(
        text.contains("    \"tcp/25565\",\n    { port = \"tcp/25575\", protocol = \"generic-tcp\" },"),
        "{text}"
    );
    let file = ServerFile::parse(Path::new("/x/mc.toml"), &text).unwrap();
    assert_eq!(file.ports.len(), 3);
    assert_eq!(file.assertions, config::Assertions::default());
}

#[test]
fn a_container_s_id_is_no_lasting_name() {
    let loaded = Bench::new().loaded();
    let write = |path: &str| {
        let facts = text::Facts {
            selector: &Selector::Cgroup(path.to_owned()),
            profile: &loaded.profiles["luanti"],
            because: "x",
            ports: &Ports::default(),
            sockets: &Sockets::default(),
        };
        facts.write().0
    };
    let id = "0123456789abcdef".repeat(4);
    assert!(write(&format!("/system.slice/docker-{id}.scope")).contains("adopt docker:NAME"));
    assert!(!write("/games/docker-luanti").contains("adopt docker:NAME"));
}

proptest::proptest! {
    #[test]
    fn no_command_line_or_path_gets_out_of_its_place(
        because: String,
        name in proptest::prop_oneof![".*", "[!-,./-~¡-ÿ][!-~¡-ÿ]{0,30}"],
    ) {
        let profile = config::Profile::parse("luanti", "built in", "watchdog = \"none\"").unwrap();
        let facts = text::Facts {
            selector: &Selector::Docker(name.clone()),
            profile: &profile,
            because: &because,
            ports: &Ports::default(),
            sockets: &Sockets::default(),
        };
        let file = ServerFile::parse(Path::new("/x/a.toml"), &facts.write().0);
        // A name that no operator could have written makes a file that is refused, never one that says more.
        let meant = format!("docker:{name}").parse::<Selector>().ok();
        let read = file.ok().map(|file| (file.select, file.mode));
        proptest::prop_assert_eq!(read, meant.map(|selector| (selector, Mode::Observe)));
    }
}
