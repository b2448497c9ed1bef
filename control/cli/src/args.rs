//! The grammar.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use dormouse_api::event::EventKind;
use dormouse_api::status::Selector;

/// Puts idle game servers to sleep and wakes them on a player's first packet.
#[derive(Debug, Parser)]
#[command(name = "dormouse", version, disable_help_subcommand = true, max_term_width = 100)]
#[command(after_help = "Exit: 0 ok, 1 failed, 2 usage, 3 refused, 4 daemon unreachable.")]
pub struct Cli {
    /// The daemon's socket [default: $DORMOUSE_SOCKET, else /run/dormouse/dormouse.sock]
    #[arg(long, global = true, help_heading = "Common options", value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// How to print the answer
    #[arg(
        short,
        long,
        global = true,
        help_heading = "Common options",
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub output: Format,

    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// What this machine has and lacks, with the remedy, and what a deep wake would cost
    ///
    /// Works without the daemon. Exits with 1 when a check fails.
    Preflight,

    /// Make a running program a server, in observe mode
    ///
    /// Guesses profile and ports from the listening sockets, writes a server file, and prints it. In observe
    /// mode dormouse decides on paper and touches nothing; `dormouse enable` ends that.
    Adopt {
        /// cgroup:GLOB, unit:NAME, docker:NAME or podman:NAME
        select: String,
        /// Don't guess the profile
        #[arg(short, long)]
        profile: Option<String>,
    },

    /// Let servers sleep
    ///
    /// Every server is checked first; one that may not sleep is refused with the reason.
    Enable {
        #[command(flatten)]
        servers: Chosen,
        /// How far: doze = never deep, full = as far as the profile's floor
        #[arg(long, value_name = "MODE", default_value = "full")]
        mode: Enabled,
    },

    /// Back to observe mode: wake servers and touch them no more
    Disable {
        #[command(flatten)]
        servers: Chosen,
    },

    /// How the node and its servers are
    Status {
        #[command(flatten)]
        servers: Filter,
        /// Go on, once a second
        #[arg(short, long)]
        watch: bool,
    },

    /// Why a server is in its stage, what woke it last, what its next wake will cost
    Why {
        #[command(flatten)]
        servers: Chosen,
    },

    /// Wake servers, wait until they answer, print the phases
    Wake {
        #[command(flatten)]
        servers: Chosen,
        /// Keep them awake so long, as `dormouse keep` does
        #[arg(long, value_name = "TIME", value_parser = duration)]
        keep: Option<Duration>,
    },

    /// Put servers to sleep now, after the same checks as the daemon's own
    Sleep {
        #[command(flatten)]
        servers: Chosen,
        /// All the way to the profile's floor, instead of a doze
        #[arg(long)]
        deep: bool,
    },

    /// Forbid sleep for a while
    Keep {
        #[command(flatten)]
        servers: Chosen,
        /// How long: 90m, 6h, 2days
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        length: Duration,
        /// Shown to everybody who asks why it doesn't sleep
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },

    /// End a keep before its time
    Release {
        #[command(flatten)]
        servers: Chosen,
    },

    /// The thresholds of games and servers
    #[command(subcommand)]
    Profile(ProfileVerb),

    /// Who came, from where, what it was, and what was done
    Events {
        #[command(flatten)]
        servers: Filter,
        /// Go on with what happens from now on
        #[arg(short, long)]
        watch: bool,
        /// Only these, for instance: wake,refused,crash
        #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = kind)]
        kinds: Vec<EventKind>,
    },

    /// Undo everything that dormouse changed, and stay off; works without the daemon
    Off,

    /// Allow what `dormouse off` forbade
    On,

    /// Print shell completions
    Completions { shell: Shell },
}

#[derive(Debug, Subcommand)]
pub enum ProfileVerb {
    /// The profiles of this node
    List,

    /// The values that hold, for a server or a whole profile
    #[command(override_usage = "dormouse profile get <SERVER | -p PROFILE> [KEY]")]
    Get(Limits),

    /// Override a value for a while, for a server or a whole profile
    #[command(override_usage = "dormouse profile set <SERVER | -p PROFILE> KEY VALUE --for TIME")]
    Set {
        #[command(flatten)]
        limits: Limits,
        /// When the override ends: 90m, 6h, 2days
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        length: Duration,
    },

    /// Remove an override
    #[command(override_usage = "dormouse profile unset <SERVER | -p PROFILE> KEY")]
    Unset(Limits),

    /// Every layer that names a value, and which one won
    #[command(override_usage = "dormouse profile explain <SERVER | -p PROFILE> [KEY]")]
    Explain(Limits),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Enabled {
    Doze,
    Full,
}

/// Which servers; none said: all.
#[derive(Debug, Args)]
pub struct Filter {
    /// Only these servers
    #[arg(value_name = "SERVER")]
    pub servers: Vec<String>,
    /// Only servers of this profile
    #[arg(short, long)]
    pub profile: Option<String>,
}

/// Which servers; it must be said.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Chosen {
    /// These servers
    #[arg(value_name = "SERVER")]
    pub servers: Vec<String>,
    /// Servers of this profile
    #[arg(short, long)]
    pub profile: Option<String>,
    /// All servers of the node
    #[arg(long, conflicts_with_all = ["servers", "profile"])]
    pub all: bool,
}

/// A server or a profile, then what about it.
#[derive(Debug, Args)]
pub struct Limits {
    /// A whole profile instead of one server
    #[arg(short, long)]
    pub profile: Option<String>,
    /// The server (unless -p is given), then key and value
    #[arg(value_name = "SERVER KEY VALUE", num_args = 0..=3, hide = true)]
    pub words: Vec<String>,
}

impl From<Filter> for Selector {
    fn from(filter: Filter) -> Self {
        Self { servers: filter.servers, profile: filter.profile }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; say 90m, 6h, 2days"))?;
    if duration.is_zero() {
        return Err("no time at all; say 90m, 6h, 2days".to_owned());
    }
    Ok(duration)
}

fn kind(name: &str) -> Result<EventKind, String> {
    EventKind::from_name(name)
        .ok_or_else(|| format!("no such type; known: {}", EventKind::ALL.map(EventKind::name).join(", ")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        super::Cli::command().debug_assert();
    }
}
