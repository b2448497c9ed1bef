//! The grammar.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use dormouse_api::event::EventKind;
use dormouse_api::status::Selector;
use jiff::Timestamp;
use jiff::tz::TimeZone;

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

#[derive(Debug, Args)]
pub struct Login {
    /// What to call it
    pub context: String,
    /// The control plane's address
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// The stored key's id
    #[arg(long, value_name = "ID")]
    pub key: String,
    /// A file that holds the key's secret; it is read again whenever a token ends
    #[arg(long, value_name = "FILE")]
    pub secret_file: PathBuf,
    /// Who vouches for the control plane (PEM) [default: the system's authorities]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum ServersVerb {
    /// All of them, or some
    List {
        /// Only this tenant's
        #[arg(long)]
        tenant: Option<String>,
        /// Only of this profile
        #[arg(short, long)]
        profile: Option<String>,
        /// Only on this node
        #[arg(long)]
        node: Option<String>,
    },
    /// Add a server, in observe mode
    Add {
        /// TENANT/NAME
        server: String,
        /// Its game
        #[arg(short, long)]
        profile: String,
        /// What it needs awake, in bytes
        #[arg(long, value_name = "BYTES")]
        memory: Option<u64>,
        /// The node it runs on
        #[arg(long)]
        node: Option<String>,
        /// A region: choose a node there, or in the nearest region that has room
        #[arg(long, value_name = "REGION", conflicts_with = "node")]
        near: Option<String>,
    },
    /// Remove a server from the registry; what runs goes on running
    Remove {
        /// TENANT/NAME
        server: String,
    },
    /// Which region owns a server
    Locate {
        /// TENANT/NAME
        server: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum TenantsVerb {
    /// All of them
    List,
    /// Add a tenant
    Add {
        /// Small letters, digits and `-`
        tenant: String,
        /// What people call it
        #[arg(long, value_name = "TEXT")]
        title: Option<String>,
        /// The most servers that it may have
        #[arg(long, value_name = "NUMBER")]
        servers: Option<u32>,
    },
}

#[derive(Debug, Subcommand)]
pub enum NodesVerb {
    /// All of them
    List,
    /// Add a node; `dormouse keys add --node` makes what it logs in with
    Add {
        /// Small letters, digits, `.` and `-`
        node: String,
        /// Its memory, in bytes; its reports correct it
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        memory: u64,
    },
    /// Remove a node that has no servers, and its keys
    Remove { node: String },
}

#[derive(Debug, Subcommand)]
pub enum KeysVerb {
    /// All of them, without their secrets
    List,
    /// Make a key; its id is printed, its secret written to a file, and shown nowhere again
    #[command(group = clap::ArgGroup::new("whose").required(true))]
    Add {
        /// What it is for
        title: String,
        /// For this node
        #[arg(long, group = "whose")]
        node: Option<String>,
        /// For this tenant
        #[arg(long, group = "whose")]
        tenant: Option<String>,
        /// For a service: reads the bus, answers erasures
        #[arg(long, group = "whose")]
        service: bool,
        /// For an operator
        #[arg(long, group = "whose")]
        operator: bool,
        /// A new file, for its owner's eyes only
        #[arg(long, value_name = "FILE")]
        secret_file: PathBuf,
    },
    /// Remove a key; tokens that it has got hold until they end
    Remove {
        /// Its id
        key: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum BusVerb {
    /// Events, from the first that is kept on
    Tail {
        /// Go on with what happens from now on
        #[arg(short, long)]
        watch: bool,
        /// Only after this position
        #[arg(long, value_name = "POSITION", default_value_t = 0)]
        after: u64,
        /// Only types that begin so, for instance: dormouse.server.
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,
    },
    /// Events that a service failed on again and again
    Dead,
    /// Give a dead letter to its service again
    Redrive {
        /// The letter
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum ErasureVerb {
    /// The requests, newest first
    List,
    /// Ask every service to erase a person's data
    Request {
        /// An opaque id, never a name or an address
        subject: String,
        /// Only this tenant's data
        #[arg(long)]
        tenant: Option<String>,
    },
    /// One request, service by service
    Show {
        /// The request
        id: String,
    },
    /// Answer for a service or a node (node:NAME) that can't: what it has stays, for this reason
    Skip {
        /// The request
        id: String,
        /// The row of the matrix
        service: String,
        /// Which law allows it, or why there is nothing left to erase
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// After a service was restored from a backup: ask again for all requests of the last while
    ///
    /// A control plane whose own database was restored does it by itself.
    Replay {
        /// How far back the backup goes: 36h, 7days
        #[arg(long, value_name = "TIME", value_parser = duration)]
        since: Duration,
    },
}

#[derive(Debug, Subcommand)]
pub enum IndexVerb {
    /// Every difference between the region's servers and the index; exits with 1 if there is one
    Check {
        /// Write the index anew first
        #[arg(long)]
        repair: bool,
    },
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
