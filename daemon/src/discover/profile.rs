//! Guesses a server's game from its command line and ports, for `adopt`. A guess is a proposal to an operator,
//! who sees the reason; nothing sleeps because of it.

/// A profile's name and what spoke for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guess {
    pub profile: &'static str,
    pub because: String,
}

/// Ports on which the server listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ports<'a> {
    pub tcp: &'a [u16],
    pub udp: &'a [u16],
}

/// Programs by their file's name (in lower case, its beginning).
const PROGRAMS: [(&str, &str); 18] = [
    ("bedrock_server", "minecraft-bedrock"),
    ("ddnet-server", "ddnet"),
    ("factorio", "factorio"),
    ("ioq3ded", "quake3"),
    ("luanti", "luanti"),
    ("minetest", "luanti"),
    ("oa_ded", "quake3"),
    ("openarena-server", "quake3"),
    ("palserver", "palworld"),
    ("projectzomboid", "project-zomboid"),
    ("q3ded", "quake3"),
    ("rustdedicated", "rust"),
    ("srcds", "source"),
    ("teeworlds-server", "teeworlds"),
    ("teeworlds_srv", "teeworlds"),
    ("terrariaserver", "terraria"),
    ("tshock", "terraria"),
    ("valheim_server", "valheim"),
];

/// Words in the arguments of a Java virtual machine that only Minecraft servers have (file names of the jars,
/// main classes), in lower case.
const MINECRAFT: [&str; 12] = [
    "minecraft",
    "paper",
    "spigot",
    "purpur",
    "craftbukkit",
    "fabric-server",
    "forge",
    "quilt-server",
    "folia",
    "bungeecord",
    "velocity",
    "waterfall",
];

/// The ports that a game has by default, for servers behind an unknown name (a wrapper, an interpreter).
const TCP: [(u16, &str); 2] = [(25565, "minecraft-java"), (7777, "terraria")];
const UDP: [(u16, &str); 7] = [
    (2456, "valheim"),
    (8211, "palworld"),
    (8303, "ddnet"),
    (19132, "minecraft-bedrock"),
    (27960, "quake3"),
    (30000, "luanti"),
    (34197, "factorio"),
];

/// The game that fits; `generic-tcp` or `generic-udp` where nothing does, `None` without ports.
///
/// Valheim with `-crossplay` is a profile of its own: its players come over an outbound relay, it can't be woken.
pub fn guess(cmdline: &[String], ports: Ports) -> Option<Guess> {
    by_program(cmdline).or_else(|| by_port(ports))
}

fn by_program(cmdline: &[String]) -> Option<Guess> {
    let names: Vec<_> = cmdline.iter().map(|argument| file_name(argument)).collect();
    let because = |what: &str| format!("its command line names {what}");
    if names.first().is_some_and(|name| name == "java" || name == "java.exe") {
        // Only what the machine is told to run: an option (-Dhome=/srv/paper) says nothing.
        return cmdline[1..]
            .iter()
            .filter(|argument| !argument.starts_with('-'))
            .map(|argument| file_name(argument))
            .find(|name| MINECRAFT.iter().any(|word| name.contains(word)))
            .map(|name| Guess { profile: "minecraft-java", because: because(&name) });
    }
    // The program itself, or what an interpreter, wine or a shell was told to run.
    let (name, &(_, profile)) = names
        .iter()
        .take(3)
        .find_map(|name| Some((name, PROGRAMS.iter().find(|(program, _)| name.starts_with(program))?)))?;
    match profile {
        "valheim" if cmdline.iter().any(|argument| argument == "-crossplay") => {
            Some(Guess { profile: "valheim-crossplay", because: because(&format!("{name} -crossplay")) })
        }
        // The client can be the server's host, too; it isn't a server without the flag.
        "luanti" if !name.contains("server") && !cmdline.iter().any(|argument| argument == "--server") => {
            None
        }
        _ => Some(Guess { profile, because: because(name) }),
    }
}

fn by_port(ports: Ports) -> Option<Guess> {
    let known = |ports: &[u16], games: &[(u16, &'static str)], protocol: &str| {
        games.iter().find(|(port, _)| ports.contains(port)).map(|&(port, profile)| Guess {
            profile,
            because: format!("it listens on {protocol} port {port}, the game's default"),
        })
    };
    let generic = |ports: &[u16], profile, protocol: &str| {
        ports.first().map(|port| Guess {
            profile,
            because: format!("its program is not known; it listens on {protocol} port {port}"),
        })
    };
    known(ports.tcp, &TCP, "TCP")
        .or_else(|| known(ports.udp, &UDP, "UDP"))
        .or_else(|| generic(ports.tcp, "generic-tcp", "TCP"))
        .or_else(|| generic(ports.udp, "generic-udp", "UDP"))
}

/// The last part of a path, of Windows' too (games under wine), in lower case.
fn file_name(argument: &str) -> String {
    argument.rsplit(['/', '\\']).next().unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(line: &str, tcp: &[u16], udp: &[u16]) -> Option<&'static str> {
        let cmdline: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        guess(&cmdline, Ports { tcp, udp }).map(|guess| guess.profile)
    }

    #[test]
    fn games_are_known_by_their_programs() {
        for (line, profile) in [
            ("java -Xmx4G -jar paper-1.21.4.jar nogui", "minecraft-java"),
            ("/usr/lib/jvm/bin/java -Xmx1G -cp libs net.minecraft.server.Main", "minecraft-java"),
            ("/usr/lib/minetest/minetestserver --port 30001", "luanti"),
            ("/usr/bin/luanti --server --worldname w", "luanti"),
            ("/usr/games/DDNet-Server -f a.cfg", "ddnet"),
            ("teeworlds-server", "teeworlds"),
            ("/opt/factorio/bin/x64/factorio --start-server a.zip", "factorio"),
            ("./valheim_server.x86_64 -name a -port 2456", "valheim"),
            ("./valheim_server.x86_64 -name a -crossplay", "valheim-crossplay"),
            ("/bin/sh ./PalServer.sh -port=8211", "palworld"),
            ("PalServer-Linux-Shipping Pal", "palworld"),
            ("wine C:\\games\\TerrariaServer.exe -world a", "terraria"),
            ("/usr/lib/ioquake3/ioq3ded +set dedicated 1", "quake3"),
        ] {
            assert_eq!(by(line, &[4000], &[4000]), Some(profile), "{line}");
        }
    }

    #[test]
    fn the_unknown_is_guessed_by_its_ports() {
        assert_eq!(by("node app.js", &[25565], &[]), Some("minecraft-java"));
        assert_eq!(by("node app.js", &[4000], &[30000]), Some("luanti"));
        assert_eq!(by("java -jar app.jar -Dhome=/srv/paper", &[4000], &[]), Some("generic-tcp"));
        assert_eq!(by("luanti", &[], &[5000]), Some("generic-udp"));
        assert_eq!(by("python3 valheim.py", &[], &[]), None);
        assert_eq!(by("", &[], &[]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_command_line_makes_it_panic(cmdline: Vec<String>, tcp: Vec<u16>, udp: Vec<u16>) {
            let found = guess(&cmdline, Ports { tcp: &tcp, udp: &udp });
            proptest::prop_assert!(found.is_some() || tcp.is_empty() && udp.is_empty());
        }
    }
}
