//! The thresholds by name: the one list from which reading, merging and explaining are made.

use std::path::Path;
use std::time::Duration;

use super::error::{ConfigError, Place};
use super::reader::{Entry, Section, Source};
use super::value::{OrNever, Show, quoted};
use crate::limits::{BringBack, DozeBy, FirstSpeaker, Floor, Limits, Reaction, Window};

macro_rules! thresholds {
    ($($key:ident: $type:ty),+ $(,)?) => {
        /// What one layer says of a server's [`Limits`]; what it leaves out is the lower layer's.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Patch {
            $(pub $key: Option<$type>,)+
        }

        /// The names of all thresholds.
        pub const KEYS: &[&str] = &[$(stringify!($key)),+];

        impl Patch {
            /// Takes every threshold out of a table; anything else in it is an error.
            pub(super) fn read(mut section: Section<'_>) -> Result<Self, ConfigError> {
                let patch = Self { $($key: section.optional(stringify!($key))?,)+ };
                section.finish()?;
                Ok(patch)
            }

            /// One threshold by its name; `None` if there is none of that name.
            pub(super) fn read_one(key: &str, entry: &Entry<'_>) -> Result<Option<Self>, ConfigError> {
                let mut patch = Self::default();
                match key {
                    $(stringify!($key) => patch.$key = Some(entry.read()?),)+
                    _ => return Ok(None),
                }
                Ok(Some(patch))
            }

            /// Both, where both speak this one's word.
            #[must_use]
            pub fn over(self, lower: Self) -> Self {
                Self { $($key: self.$key.or(lower.$key),)+ }
            }

            pub fn apply_to(&self, limits: &mut Limits) {
                $(if let Some(value) = &self.$key {
                    limits.$key = value.clone().into();
                })+
            }

            /// The value of a key as it would be written in TOML; `None` if this layer is silent on it.
            pub fn show(&self, key: &str) -> Option<String> {
                match key {
                    $(stringify!($key) => self.$key.as_ref().map(Show::show),)+
                    _ => None,
                }
            }
        }

        impl From<&Limits> for Patch {
            fn from(limits: &Limits) -> Self {
                Self { $($key: Some(limits.$key.clone().into()),)+ }
            }
        }
    };
}

thresholds! {
    doze_after: Duration,
    deep_after: OrNever<Duration>,
    floor: Floor,
    doze_by: DozeBy,
    throttle_percent: u32,
    resident_min: u64,
    bring_back: BringBack,
    min_awake: Duration,
    grace_after_start: Duration,
    wakes_per_hour: u32,
    patience: Duration,
    query_every: Duration,
    query_thaw: Duration,
    first_speaker: FirstSpeaker,
    busy_cpu_percent: OrNever<u32>,
    save_wait: Duration,
    loopback: Reaction,
    old_links: Reaction,
    linked: Vec<String>,
    windows: Vec<Window>,
}

impl Patch {
    /// One threshold as an operator typed it after `profile set`: TOML, or a word without its quotes.
    pub fn parse_one(key: &str, typed: &str) -> Result<Self, ConfigError> {
        let file = Path::new("profile set");
        let typed = typed.trim();
        if let Some((first, _)) = typed.split_once('\n') {
            // A second line could say something of another key.
            return Err(ConfigError::BadValue {
                place: Place { file: file.to_owned(), line: None },
                key: key.to_owned(),
                found: format!("{first}…"),
                expected: "expected one value on one line".to_owned(),
            });
        }
        let read = |value: &str| {
            let text = format!("{} = {value}", quoted(key));
            Self::read(Section::parse(Source { file, text: &text })?)
        };
        match read(typed) {
            Err(ConfigError::Syntax { .. }) => read(&quoted(typed)),
            outcome => outcome,
        }
    }
}

/// The lowest layer. Unknown means throttle (games.md of the design): nothing here freezes, nothing goes
/// deep, and what comes from an unknown side wakes.
pub fn built_in() -> Limits {
    Limits {
        doze_after: Duration::from_mins(30),
        deep_after: None,
        floor: Floor::Dozing,
        doze_by: DozeBy::Throttle,
        // Enough for an idle server to hold its timers and connections.
        throttle_percent: 10,
        resident_min: 0,
        bring_back: BringBack::Beside,
        min_awake: Duration::from_mins(5),
        grace_after_start: Duration::from_mins(10),
        wakes_per_hour: 12,
        patience: Duration::from_secs(3),
        query_every: Duration::from_secs(2),
        query_thaw: Duration::from_millis(100),
        first_speaker: FirstSpeaker::Unknown,
        busy_cpu_percent: None,
        // A big world's `save-all flush` on a slow disk.
        save_wait: Duration::from_mins(1),
        loopback: Reaction::Wake,
        old_links: Reaction::Wake,
        linked: Vec::new(),
        windows: Vec::new(),
    }
}
