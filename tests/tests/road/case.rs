//! One case after another on one node with one daemon: a server dozes, something comes over the road, and then what
//! must hold after every case is looked at.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use dormouse_api::status::Stage;
use dormouse_tests::{
    chance::Chance,
    netns::Netns,
    packet_socket::counter,
    stand::{PORT, SOON, Stand},
    topology::{CLIENT, Invalid},
};

/// How many servers take turns: each must have been awake for a second before it may doze again.
pub const POTS: u8 = 4;

pub struct Road {
    pub stand: Stand,
    pub chance: Chance,
    turn: usize,
    failed: Vec<String>,
    /// Whether the way itself loses packets: conntrack may then see segments outside of its window.
    pub lossy: bool,
    /// Whether the node has no conntrack and no rules.
    pub unfiltered: bool,
}

/// The server of this case, asleep.
pub struct Sleeping<'a> {
    pub stand: &'a Stand,
    pub index: usize,
    pub chance: &'a mut Chance,
    /// Players who are still there when the case is judged: what a server's kernel answers to a late copy of a segment
    /// after the client has hung up is no fault.
    staying: Vec<TcpStream>,
}

impl Road {
    pub fn new(mut stand: Stand) -> Self {
        stand.start().unwrap();
        Self { stand, chance: Chance::new(0xd0), turn: 0, failed: vec![], lossy: false, unfiltered: false }
    }

    /// Runs a case in which a player gets in. Gives back how many segments were sent again.
    pub fn case(&mut self, name: &str, case: impl FnOnce(&mut Sleeping<'_>) -> Result<()>) -> u64 {
        self.run(name, true, case)
    }

    /// Runs a case after which the server still sleeps.
    pub fn sleeps_on(&mut self, name: &str, case: impl FnOnce(&mut Sleeping<'_>) -> Result<()>) {
        self.run(name, false, case);
    }

    fn run(&mut self, name: &str, wakes: bool, case: impl FnOnce(&mut Sleeping<'_>) -> Result<()>) -> u64 {
        let started = Instant::now();
        self.turn += 1;
        let index = self.turn % self.stand.pots.len();
        let mut again = 0;
        let outcome = self.check(index, wakes, &mut again, case);
        let took = started.elapsed().as_millis();
        match outcome {
            Ok(()) => eprintln!("{name}: ok in {took} ms, {again} segments sent again"),
            Err(error) => {
                eprintln!("{name}: FAILED in {took} ms: {error:#}");
                self.failed.push(format!("{name}: {error:#}"));
            }
        }
        again
    }

    fn check(
        &mut self,
        index: usize,
        wakes: bool,
        again: &mut u64,
        case: impl FnOnce(&mut Sleeping<'_>) -> Result<()>,
    ) -> Result<()> {
        let watches_invalid = !self.lossy && !self.unfiltered;
        let (stand, chance) = (&self.stand, &mut self.chance);
        // Without that no case means anything: the test ends here.
        stand.doze(index).unwrap();
        let resets = || {
            let of = |netns| counter(netns, "Tcp", "OutRsts");
            anyhow::Ok(of(&stand.node.pods[index].netns)? + of(&stand.node.netns)?)
        };
        let sent_again = || SentAgain::of(&stand.node.client);
        let (resets_before, again_before) = (resets()?, sent_again()?);
        let mut sleeping = Sleeping { stand, index, chance, staying: vec![] };
        case(&mut sleeping)?;
        *again = sent_again()?.since(&again_before);
        let frozen = stand.pots[index].cgroup.is_frozen()?;
        if wakes {
            stand.daemon.wait_for(&stand.pots[index].name, Stage::Awake, SOON)?;
        } else {
            ensure!(frozen, "it was woken: {:?}", stand.daemon.why(&stand.pots[index].name)?.last_wake);
        }
        ensure!(resets()? == resets_before, "a reset was sent towards a client");
        if watches_invalid {
            let invalid = stand.node.invalid_packets()?;
            ensure!(invalid == Invalid { forwarded: 0, local: 0 }, "{invalid:?}");
        }
        Ok(())
    }

    /// # Panics
    /// With all that failed.
    pub fn finish(self) {
        assert!(self.failed.is_empty(), "{}\n{}", self.failed.join("\n"), self.stand.daemon.log());
    }
}

/// What a namespace's kernel sent twice, and what of it were probes for nothing: on a busy machine an answer may come
/// later than the kernel expects (RFC 8985 §7), though nothing was lost.
pub struct SentAgain {
    segments: u64,
    probes: u64,
    /// Probes that made up for a loss.
    recoveries: u64,
}

impl SentAgain {
    pub fn of(client: &Netns) -> Result<Self> {
        Ok(Self {
            segments: counter(client, "Tcp", "RetransSegs")?,
            probes: counter(client, "TcpExt", "TCPLossProbes")?,
            recoveries: counter(client, "TcpExt", "TCPLossProbeRecovery")?,
        })
    }

    pub fn since(&self, then: &Self) -> u64 {
        let for_nothing = (self.probes - then.probes).saturating_sub(self.recoveries - then.recoveries);
        (self.segments - then.segments).saturating_sub(for_nothing)
    }
}

impl Sleeping<'_> {
    /// The server's own addresses, IPv4 first.
    pub fn addresses(&self) -> [SocketAddr; 2] {
        self.stand.node.pods[self.index].addresses().map(|ip| SocketAddr::new(ip, PORT))
    }

    pub fn v4(&self) -> SocketAddr {
        self.addresses()[0]
    }

    /// Runs something where the client is.
    pub fn client<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        self.stand.node.client.run(what)
    }

    pub fn connect(&self, to: SocketAddr) -> Result<TcpStream> {
        self.client(|| connect(to))
    }

    /// A player by TCP, `len` bytes there and back.
    pub fn tcp(&mut self, to: SocketAddr, len: usize) -> Result<()> {
        let stream = self.connect(to)?;
        self.staying.push(stream.try_clone()?);
        self.converse(&stream, len, seen_as(to))
    }

    /// Sends letters on a connection and gets all of them back in order, from a server that saw this address.
    pub fn converse(&mut self, stream: &TcpStream, len: usize, seen: IpAddr) -> Result<()> {
        let sent = self.chance.letters(len);
        converse(stream, &sent, Some(seen))
    }

    /// A player by UDP: datagrams of these sizes at once, all of them answered in order.
    pub fn udp(&mut self, to: SocketAddr, sizes: &[usize]) -> Result<()> {
        let socket = self.client(|| udp_socket(to))?;
        self.datagrams(&socket, sizes, Some(seen_as(to)))
    }

    pub fn datagrams(&mut self, socket: &UdpSocket, sizes: &[usize], seen: Option<IpAddr>) -> Result<()> {
        let sent: Vec<Vec<u8>> = sizes.iter().map(|&len| self.chance.letters(len)).collect();
        for datagram in &sent {
            socket.send(datagram)?;
        }
        for datagram in &sent {
            expect_datagram(socket, datagram, seen)?;
        }
        Ok(())
    }
}

/// The client's own address in the family of the one it calls.
pub fn seen_as(to: SocketAddr) -> IpAddr {
    CLIENT[usize::from(to.is_ipv6())]
}

pub fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, SOON).with_context(|| format!("connect to {to}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SOON))?;
    Ok(stream)
}

pub fn udp_socket(to: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(SOON))?;
    Ok(socket)
}

/// The echo server puts a line with the client's address before each piece that it reads: these are counted and
/// taken out, and what is left must be what was sent.
pub fn converse(stream: &TcpStream, sent: &[u8], seen: Option<IpAddr>) -> Result<()> {
    let local = stream.local_addr()?;
    let line = |ip: IpAddr| format!("{} {}\n", ip.to_canonical(), local.port());
    let mut writer = stream.try_clone()?;
    let mut heard = vec![];
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || writer.write_all(sent));
        let mut buffer = vec![0; 65536];
        let mut reader = stream;
        while letters(&heard) < sent.len() {
            let len = reader.read(&mut buffer).with_context(|| format!("after {} bytes", heard.len()))?;
            ensure!(len > 0, "closed after {} bytes", heard.len());
            heard.extend_from_slice(&buffer[..len]);
        }
        writing.join().expect("the writing thread")?;
        anyhow::Ok(())
    })?;
    let text = String::from_utf8(heard).context("bytes that nobody sent")?;
    if let Some(seen) = seen {
        ensure!(text.starts_with(&line(seen)), "not seen as {seen}: {:?}", text.lines().next());
    }
    let first = text.lines().next().unwrap_or_default();
    let echoed = text.replace(&format!("{first}\n"), "");
    ensure!(echoed.as_bytes() == sent, "{} bytes came back changed or out of order", sent.len());
    Ok(())
}

/// Payload is of capital letters only; addresses have none.
fn letters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| byte.is_ascii_uppercase()).count()
}

/// The answer to a datagram, from a server that saw this address (`None`: another's, behind a masquerade).
pub fn expect_datagram(socket: &UdpSocket, sent: &[u8], seen: Option<IpAddr>) -> Result<()> {
    let mut buffer = vec![0; 65536];
    let len = socket.recv(&mut buffer).with_context(|| format!("the answer to {} bytes", sent.len()))?;
    let line_end = buffer[..len].iter().position(|&byte| byte == b'\n').context("no line")?;
    let line = String::from_utf8_lossy(&buffer[..line_end]).into_owned();
    if let Some(seen) = seen {
        let wanted = format!("{seen} {}", socket.local_addr()?.port());
        ensure!(line == wanted, "seen as {line}, not as {wanted}");
    }
    ensure!(buffer[line_end + 1..len] == *sent, "the answer to {} bytes is another", sent.len());
    Ok(())
}
