//! The file's text: the settings, what each was guessed from, and what its operator should look at.

use std::fmt::Write as _;

use super::ports::Ports;
use crate::config::{PortSpec, Profile, Save, Transport, Watchdog};
use crate::discover::selector::Selector;
use crate::discover::sockets::{OutboundPeer, Sockets};

/// Longer comments (a command line of a stranger's) are cut.
const COMMENT: usize = 240;

pub struct Facts<'a> {
    pub selector: &'a Selector,
    pub profile: &'a Profile,
    pub because: &'a str,
    pub ports: &'a Ports,
    pub sockets: &'a Sockets,
}

impl Facts<'_> {
    /// The text, and what to look at.
    pub fn write(&self) -> (String, Vec<String>) {
        let mut notes = vec![format!("profile {}: {}", self.profile.name, self.because)];
        notes.extend(self.about_container());
        notes.extend(self.about_ports());
        notes.extend(self.about_sleep());
        let mut text = String::from(
            "# Written by `dormouse adopt`. In mode observe dormouse decides on paper only and touches nothing;\n\
             # `dormouse why` tells what it would have done, `dormouse enable` lets it.\n#\n",
        );
        for note in &notes {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# - {}", comment(note));
        }
        let _ = write!(
            text,
            "\nselect = {}\nprofile = {}\nmode = \"observe\"\n",
            quoted(&self.selector.to_string()),
            quoted(&self.profile.name)
        );
        if !self.ports.open.is_empty() {
            text.push_str("ports = [\n");
            for &port in &self.ports.open {
                let _ = match self.generic(port) {
                    Some(generic) => writeln!(text, "    {{ port = \"{port}\", protocol = \"{generic}\" }},"),
                    None => writeln!(text, "    \"{port}\","),
                };
            }
            text.push_str("]\n");
        }
        (text, notes)
    }

    /// A container that is made anew has another id.
    fn about_container(&self) -> Option<String> {
        let Selector::Cgroup(path) = self.selector else { return None };
        let id = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let named = path.split(['/', '-', '.']).any(id);
        named.then(|| {
            "select: this cgroup is named after a container's id, which ends with it: adopt docker:NAME or \
             podman:NAME instead"
                .to_owned()
        })
    }

    fn about_ports(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.ports.open.is_empty() {
            notes.push("ports: it listens on none now; they are found from its sockets later".to_owned());
        } else {
            let open = list(&self.ports.open);
            notes.push(format!("ports: it listens on {open}; take out those that no player uses"));
        }
        let other: Vec<_> =
            self.ports.open.iter().copied().filter(|&port| self.generic(port).is_some()).collect();
        if !other.is_empty() && self.profile.protocol.is_some() {
            let other = list(&other);
            notes.push(format!(
                "{other}: not the game's own port, so whatever is sent there wakes the server"
            ));
        }
        if !self.ports.loopback.is_empty() {
            let loopback = list(&self.ports.loopback);
            notes.push(format!("{loopback}: only over its own loopback, so left out of ports"));
        }
        if !self.ports.passing.is_empty() {
            let passing = list(&self.ports.passing);
            notes.push(format!(
                "{passing}: chosen by the kernel, so taken for its own questions and left out"
            ));
        }
        notes
    }

    fn about_sleep(&self) -> Vec<String> {
        let Profile { name, watchdog, save, refuse, refuse_freeze, verified, .. } = self.profile;
        if let Some(reason) = refuse {
            return vec![format!("it will never be put to sleep: {reason}")];
        }
        let mut notes = Vec::new();
        if let Some(reason) = refuse_freeze {
            notes.push(format!("it will be throttled, never frozen: {reason}"));
        }
        match watchdog {
            Watchdog::None => {}
            Watchdog::Unknown => notes.push(
                "watchdog: not known for this game, so it is throttled; if it has none, say so under [assert]: \
                 watchdog = { value = \"off\", reason = \"why you know\" }"
                    .to_owned(),
            ),
            Watchdog::Settings(checks) => {
                let each = |check: &crate::config::WatchdogCheck| {
                    let optional = if check.optional { " (where there is one)" } else { "" };
                    format!("{}={} in {}{optional}", check.key, check.value, check.file)
                };
                let checks: Vec<_> = checks.iter().map(each).collect();
                notes.push(format!("watchdog: frozen only with {}; else throttled", checks.join(" and ")));
            }
        }
        match save {
            Save::Evidence { command: Some(command), .. } => notes.push(format!(
                "save: frozen only after the world was saved: give it a before_doze hook with {:?}",
                command.command
            )),
            Save::Evidence { command: None, files } if files.is_empty() => notes.push(
                "save: frozen only with evidence that the world is saved: set save_files or a before_doze hook"
                    .to_owned(),
            ),
            Save::Evidence { .. } | Save::NotNeeded => {}
        }
        let elsewhere =
            |outbound: &crate::discover::sockets::Outbound| matches!(outbound.peer, OutboundPeer::Elsewhere);
        let outbound = self.sockets.outbound().iter().filter(|one| elsewhere(one)).count();
        if outbound > 0 {
            notes.push(format!(
                "it holds {outbound} connections to others: it is throttled unless the profile calls them harmless"
            ));
        }
        if verified.is_none() {
            notes.push(format!("nobody has yet confirmed profile {name} with the real game: try it first"));
        }
        notes
    }

    /// The parser for a port that is not the game's own: another transport's than its protocol, or beside
    /// the game's usual port. `None` = the profile's.
    fn generic(&self, port: PortSpec) -> Option<&'static str> {
        let usual = &self.profile.ports;
        let same = |other: &&PortSpec| other.transport == port.transport;
        let usual_is_there = self.ports.open.iter().filter(same).any(|open| usual.contains(open));
        let beside = usual_is_there && !usual.contains(&port);
        let foreign = !usual.is_empty() && !usual.iter().any(|usual| same(&usual));
        (beside || foreign).then_some(match port.transport {
            Transport::Tcp => "generic-tcp",
            Transport::Udp => "generic-udp",
        })
    }
}

fn list(ports: &[PortSpec]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// One line without control characters, which TOML forbids in comments and a stranger could end one with.
fn comment(text: &str) -> String {
    text.chars().take(COMMENT).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
