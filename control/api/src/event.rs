//! What happened: who came, and what was done about it.

use serde::{Deserialize, Serialize};

use crate::command::Phases;
use crate::status::query;

/// One line of `GET /v1/events`: newline-delimited JSON, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub at_ms: u64,
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// `None`: the whole node.
    pub server: Option<String>,
    pub profile: Option<String>,
    /// The client's address and port.
    pub from: Option<String>,
    pub class: Option<Class>,
    pub phases: Option<Phases>,
    /// The reason, the remedy, what it was.
    pub detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    Wake,
    /// A query to a sleeping server had its answer; no wake.
    Answered,
    /// A probe or noise didn't wake; or a command or a step towards sleep was refused.
    Refused,
    Doze,
    Deep,
    /// A wake hurt the game: its profile goes no longer that far on this node.
    Demoted,
    Crash,
    Kept,
    Released,
    Mode,
    /// The node has no headroom for wakes left.
    PoolShort,
    /// Packets passed because nobody was there to decide.
    FailOpen,
}

impl EventKind {
    pub const ALL: [Self; 12] = [
        Self::Wake,
        Self::Answered,
        Self::Refused,
        Self::Doze,
        Self::Deep,
        Self::Demoted,
        Self::Crash,
        Self::Kept,
        Self::Released,
        Self::Mode,
        Self::PoolShort,
        Self::FailOpen,
    ];

    /// The word on the wire and on the screen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wake => "wake",
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Doze => "doze",
            Self::Deep => "deep",
            Self::Demoted => "demoted",
            Self::Crash => "crash",
            Self::Kept => "kept",
            Self::Released => "released",
            Self::Mode => "mode",
            Self::PoolShort => "pool_short",
            Self::FailOpen => "fail_open",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What a client's packets turned out to be (design §1, knock).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    Player,
    Query,
    Probe,
    Noise,
    Undecided,
}

impl Class {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Player => "player",
            Self::Query => "query",
            Self::Probe => "probe",
            Self::Noise => "noise",
            Self::Undecided => "undecided",
        }
    }
}

/// Which events are wanted. An empty list selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub servers: Vec<String>,
    pub profile: Option<String>,
    pub kinds: Vec<EventKind>,
    /// Go on with what happens from now on, instead of ending after the past.
    pub follow: bool,
}

impl EventFilter {
    /// The query string, with its `?`; empty when nothing is filtered.
    pub fn query(&self) -> String {
        let servers = self.servers.iter().map(|name| ("server", name.as_str()));
        let profile = self.profile.iter().map(|name| ("profile", name.as_str()));
        let kinds = self.kinds.iter().map(|kind| ("type", kind.name()));
        let follow = self.follow.then_some(("follow", "true"));
        query(servers.chain(profile).chain(kinds).chain(follow))
    }

    pub fn matches(&self, event: &Event) -> bool {
        let is = |wanted: &String| event.server.as_ref() == Some(wanted);
        (self.servers.is_empty() || self.servers.iter().any(is))
            && self.profile.as_ref().is_none_or(|wanted| event.profile.as_ref() == Some(wanted))
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_kind_is_its_word_on_the_wire() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert_eq!(EventKind::from_name(kind.name()), Some(kind));
        }
    }

    #[test]
    fn a_filter_needs_all_of_its_halves() {
        let event = Event {
            at_ms: 1,
            kind: EventKind::Wake,
            server: Some("a/b".into()),
            profile: Some("luanti".into()),
            from: None,
            class: None,
            phases: None,
            detail: None,
        };
        let mut filter = EventFilter::default();
        assert!(filter.matches(&event));
        filter.kinds = vec![EventKind::Crash, EventKind::Wake];
        filter.servers = vec!["a/b".into()];
        assert!(filter.matches(&event));
        assert_eq!(filter.query(), "?server=a%2Fb&type=crash&type=wake");
        filter.profile = Some("rust".into());
        assert!(!filter.matches(&event));
    }
}
