//! The kinds of value a configuration may hold: how each is read, written and described.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use dormouse_packet::Game;
use toml::de::DeValue;

use super::node::ProfilesFrom;
use super::profile::Ready;
use super::window;
use crate::discover::probers::ProberGlob;
use crate::limits::{BringBack, DozeBy, FirstSpeaker, Floor, Mode, Reaction, Window};

pub trait Value: Sized {
    /// What is allowed, as the end of an error message.
    fn expected() -> String;
    fn read(value: &DeValue<'_>) -> Option<Self>;
}

/// A value that can also be shown to the operator, as they would write it in TOML.
pub trait Show {
    fn show(&self) -> String;
}

/// A limit that may be switched off with the word `"never"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrNever<T>(pub Option<T>);

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Tcp,
    Udp,
}

/// A port of a server or of a peer, written `tcp/25565`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct PortSpec {
    pub transport: Transport,
    pub port: u16,
}

/// TOML's notation of a text.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn read_list<T>(value: &DeValue<'_>, read: impl Fn(&DeValue<'_>) -> Option<T>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(|element| read(element.get_ref())).collect()
}

fn show_list<T: Show>(list: &[T]) -> String {
    let shown: Vec<String> = list.iter().map(Show::show).collect();
    format!("[{}]", shown.join(", "))
}

/// Enums written as one word.
macro_rules! words {
    ($type:ty { $($word:literal => $variant:path),+ $(,)? }) => {
        impl Value for $type {
            fn expected() -> String {
                format!("allowed are {}", [$($word),+].join(", "))
            }

            fn read(value: &DeValue<'_>) -> Option<Self> {
                match value.as_str()? {
                    $($word => Some($variant),)+
                    _ => None,
                }
            }
        }

        impl Show for $type {
            fn show(&self) -> String {
                quoted(match self { $($variant => $word),+ })
            }
        }
    };
}

words!(Mode { "observe" => Mode::Observe, "doze" => Mode::Doze, "full" => Mode::Full });
words!(Floor { "awake" => Floor::Awake, "dozing" => Floor::Dozing, "deep" => Floor::Deep });
words!(DozeBy { "freeze" => DozeBy::Freeze, "throttle" => DozeBy::Throttle });
words!(BringBack { "beside" => BringBack::Beside, "before" => BringBack::Before, "all" => BringBack::All });
words!(ProfilesFrom { "files" => ProfilesFrom::Files, "control" => ProfilesFrom::Control });
words!(Reaction { "wake" => Reaction::Wake, "ignore" => Reaction::Ignore });
words!(FirstSpeaker {
    "client" => FirstSpeaker::Client,
    "server" => FirstSpeaker::Server,
    "unknown" => FirstSpeaker::Unknown,
});
words!(Ready { "alive" => Ready::Alive, "listening" => Ready::Listening, "status" => Ready::Status });
words!(Game {
    "generic-tcp" => Game::GenericTcp,
    "generic-udp" => Game::GenericUdp,
    "minecraft-java" => Game::MinecraftJava,
    "luanti" => Game::Luanti,
    "teeworlds" => Game::Teeworlds,
});

/// Values written as a text with a grammar of its own.
macro_rules! texts {
    ($type:ty, $expected:literal, $parse:expr) => {
        impl Value for $type {
            fn expected() -> String {
                $expected.to_owned()
            }

            fn read(value: &DeValue<'_>) -> Option<Self> {
                let parse: fn(&str) -> Option<Self> = $parse;
                parse(value.as_str()?)
            }
        }
    };
}

texts!(String, "expected a text that is not empty", |text| (!text.trim().is_empty())
    .then(|| text.to_owned()));
texts!(Duration, "expected a duration like \"10m\", \"90s\" or \"1h 30m\"", |text| {
    humantime::parse_duration(text).ok()
});
texts!(SocketAddr, "expected an address and a port like \"127.0.0.1:9877\"", |text| text.parse().ok());
texts!(PathBuf, "expected an absolute path", |text| Some(PathBuf::from(text))
    .filter(|path| path.is_absolute()));
texts!(PortSpec, "expected a port like \"tcp/25565\" or \"udp/30000\"", PortSpec::parse);
texts!(Window, "expected hours like \"18:00-23:00\" or \"fri,sat 18:00-02:00\"", window::parse);

texts!(ProberGlob, "expected a cgroup below the root, as \"/system.slice/kubelet.service\"", |text| {
    text.parse().ok()
});
texts!(glob::Pattern, "expected a file name or pattern like \"world/*.wld\"", |text| {
    if text.is_empty() { None } else { glob::Pattern::new(text).ok() }
});

/// A moment, written as a text or as TOML's own date and time.
impl Value for SystemTime {
    fn expected() -> String {
        "expected a time in UTC like \"2026-12-31T18:00:00Z\"".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Option<Self> {
        let text = match value {
            DeValue::Datetime(datetime) => datetime.to_string(),
            _ => value.as_str()?.to_owned(),
        };
        humantime::parse_rfc3339(&text).ok()
    }
}

impl Show for String {
    fn show(&self) -> String {
        quoted(self)
    }
}

impl Show for Duration {
    fn show(&self) -> String {
        quoted(&humantime::format_duration(*self).to_string())
    }
}

impl PortSpec {
    fn parse(text: &str) -> Option<Self> {
        let (transport, port) = text.split_once('/')?;
        let transport = match transport {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            _ => return None,
        };
        let port: u16 = port.parse().ok()?;
        (port != 0).then_some(Self { transport, port })
    }
}

impl std::fmt::Display for PortSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        write!(f, "{transport}/{}", self.port)
    }
}

impl Value for u32 {
    fn expected() -> String {
        "expected a whole number from 0 to 4294967295".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Option<Self> {
        let integer = value.as_integer()?;
        u32::from_str_radix(integer.as_str(), integer.radix()).ok()
    }
}

impl Show for u32 {
    fn show(&self) -> String {
        self.to_string()
    }
}

/// Bytes.
impl Value for u64 {
    fn expected() -> String {
        "expected a size like \"64MiB\" or \"2GiB\" (B, KiB, MiB, GiB, TiB)".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Option<Self> {
        let text = value.as_str()?;
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (_, shift) = UNITS.iter().find(|(unit, _)| *unit == text[digits..].trim_start())?;
        text[..digits].parse::<u64>().ok()?.checked_mul(1 << shift)
    }
}

const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl Show for u64 {
    fn show(&self) -> String {
        let fits = |(_, shift): &&(&str, u32)| *self != 0 && self.trailing_zeros() >= *shift;
        let (unit, shift) = UNITS.iter().find(fits).unwrap_or(&("B", 0));
        quoted(&format!("{}{unit}", self >> shift))
    }
}

impl<T: Value> Value for Vec<T> {
    fn expected() -> String {
        format!("expected a list; each element: {}", T::expected())
    }

    fn read(value: &DeValue<'_>) -> Option<Self> {
        read_list(value, T::read)
    }
}

impl<T: Show> Show for Vec<T> {
    fn show(&self) -> String {
        show_list(self)
    }
}

impl<T: Value> Value for OrNever<T> {
    fn expected() -> String {
        format!("{}, or \"never\"", T::expected())
    }

    fn read(value: &DeValue<'_>) -> Option<Self> {
        if value.as_str() == Some("never") {
            return Some(Self(None));
        }
        T::read(value).map(|limit| Self(Some(limit)))
    }
}

impl<T: Show> Show for OrNever<T> {
    fn show(&self) -> String {
        self.0.as_ref().map_or_else(|| quoted("never"), Show::show)
    }
}

impl<T> From<OrNever<T>> for Option<T> {
    fn from(limit: OrNever<T>) -> Self {
        limit.0
    }
}

impl<T> From<Option<T>> for OrNever<T> {
    fn from(limit: Option<T>) -> Self {
        Self(limit)
    }
}
