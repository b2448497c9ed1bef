//! A login between any two steps of falling asleep and of waking.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dormouse_api::status::Stage;
use dormouse_tests::{
    clients, cpus,
    stand::{SOON, Stand},
    steps::{Held, Steps},
    topology::Node,
};

/// `scripts/test long` sets it to 10,000.
fn rounds() -> usize {
    std::env::var("DORMOUSE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1000)
}

/// Scattered offsets, the same in every run (Knuth's multiplicative hash).
fn scattered(round: u32, below_us: u32) -> Duration {
    Duration::from_micros(u64::from(round.wrapping_mul(2_654_435_761) >> 8) % u64::from(below_us))
}

/// The steps into a doze, and out of it when a player woke it. What comes at one comes before the next.
const INTO: [&str; 9] = [
    "store-written",
    "doze-begun",
    "doze-signal",
    "doze-logged",
    "freeze-written",
    "doze-frozen",
    "doze-looked",
    "doze-parked",
    "doze-done",
];
const OUT: [&str; 8] = [
    "wake-begun",
    "wake-given",
    "wake-thawed",
    "wake-draining",
    "wake-replayed",
    "wake-open",
    "wake-done",
    "clerk-begun",
];
/// Daemons that are raced with at a time: a round is mostly the second in which nobody may play before a doze.
const LANES: usize = 10;
/// How long a step may take to be come to.
const COMES_WITHIN: Duration = Duration::from_secs(20);
const LIMITS: &str = "doze_after = \"1s\"\ndeep_after = \"never\"\ndoze_by = \"freeze\"\nfloor = \"dozing\"\n\
                      min_awake = \"1ms\"\ngrace_after_start = \"1ms\"\nwakes_per_hour = 100000\n";

/// Players' ways in.
#[derive(Clone, Copy, Debug)]
enum Way {
    NewConnection,
    /// A connection that was made before and says its first word now.
    OldConnection,
    /// Two datagrams; both must be answered, in order.
    Datagrams,
}

/// One daemon, one server, and whoever comes between its steps.
struct Lane {
    stand: Stand,
    steps: Steps,
    late: u32,
    /// Rounds in which the step was not held, and the login came at no known time.
    missed: u32,
}

impl Lane {
    fn prepare() -> Self {
        let mut stand =
            Stand::prepare_with(Node::create(1).unwrap(), "stale_after = \"1s\"", LIMITS).unwrap();
        let steps = Steps::listen().unwrap();
        let (key, value) = steps.env();
        stand.daemon.launch(&stand.node.netns, &[(key, &value)]).unwrap();
        let lane = Self { stand, steps, late: 0, missed: 0 };
        lane.doze();
        lane
    }

    /// Asked until it agrees: a player of the round before may still count.
    fn doze(&self) {
        let asleep = || self.stand.daemon.sleep_once(&self.stand.pots[0].name, false);
        self.stand.wait_until("it dozes", asleep).unwrap();
    }

    fn awake(&self) {
        let stand = &self.stand;
        stand.tcp(0).unwrap();
        stand.daemon.wait_for(&stand.pots[0].name, Stage::Awake, SOON).unwrap();
    }

    fn round(&mut self, round: usize) -> Result<()> {
        let steps = INTO.len() + OUT.len();
        let (step, way) =
            (round % steps, [Way::NewConnection, Way::OldConnection, Way::Datagrams][round / steps % 3]);
        let cpu = round / steps / 3;
        let name = INTO.iter().chain(&OUT).nth(step).expect("there are so many");
        let told = |error: anyhow::Error| error.context(format!("round {round}, {way:?} at {name}"));
        let late = if step < INTO.len() {
            self.on_the_way_in(name, way, cpu)
        } else {
            self.on_the_way_out(name, way, cpu)
        };
        match late.map_err(told)? {
            Some(late) => {
                // Rounds side by side: the machine stood still. One step again and again: the step.
                if late > 0 {
                    println!("race: round {round}, {way:?} at {name}: {late} segments sent again");
                }
                self.late += late;
            }
            None => self.missed += 1,
        }
        Ok(())
    }

    fn on_the_way_in(&self, step: &str, way: Way, cpu: usize) -> Result<Option<u32>> {
        let (stand, steps) = (&self.stand, &self.steps);
        self.awake();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let early = stand.node.client.run(|| TcpStream::connect(stand.address(0)))?;
            steps.want(step);
            scope.spawn(|| {
                while !over.load(SeqCst) && stand.daemon.sleep_once(&stand.pots[0].name, false).is_err() {
                    thread::sleep(Duration::from_millis(20));
                }
            });
            let held = steps.caught(COMES_WITHIN);
            over.store(true, SeqCst);
            held.map(|held| come(stand, way, early, cpu, held)).transpose()
        })
    }

    fn on_the_way_out(&self, step: &str, way: Way, cpu: usize) -> Result<Option<u32>> {
        let (stand, steps) = (&self.stand, &self.steps);
        self.doze();
        thread::scope(|scope| {
            let early = stand.node.client.run(|| TcpStream::connect(stand.address(0)))?;
            steps.want(step);
            // The first player wakes it, and gets in as well.
            let first = scope.spawn(|| stand.udp(0));
            let held = steps.caught(COMES_WITHIN);
            let late = held.map(|held| come(stand, way, early, cpu, held)).transpose();
            first.join().expect("no panic").context("the first player")?;
            late
        })
    }
}

/// Sends what a player sends, on one CPU (so the door's program runs there), lets the daemon take its next step,
/// and waits for the answers; gives back how many segments were sent again.
fn come(stand: &Stand, way: Way, mut early: TcpStream, cpu: usize, held: Held) -> Result<u32> {
    let to = stand.address(0);
    stand.node.client.run(move || {
        let cpus = cpus::allowed()?;
        cpus::stay_on(cpus[cpu % cpus.len()])?;
        let mut stream = match way {
            Way::Datagrams => {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect(to)?;
                socket.set_read_timeout(Some(SOON))?;
                socket.send(b"first")?;
                socket.send(b"second")?;
                drop(held);
                return in_order(&socket).map(|()| 0);
            }
            Way::NewConnection => TcpStream::connect(to)?,
            Way::OldConnection => early.try_clone()?,
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"hello")?;
        drop(held);
        let mut buffer = [0; 256];
        let len = stream.read(&mut buffer).context("no answer")?;
        ensure!(buffer[..len].ends_with(b"hello"), "{:?}", &buffer[..len]);
        let late = clients::retransmissions(&stream)?;
        // Ends in the order of a client that leaves.
        let _ = early.write_all(b"");
        Ok(late)
    })
}

fn in_order(socket: &UdpSocket) -> Result<()> {
    let mut buffer = [0; 256];
    for word in ["first", "second"] {
        let len = socket.recv(&mut buffer).with_context(|| format!("udp: {word}"))?;
        let answer = String::from_utf8_lossy(&buffer[..len]);
        ensure!(answer.ends_with(word), "udp: {answer:?} instead of {word}");
    }
    Ok(())
}

/// Two datagrams a millisecond apart; both must be answered, in order.
fn udp(to: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(SOON))?;
    socket.send(b"first")?;
    thread::sleep(Duration::from_millis(1));
    socket.send(b"second")?;
    in_order(&socket)
}

#[test]
fn a_login_between_any_two_steps_gets_in() {
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    let lanes: Vec<(u32, u32, Vec<String>)> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|_| {
                scope.spawn(|| {
                    let mut lane = Lane::prepare();
                    let mut lost = vec![];
                    loop {
                        let round = next.fetch_add(1, SeqCst);
                        if round >= rounds() {
                            return (lane.late, lane.missed, lost);
                        }
                        if let Err(error) = lane.round(round) {
                            eprintln!("{error:#}\n{}", lane.stand.daemon.log());
                            lost.push(format!("{error:#}"));
                        }
                    }
                })
            })
            .collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
    });
    let late: u32 = lanes.iter().map(|(late, ..)| late).sum();
    let missed: u32 = lanes.iter().map(|(_, missed, _)| missed).sum();
    let lost: Vec<_> = lanes.into_iter().flat_map(|(.., lost)| lost).collect();
    println!(
        "race: {} logins at {} steps: {} lost, {late} segments sent again, {missed} at no known step, in {:.0?}",
        rounds(),
        INTO.len() + OUT.len(),
        lost.len(),
        started.elapsed(),
    );
    assert!(lost.is_empty() && late == 0, "{late} sent again, lost: {lost:#?}");
    assert!(missed as usize <= rounds() / 100, "{missed} logins came at no known step");
}

/// Players who never stop coming while the server falls asleep by time and is woken: connections one after another
/// with pauses around `doze_after`.
#[test]
fn players_around_the_time_of_the_doze_get_in() {
    let mut stand = Stand::prepare(4, "").unwrap();
    stand.start().unwrap();
    let lost = AtomicU32::new(0);
    thread::scope(|scope| {
        for index in 0..4 {
            let (stand, lost) = (&stand, &lost);
            scope.spawn(move || {
                let to = stand.address(index);
                for round in 0..rounds() as u32 / 50 {
                    thread::sleep(Duration::from_millis(980) + scattered(round + 100 * index as u32, 60_000));
                    let outcome = stand.node.client.run(|| match round % 2 {
                        0 => clients::echo::tcp(to, b"hello", SOON).map(drop),
                        _ => udp(to),
                    });
                    if let Err(error) = outcome {
                        eprintln!("round {round} at {index}: {error:#}");
                        lost.fetch_add(1, SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!(lost.load(SeqCst), 0, "{}", stand.daemon.log());
}
