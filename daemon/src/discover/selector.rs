//! How an operator names a server: `cgroup:GLOB`, `unit:NAME`, `docker:NAME`, `podman:NAME` or `pid:N`.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// A glob below the cgroup v2 root, for instance `/games/*`.
    Cgroup(String),
    /// A systemd unit.
    Unit(String),
    /// A container's name or id.
    Docker(String),
    Podman(String),
    /// For demos: a number doesn't survive a restart.
    Pid(i32),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseSelectorError {
    #[error("allowed are cgroup:GLOB, unit:NAME, docker:NAME, podman:NAME and pid:NUMBER")]
    Kind,
    #[error("the name is empty, begins with '-', or holds a space or control character")]
    Name,
    #[error("a pid is a whole number from 1 on")]
    Pid,
    #[error("{0} (for instance cgroup:/games/*)")]
    Glob(&'static str),
}

impl FromStr for Selector {
    type Err = ParseSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, value) = text.split_once(':').ok_or(ParseSelectorError::Kind)?;
        // The names go to other programs as one argument: they must not look like an option.
        let name = || {
            let bad = value.is_empty()
                || value.starts_with('-')
                || value.chars().any(|c| c.is_whitespace() || c.is_control());
            if bad { Err(ParseSelectorError::Name) } else { Ok(value.to_owned()) }
        };
        match kind {
            "cgroup" => {
                let parts: Vec<_> = value.split('/').filter(|part| !part.is_empty()).collect();
                if parts.is_empty() {
                    return Err(ParseSelectorError::Glob(
                        "the root cgroup is the whole machine, not a server",
                    ));
                }
                if parts.iter().any(|part| matches!(*part, "." | "..")) {
                    return Err(ParseSelectorError::Glob(
                        "a path below the cgroup root holds no '.' or '..'",
                    ));
                }
                let path = format!("/{}", parts.join("/"));
                glob::Pattern::new(&path).map_err(|error| ParseSelectorError::Glob(error.msg))?;
                Ok(Self::Cgroup(path))
            }
            "unit" => name().map(Self::Unit),
            "docker" => name().map(Self::Docker),
            "podman" => name().map(Self::Podman),
            "pid" => match value.parse() {
                Ok(pid) if pid > 0 => Ok(Self::Pid(pid)),
                _ => Err(ParseSelectorError::Pid),
            },
            _ => Err(ParseSelectorError::Kind),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(glob) => write!(f, "cgroup:{glob}"),
            Self::Unit(name) => write!(f, "unit:{name}"),
            Self::Docker(name) => write!(f, "docker:{name}"),
            Self::Podman(name) => write!(f, "podman:{name}"),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(text: &str) -> Selector {
        text.parse().unwrap()
    }

    #[test]
    fn selectors_are_read_and_written() {
        for text in
            ["cgroup:/games/*", "unit:game.service", "unit:mc@1.service", "docker:mc", "podman:mc", "pid:7"]
        {
            assert_eq!(selector(text).to_string(), text);
        }
        assert_eq!(selector("cgroup:games//a/"), Selector::Cgroup("/games/a".to_owned()));
        for (text, hint) in [
            ("", "cgroup:GLOB"),
            ("games", "cgroup:GLOB"),
            ("lxc:a", "cgroup:GLOB"),
            ("unit:", "empty"),
            ("docker:-v", "begins with '-'"),
            ("podman:a b", "space"),
            ("pid:0", "whole number"),
            ("pid:x", "whole number"),
            ("pid:", "whole number"),
            ("pid:3000000000", "whole number"),
            ("cgroup:/", "root cgroup"),
            ("cgroup:/a/../b", "'..'"),
            ("cgroup:[", "range"),
            ("cgroup:/a/[", "range"),
        ] {
            let error = text.parse::<Selector>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_parses_is_written_as_the_same_selector(text in "(cgroup|unit|docker|podman|pid):[a-z0-9/*.@-]{1,20}") {
            if let Ok(selector) = text.parse::<Selector>() {
                proptest::prop_assert_eq!(selector.to_string().parse::<Selector>(), Ok(selector));
            }
        }
    }
}
