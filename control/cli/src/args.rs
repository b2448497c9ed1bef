//! The grammar.

mod registry;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use dormouse_api::event::EventKind;
use dormouse_api::status::Selector;
use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use registry::{BusVerb, ErasureVerb, IndexVerb, KeysVerb, Login, NodesVerb, ServersVerb, TenantsVerb};

/// Puts idle game servers to sleep and wakes them on a player's first packet.
#[derive(Debug, Parser)]
#[command(name = "dormouse", version, disable_help_subcommand = true, max_term_width = 100)]
#[command(after_help = "Exit: 0 ok, 1 failed, 2 usage, 3 refused, 4 daemon unreachable.")]
pub struct Cli {
    /// The daemon's socket [default: $DORMOUSE_SOCKET, else /run/dormouse/dormouse.sock]
    #[arg(long, global = true, help_heading = "Common options", value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// A control plane instead of a node: a context's name or https://HOST:PORT [default: $DORMOUSE_CONTROL]
    ///
    /// `dormouse login` makes a context.
    #[arg(
        long,
        global = true,
        help_heading = "Common options",
        value_name = "CONTEXT|URL",
        env = "DORMOUSE_CONTROL"
    )]
    pub control: Option<String>,

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
    /// Of `savings` only
    Csv,
    /// A page with plots, of `savings` only
    Html,
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

    /// What sleep was worth: hours in each stage, memory handed back, and what follows from it
    ///
    /// Hours without data count as nothing saved. Headroom for wakes is taken off. -o csv gives a line a server,
    /// -o html a page with plots.
    Savings(SavingsArgs),
    /// Get a token for a control plane, and remember it as a context
    Login(Login),

    /// The servers of a region
    #[command(subcommand)]
    Servers(ServersVerb),

    /// Who servers belong to
    #[command(subcommand)]
    Tenants(TenantsVerb),

    /// The nodes of a region; without a verb it lists them
    Nodes {
        #[command(subcommand)]
        verb: Option<NodesVerb>,
    },

    /// Stored keys: what nodes, services and tenants log in with
    #[command(subcommand)]
    Keys(KeysVerb),

    /// Events between services
    #[command(subcommand)]
    Bus(BusVerb),

    /// Erasure of a person's data
    #[command(subcommand)]
    Erasure(ErasureVerb),

    /// The index that all regions share
    #[command(subcommand)]
    Index(IndexVerb),

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

    /// On a node: override a value for a while. With --control: write the registry's layer
    #[command(
        override_usage = "dormouse profile set <SERVER | -p PROFILE> KEY VALUE <--for TIME | --control …>"
    )]
    Set {
        #[command(flatten)]
        limits: Limits,
        /// When a node's override ends: 90m, 6h, 2days
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        length: Option<Duration>,
        /// Why, for the registry's history
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },

    /// Who changed what in the registry, newest first (with --control)
    #[command(override_usage = "dormouse profile history <SERVER | -p PROFILE>")]
    History(Limits),

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

/// Which period, and at what price.
#[derive(Debug, Args)]
pub struct SavingsArgs {
    #[command(flatten)]
    pub servers: Filter,
    /// How long ago it begins, or a date [default: 30days]
    #[arg(long, value_name = "TIME")]
    pub since: Option<When>,
    /// How long ago it ends, or a date [default: now]
    #[arg(long, value_name = "TIME")]
    pub until: Option<When>,
    /// Count what servers in mode observe would have saved
    #[arg(long)]
    pub estimate: bool,
    /// What a GiB of memory costs a month
    #[arg(long, value_name = "PRICE", value_parser = price)]
    pub price: Option<f64>,
    /// What the wear of a TiB written to swap costs: the drive's price / the TiB that it may be written
    #[arg(long, value_name = "PRICE", value_parser = price, default_value = "0")]
    pub wear_price: f64,
    /// Today's margin in percent, to see what it becomes
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub margin: Option<f64>,
}

/// A moment, as people say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Ago(Duration),
    /// Milliseconds since 1970.
    At(u64),
}

impl When {
    pub fn at_ms(self, now_ms: u64) -> u64 {
        match self {
            Self::Ago(ago) => now_ms.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
            Self::At(at_ms) => at_ms,
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ago) = humantime::parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        let here =
            |time: jiff::civil::DateTime| time.to_zoned(TimeZone::system()).ok().map(|at| at.timestamp());
        let at = text.parse::<Timestamp>().ok().or_else(|| text.parse().ok().and_then(here));
        at.and_then(|at| u64::try_from(at.as_millisecond()).ok())
            .map(Self::At)
            .ok_or_else(|| "say how long ago (30days, 12h) or when (2026-11-01, 2026-11-01T18:00)".to_owned())
    }
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

fn price(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|price: &f64| price.is_finite() && *price >= 0.0)
        .ok_or_else(|| "say a number, such as 3.50".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|percent| (0.0..100.0).contains(percent))
        .ok_or_else(|| "say a number from 0 to below 100".to_owned())
}

fn kind(name: &str) -> Result<EventKind, String> {
    EventKind::from_name(name)
        .ok_or_else(|| format!("no such type; known: {}", EventKind::ALL.map(EventKind::name).join(", ")))
}

#[cfg(test)]
mod tests {
    use super::When;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn a_moment_is_an_age_or_a_date() {
        assert_eq!("1h".parse::<When>().unwrap().at_ms(3_600_005), 5);
        assert_eq!("2026-11-18T11:06:40Z".parse::<When>().unwrap(), When::At(1_795_000_000_000));
        assert!(matches!("2026-11-18".parse::<When>().unwrap(), When::At(_)));
        assert!("tomorrow".parse::<When>().is_err());
    }
}
