//! The two topologies that suites run on: a node like k3s makes it, and a bare veth.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{lossy::LossyLink, netns::Netns};

/// The client's and the node's addresses on the uplink: documentation ranges (RFC 5737, RFC 3849).
pub const CLIENT: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77))];
pub const NODE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
/// The bridge's addresses: what a server sees of a client behind a NodePort.
pub const BRIDGE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 42, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd42, 0, 0, 0, 0, 0, 0, 1))];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// How a port of the node leads to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    /// Translated destination, the client's address kept (CNI portmap).
    HostPort,
    /// Translated destination and masqueraded source (kube-proxy, externalTrafficPolicy Cluster).
    NodePort,
}

/// Who translates addresses and drops what conntrack calls INVALID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firewall {
    Nft,
    /// As kube-proxy and the CNI portmap plugin write them, by `iptables-legacy`.
    Iptables,
}

/// A server's namespace: `eth0` inside, its other end in the node (or the client's side of a bare veth).
pub struct Pod {
    pub netns: Netns,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    /// The veth's name at the node's side, where the door is attached.
    pub host_veth: String,
}

impl Pod {
    /// The pod's own addresses, IPv4 first.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// A node as k3s builds it: uplink, bridge `cni0`, br_netfilter where the kernel has it, forwarding, a rule
/// that drops what conntrack calls INVALID and counts it, and a namespace for the client on the uplink.
pub struct Node {
    pub client: Netns,
    pub netns: Netns,
    pub pods: Vec<Pod>,
    /// Whether bridged packets pass netfilter (kernel module br_netfilter), as on a real node.
    pub bridge_netfilter: bool,
    pub firewall: Firewall,
}

impl Node {
    /// Clears away leftovers of ended runs, then builds the node with `pods` pods.
    pub fn create(pods: u8) -> Result<Self> {
        Self::create_with(pods, Firewall::Nft)
    }

    /// [`Node::create`] with another firewall.
    pub fn create_with(pods: u8, firewall: Firewall) -> Result<Self> {
        crate::owner::sweep();
        let client = Netns::create("client")?;
        let netns = Netns::create("node")?;
        netns.sysctl("ipv4/ip_forward", "1")?;
        netns.sysctl("ipv6/conf/all/forwarding", "1")?;
        let bridge_netfilter = Path::new("/proc/sys/net/bridge").exists();

        client.ip(&format!("link add c0 type veth peer name up0 netns {}", netns.name()))?;
        address_uplink(&client, &netns)?;
        netns.ip("link add cni0 type bridge")?;
        for (address, bits) in BRIDGE.iter().zip([24, 64]) {
            netns.ip(&format!("addr add {address}/{bits} dev cni0"))?;
        }
        netns.ip("link set cni0 up")?;
        match firewall {
            Firewall::Nft => nft(&netns, RULES)?,
            Firewall::Iptables => {
                for tables in IPTABLES {
                    netns.run(|| iptables(tables, IPTABLES_RULES))?;
                }
            }
        }
        let mut node = Self { client, netns, pods: Vec::new(), bridge_netfilter, firewall };
        for _ in 0..pods {
            node.add_pod()?;
        }
        Ok(node)
    }

    /// Puts a link in the uplink's place that can lose packets and let them overtake each other. What the client
    /// sends over it has finished checksums, as from a real card.
    pub fn lossy_uplink(&self, seed: u64) -> Result<LossyLink> {
        self.client.ip("link del c0")?;
        let link = LossyLink::between((&self.client, "c0"), (&self.netns, "up0"), seed)?;
        address_uplink(&self.client, &self.netns)?;
        Ok(link)
    }

    /// Another pod on the bridge.
    pub fn add_pod(&mut self) -> Result<&Pod> {
        let index = self.pods.len();
        let host = u8::try_from(index + 10).context("too many pods for 10.42.0.0/24")?;
        let pod = Pod {
            netns: Netns::create(&format!("pod{index}"))?,
            v4: Ipv4Addr::new(10, 42, 0, host),
            v6: Ipv6Addr::new(0xfd42, 0, 0, 0, 0, 0, 0, host.into()),
            host_veth: format!("vethpod{index}"),
        };
        self.wire(&pod)?;
        self.pods.push(pod);
        Ok(&self.pods[index])
    }

    /// Gives a pod a new veth in the place of its old one, with the same addresses.
    pub fn rewire(&self, pod: usize) -> Result<()> {
        let pod = &self.pods[pod];
        if pod.netns.ip("link show eth0").is_ok() {
            pod.netns.ip("link del eth0")?;
        }
        self.wire(pod)?;
        // A CNI plugin announces the new hardware address (gratuitous ARP); else the node keeps the old one.
        self.netns.ip("neigh flush dev cni0")
    }

    fn wire(&self, pod: &Pod) -> Result<()> {
        let veth = &pod.host_veth;
        pod.netns.ip(&format!("link add eth0 type veth peer name {veth} netns {}", self.netns.name()))?;
        self.netns.ip(&format!("link set {veth} master cni0"))?;
        self.netns.ip(&format!("link set {veth} up"))?;
        pod.netns.ip("link set eth0 up")?;
        pod.netns.ip(&format!("addr add {}/24 dev eth0", pod.v4))?;
        pod.netns.ip(&format!("addr add {}/64 dev eth0", pod.v6))?;
        pod.netns.ip("route add default via 10.42.0.1")?;
        pod.netns.ip("-6 route add default via fd42::1")?;
        Ok(())
    }

    /// Leads `port` of the node, in both families, to `to_port` of pod `pod`; also for clients on the node.
    pub fn publish(
        &self,
        pod: usize,
        road: Road,
        transport: Transport,
        port: u16,
        to_port: u16,
    ) -> Result<()> {
        let Pod { v4, v6, .. } = &self.pods[pod];
        let [node4, node6] = NODE;
        let proto = match transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        if self.firewall == Firewall::Iptables {
            let to = [(node4, format!("{v4}:{to_port}")), (node6, format!("[{v6}]:{to_port}"))];
            for (tables, (node, to)) in IPTABLES.iter().zip(to) {
                let mut rules = String::new();
                for chain in ["PREROUTING", "OUTPUT"] {
                    let matching = format!("-t nat -A {chain} -d {node} -p {proto} --dport {port} -j");
                    if road == Road::NodePort {
                        rules += &format!("{matching} MARK --set-xmark 0x4000/0x4000\n");
                    }
                    rules += &format!("{matching} DNAT --to-destination {to}\n");
                }
                self.netns.run(|| iptables(tables, &rules))?;
            }
            return Ok(());
        }
        let mark = match road {
            Road::HostPort => "",
            Road::NodePort => "meta mark set meta mark or 0x4000",
        };
        let rules = ["dnat_in", "dnat_local"].map(|chain| {
            let add = format!("add rule inet node {chain}");
            format!(
                "{add} ip daddr {node4} {proto} dport {port} {mark} dnat ip to {v4}:{to_port}\n\
                 {add} ip6 daddr {node6} {proto} dport {port} {mark} dnat ip6 to [{v6}]:{to_port}\n"
            )
        });
        nft(&self.netns, &rules.concat())
    }

    /// Packets that the node's conntrack called INVALID so far.
    pub fn invalid_packets(&self) -> Result<Invalid> {
        if self.firewall == Firewall::Iptables {
            let mut invalid = Invalid { forwarded: 0, local: 0 };
            for tables in IPTABLES {
                let list = self.netns.run(|| Command::new(tables).args(["-xvnL"]).output())?.stdout;
                let list = String::from_utf8(list)?;
                for chain in list.split("Chain ") {
                    let rules = chain.lines().filter(|line| line.contains("INVALID"));
                    let packets =
                        rules.filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok());
                    let sum = if chain.starts_with("FORWARD") {
                        &mut invalid.forwarded
                    } else {
                        &mut invalid.local
                    };
                    *sum += packets.sum::<u64>();
                }
            }
            return Ok(invalid);
        }
        let json = self.netns.run(|| Command::new("nft").args(["-j", "list", "counters"]).output())?.stdout;
        let json: serde_json::Value = serde_json::from_slice(&json).context("nft -j list counters")?;
        let objects = json["nftables"].as_array().context("nft: no list of objects")?;
        let packets = |name: &str| {
            let counter =
                objects.iter().map(|object| &object["counter"]).find(|counter| counter["name"] == name);
            counter
                .and_then(|counter| counter["packets"].as_u64())
                .with_context(|| format!("nft: no counter {name}"))
        };
        Ok(Invalid { forwarded: packets("invalid_forward")?, local: packets("invalid_local")? })
    }
}

/// Counts of INVALID packets: the forwarded ones were dropped, those to and from the node only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid {
    pub forwarded: u64,
    pub local: u64,
}

/// kube-proxy's and the CNI portmap plugin's rules in short: translation both for forwarded and for local
/// clients, masquerade by mark, INVALID dropped on the way through (as kube-proxy does) and counted elsewhere
/// (not ICMPv6 there: conntrack calls the node's own multicast reports INVALID).
const RULES: &str = "
table inet node {
  counter invalid_forward { }
  counter invalid_local { }
  chain dnat_in { type nat hook prerouting priority dstnat; }
  chain dnat_local { type nat hook output priority -100; }
  chain snat_out { type nat hook postrouting priority srcnat; meta mark & 0x4000 == 0x4000 masquerade; }
  chain filter_forward { type filter hook forward priority filter; ct state invalid counter name invalid_forward drop; }
  chain filter_in { type filter hook input priority filter; meta l4proto { tcp, udp } ct state invalid counter name invalid_local; }
  chain filter_out { type filter hook output priority filter; meta l4proto { tcp, udp } ct state invalid counter name invalid_local; }
}
";

/// IPv4, IPv6.
const IPTABLES: [&str; 2] = ["iptables-legacy", "ip6tables-legacy"];

/// The same in iptables' words. A rule without a target only counts.
const IPTABLES_RULES: &str = "\
-t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A INPUT -p tcp -m conntrack --ctstate INVALID
-A INPUT -p udp -m conntrack --ctstate INVALID
-A OUTPUT -p tcp -m conntrack --ctstate INVALID
-A OUTPUT -p udp -m conntrack --ctstate INVALID
";

/// Runs a command for each line, in the namespace of the caller.
fn iptables(tables: &str, rules: &str) -> Result<()> {
    for rule in rules.lines() {
        let out = Command::new(tables)
            .args(rule.split_whitespace())
            .output()
            .with_context(|| format!("run {tables}: install iptables"))?;
        if !out.status.success() {
            bail!("{tables} {rule}: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
    }
    Ok(())
}

/// Addresses and routes of the two ends of the uplink, which are up afterwards.
fn address_uplink(client: &Netns, node: &Netns) -> Result<()> {
    node.ip("link set up0 up")?;
    client.ip("link set c0 up")?;
    for (address, bits) in NODE.iter().zip([24, 64]) {
        node.ip(&format!("addr add {address}/{bits} dev up0"))?;
    }
    for (address, bits) in CLIENT.iter().zip([24, 64]) {
        client.ip(&format!("addr add {address}/{bits} dev c0"))?;
    }
    // A road to the pods without translation, for the "direct" tests.
    client.ip("route add 10.42.0.0/24 via 192.0.2.1")?;
    client.ip("-6 route add fd42::/64 via 2001:db8::1")
}

/// A client and a server with nothing but a veth between them; the door sits on the client's side.
pub struct BareVeth {
    pub client: Netns,
    pub pod: Pod,
}

impl BareVeth {
    /// Clears away leftovers of ended runs, then builds the pair.
    pub fn create() -> Result<Self> {
        crate::owner::sweep();
        let client = Netns::create("client")?;
        let pod = Pod {
            netns: Netns::create("pod")?,
            v4: Ipv4Addr::new(10, 42, 0, 10),
            v6: Ipv6Addr::new(0xfd42, 0, 0, 0, 0, 0, 0, 10),
            host_veth: "vethpod0".to_owned(),
        };
        pod.netns.ip(&format!(
            "link add eth0 type veth peer name {} netns {}",
            pod.host_veth,
            client.name()
        ))?;
        for (netns, dev, v4, v6) in
            [(&pod.netns, "eth0", pod.v4, pod.v6), (&client, &*pod.host_veth, CLIENT4, CLIENT6)]
        {
            netns.ip(&format!("link set {dev} up"))?;
            netns.ip(&format!("addr add {v4}/24 dev {dev}"))?;
            netns.ip(&format!("addr add {v6}/64 dev {dev}"))?;
        }
        Ok(Self { client, pod })
    }
}

const CLIENT4: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd42, 0, 0, 0, 0, 0, 0, 1);

fn nft(netns: &Netns, rules: &str) -> Result<()> {
    let out = netns.run(|| {
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run nft: install nftables")?;
        child.stdin.take().context("nft's stdin")?.write_all(rules.as_bytes())?;
        anyhow::Ok(child.wait_with_output()?)
    })?;
    if !out.status.success() {
        bail!("nft in {}: {}", netns.name(), String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}
