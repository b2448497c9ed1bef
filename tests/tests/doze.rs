//! Into the doze and out of it, with real sockets over a node as k3s builds it.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use dormouse_api::status::Stage;
use dormouse_tests::{
    cgroup::Cgroup,
    clients,
    daemon::{Daemon, QUICK, ServerFile},
    process::{Place, Process},
    servers::{Server, echo},
    topology::{NODE, Node, Road, Transport},
};

const PORT: u16 = 7100;
const TIMEOUT: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(20);

/// An echo server in a pod behind the door.
struct Stand {
    daemon: Daemon,
    _server: Server,
    cgroup: Cgroup,
    node: Node,
}

impl Stand {
    fn new(profile: &str, greeting: Option<&str>, limits: &str) -> Self {
        Self::with(profile, greeting, limits, "")
    }

    /// With these lines in `dormoused.toml`.
    fn with(profile: &str, greeting: Option<&str>, limits: &str, config: &str) -> Self {
        let node = Node::create(1).unwrap();
        let cgroup = Cgroup::create("echo").unwrap();
        let server = echo::start_with(Place::new(&node.pods[0].netns, &cgroup), PORT, greeting).unwrap();
        for transport in [Transport::Tcp, Transport::Udp] {
            node.publish(0, Road::HostPort, transport, PORT, PORT).unwrap();
            node.publish(0, Road::NodePort, transport, PORT + 1, PORT).unwrap();
        }
        let mut daemon = Daemon::prepare().unwrap();
        daemon.configure(config).unwrap();
        daemon
            .manage(&ServerFile {
                name: "bench/echo",
                profile,
                cgroup: &cgroup,
                ports: &["tcp/7100", "udp/7100"],
                limits: &format!("{QUICK}{limits}"),
            })
            .unwrap();
        daemon.start(&node.netns).unwrap();
        daemon.wait_for("bench/echo", Stage::Awake, SOON).unwrap();
        Self { daemon, _server: server, cgroup, node }
    }

    fn doze(&self) {
        self.daemon.sleep("bench/echo", false).unwrap();
        assert!(self.cgroup.is_frozen().unwrap());
    }

    /// A process on the node, in a cgroup, talks to the server until it is content.
    fn talk(&self, cgroup: &Cgroup, script: &str) {
        let to = self.node.pods[0].v4;
        let mut command = std::process::Command::new("bash");
        command.args(["-ec", &format!("exec 3<>/dev/tcp/{to}/{PORT}; {script}")]);
        let mut process = Process::spawn("bash", command, Place::new(&self.node.netns, cgroup)).unwrap();
        let status = process.wait(SOON).unwrap();
        assert!(status.success(), "{}\n{}", process.log(), self.daemon.log());
    }

    fn roads(&self) -> Vec<SocketAddr> {
        let mut roads = vec![];
        for address in self.node.pods[0].addresses() {
            roads.push(SocketAddr::new(address, PORT));
        }
        for address in NODE {
            roads.push(SocketAddr::new(address, PORT));
            roads.push(SocketAddr::new(address, PORT + 1));
        }
        roads
    }
}

#[test]
fn a_player_wakes_it_by_tcp_on_every_road() {
    let stand = Stand::new("generic-tcp", None, "");
    for road in stand.roads() {
        stand.doze();
        let answer =
            stand.node.client.run(|| clients::echo::tcp(road, b"hello", TIMEOUT)).unwrap_or_else(|error| {
                panic!("{road}: {error:#}\n{}\n{:?}", stand.daemon.log(), stand.daemon.why("bench/echo"))
            });
        assert_eq!(answer.retransmissions, 0, "{road}");
        stand.daemon.wait_for("bench/echo", Stage::Awake, SOON).unwrap();
        assert!(!stand.cgroup.is_frozen().unwrap());
    }
    let invalid = stand.node.invalid_packets().unwrap();
    assert_eq!((invalid.forwarded, invalid.local), (0, 0));
}

#[test]
fn a_second_datagram_wakes_it_by_udp_on_every_road() {
    let stand = Stand::new("generic-udp", None, "");
    for road in stand.roads() {
        stand.doze();
        let answers = stand.node.client.run(|| {
            let socket =
                std::net::UdpSocket::bind(if road.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
            socket.connect(road).unwrap();
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            socket.send(b"first").unwrap();
            std::thread::sleep(Duration::from_millis(5));
            assert!(stand.cgroup.is_frozen().unwrap(), "one datagram wakes nobody");
            socket.send(b"second").unwrap();
            let mut answers = vec![];
            for _ in 0..2 {
                let mut buffer = [0; 2048];
                let len = socket.recv(&mut buffer).unwrap_or_else(|error| {
                    panic!("{road}: {error}\n{}\n{:?}", stand.daemon.log(), stand.daemon.why("bench/echo"))
                });
                answers.push(String::from_utf8_lossy(&buffer[..len]).into_owned());
            }
            answers
        });
        assert!(answers[0].contains("first") && answers[1].contains("second"), "in order: {answers:?}");
        stand.daemon.wait_for("bench/echo", Stage::Awake, SOON).unwrap();
    }
}

#[test]
fn a_scan_wakes_nobody_and_players_get_in_after_it() {
    let stand = Stand::new("minecraft-java", None, "");
    stand.doze();
    let to = SocketAddr::new(stand.node.pods[0].addresses()[0], PORT);
    stand.node.client.run(|| {
        for _ in 0..20 {
            let _ = clients::scan::connect(to, Duration::from_secs(1));
            let _ = clients::scan::tcp_probe(to, clients::scan::Probe::Http, Duration::from_millis(200));
        }
    });
    assert!(stand.cgroup.is_frozen().unwrap(), "{}", stand.daemon.log());
    let why = stand.daemon.why("bench/echo").unwrap();
    assert!(why.refused.scans > 0, "{why:?}");
    // What it left is taken by the server in a short thaw, not before the next player.
    let waiting = || stand.node.pods[0].netns.waiting_to_be_accepted(PORT).unwrap();
    let limit = Instant::now() + SOON;
    while waiting() != 0 {
        assert!(Instant::now() < limit, "{} still wait\n{}", waiting(), stand.daemon.log());
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(stand.daemon.server("bench/echo").unwrap().stage, Stage::Dozing);
}

#[test]
fn a_server_that_speaks_first_wakes_at_the_handshake() {
    let stand = Stand::new("generic-tcp", Some("welcome"), "first_speaker = \"server\"\n");
    stand.doze();
    let to = SocketAddr::new(stand.node.pods[0].addresses()[0], PORT);
    let line = stand.node.client.run(|| {
        use std::io::Read;
        let mut stream = std::net::TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut buffer = [0; 64];
        let len = stream.read(&mut buffer).unwrap_or_else(|error| panic!("{error}\n{}", stand.daemon.log()));
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    });
    assert!(line.contains("welcome"));
}

#[test]
fn what_a_doze_was_worth_is_in_the_books() {
    let mut stand = Stand::new("generic-tcp", None, "");
    stand.doze();
    // While it is awake again, the doze is behind it and booked.
    stand.daemon.wake("bench/echo").unwrap();
    let read = |stand: &Stand| {
        let request = dormouse_api::savings::SavingsRequest::default();
        stand.daemon.ask(async move |client| Ok(client.savings(&request).await?)).unwrap()
    };
    let savings = read(&stand);
    let sums = savings.servers[0].sums;
    assert_eq!(savings.servers[0].name, "bench/echo");
    assert!(sums.dozing_hours > 0.0 && sums.awake_hours > 0.0 && sums.size_gib_hours > 0.0, "{savings:?}");
    assert!(sums.handed_back_gib_hours == 0.0, "a doze gives no memory back: {savings:?}");

    stand.daemon.end_by(nix::sys::signal::Signal::SIGTERM).unwrap();
    stand.daemon.start(&stand.node.netns).unwrap();
    stand.daemon.wait_for("bench/echo", Stage::Awake, SOON).unwrap();
    assert!(read(&stand).servers[0].sums.dozing_hours >= sums.dozing_hours, "a restart forgot the doze");
}

#[test]
fn it_dozes_by_itself_when_nobody_is_there() {
    let stand = Stand::new("generic-tcp", None, "");
    stand.daemon.wait_for("bench/echo", Stage::Dozing, Duration::from_secs(40)).unwrap();
    assert!(stand.cgroup.is_frozen().unwrap());
}

/// A name that a configuration can hold.
fn named(cgroup: &Cgroup) -> String {
    format!("probers = [\"/{}\"]", cgroup.path().file_name().unwrap().to_string_lossy())
}

/// Asks as an `httpGet` probe does and waits for the answer.
const HTTP_GET: &str = "printf 'GET /healthz HTTP/1.1\\r\\n\\r\\n' >&3; head -c 4 <&3";

#[test]
fn a_local_probers_http_is_answered_and_wakes_nobody() {
    let (prober, stranger) = (Cgroup::create("prober").unwrap(), Cgroup::create("stranger").unwrap());
    let stand = Stand::with("generic-tcp", None, "query_every = \"100ms\"\n", &named(&prober));
    stand.doze();
    for probes in 1..=3 {
        stand.talk(&prober, HTTP_GET);
        let why = stand.daemon.why("bench/echo").unwrap();
        // The shell writes line by line.
        assert!(why.refused.probes >= probes, "{why:?}");
        assert_eq!(why.stage, Stage::Dozing, "{}", stand.daemon.log());
        assert!(why.last_wake.is_none(), "{why:?}");
    }
    // The same bytes of somebody else are a player's to a server of which nothing is known.
    stand.talk(&stranger, HTTP_GET);
    stand.daemon.wait_for("bench/echo", Stage::Awake, SOON).unwrap();
    // Awake, probes are nobody: it falls asleep by itself while they go on. A doze that was called off, for one that
    // was not read yet, is tried again after a minute.
    let idle_again = std::time::Instant::now() + Duration::from_mins(3);
    while stand.daemon.server("bench/echo").unwrap().stage != Stage::Dozing {
        assert!(std::time::Instant::now() < idle_again, "{:?}", stand.daemon.why("bench/echo"));
        stand.talk(&prober, HTTP_GET);
    }
}

#[test]
fn a_local_probers_silent_connection_wakes_nobody_where_the_server_speaks_first() {
    let (prober, stranger) = (Cgroup::create("prober").unwrap(), Cgroup::create("stranger").unwrap());
    let stand = Stand::with("generic-tcp", Some("welcome"), "first_speaker = \"server\"\n", &named(&prober));
    stand.doze();
    for _ in 0..3 {
        stand.talk(&prober, "sleep 0.2; exec 3>&-");
    }
    let why = stand.daemon.why("bench/echo").unwrap();
    assert_eq!(why.stage, Stage::Dozing, "{}", stand.daemon.log());
    assert!(why.last_wake.is_none() && stand.cgroup.is_frozen().unwrap(), "{why:?}");
    stand.talk(&stranger, "head -c 7 <&3 | grep -q welcome");
    stand.daemon.wait_for("bench/echo", Stage::Awake, SOON).unwrap();
}
