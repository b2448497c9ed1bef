//! What `dormouse-control` is told.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use dormouse_api::registry::login::Role;

/// The control plane of one region.
#[derive(Debug, Parser)]
#[command(name = "dormouse-control", version, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run
    Serve(Box<Serve>),
    /// Print a token, signed with the region's key
    Token(TokenOptions),
    /// The keys that sign tokens
    #[command(subcommand)]
    Key(KeyVerb),
    /// Print the OpenAPI document
    Openapi,
}

#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// Add a key; it signs when every instance has had the time to see it
    New {
        #[command(flatten)]
        keys: KeyFolder,
    },
}

#[derive(Debug, Args)]
pub struct KeyFolder {
    /// The folder of the keys that sign tokens
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/dormouse-control/keys")]
    pub keys: PathBuf,
}

#[derive(Debug, Args)]
pub struct RegionName {
    /// This region's name
    #[arg(long, default_value = "local")]
    pub region: String,
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:7443", value_name = "ADDRESS")]
    pub listen: SocketAddr,

    #[command(flatten)]
    pub region: RegionName,

    /// Where others reach this region [default: what it listens on]
    #[arg(long)]
    pub url: Option<String>,

    #[command(flatten)]
    pub keys: KeyFolder,

    /// A SQLite file, or postgres://USER@HOST/NAME; a password comes from PGPASSFILE or with --database-file
    #[arg(long, default_value = "/var/lib/dormouse-control/region.db", value_name = "WHERE")]
    pub database: String,

    /// A file that holds the database's address, with its password
    #[arg(long, value_name = "FILE", conflicts_with = "database")]
    pub database_file: Option<PathBuf>,

    /// Redis for the shared index and for the events' streams; a password comes with --index-file
    #[arg(long, value_name = "redis://…")]
    pub index: Option<String>,

    /// A file that holds Redis's address, with its password
    #[arg(long, value_name = "FILE", conflicts_with = "index")]
    pub index_file: Option<PathBuf>,

    /// How long an entry of the index lives without being refreshed
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    pub index_ttl: Duration,

    /// The other regions, the nearest first: where a server goes for which there is no room here
    #[arg(long, value_name = "REGION", value_delimiter = ',')]
    pub nearest: Vec<String>,

    /// Other services that must answer a request for erasure
    #[arg(long = "erasure-service", value_name = "SERVICE", value_delimiter = ',')]
    pub erasure_services: Vec<String>,

    /// Where requests for erasure are noted beside the database [default: erasures-REGION.jsonl beside the keys' folder]
    ///
    /// Never restored with it: after a restore it says whom to erase again.
    #[arg(long, value_name = "FILE")]
    pub erasure_ledger: Option<PathBuf>,

    /// The database was just restored from a backup: go on after everything that was given since, and ask again for
    /// open erasures. Without it this is done if the ledger knows a request that the database doesn't
    #[arg(long)]
    pub restored: bool,

    /// Requests a second for one token; twice as many may come at once
    #[arg(long, default_value_t = 200, value_name = "NUMBER")]
    pub rate: u32,

    /// Where Prometheus scrapes /metrics, without TLS and token; nowhere unless said
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,

    #[command(flatten)]
    pub tls: Tls,
}

impl Serve {
    pub fn erasure_ledger(&self, region: &str) -> PathBuf {
        let beside_the_keys = || {
            let folder = self.keys.keys.parent().unwrap_or(Path::new("."));
            folder.join(format!("erasures-{region}.jsonl"))
        };
        self.erasure_ledger.clone().unwrap_or_else(beside_the_keys)
    }
}

#[derive(Debug, Args)]
pub struct Tls {
    /// Certificate chain (PEM); without it only a loopback address may be listened on
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    Tenant,
    Operator,
    Node,
    Service,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Tenant => Self::Tenant,
            RoleName::Operator => Self::Operator,
            RoleName::Node => Self::Node,
            RoleName::Service => Self::Service,
        }
    }
}

#[derive(Debug, Args)]
pub struct TokenOptions {
    #[command(flatten)]
    pub keys: KeyFolder,
    #[command(flatten)]
    pub region: RegionName,
    /// What it allows
    #[arg(long)]
    pub role: RoleName,
    /// Whose it is, for the log and the history
    #[arg(long, default_value = "operator")]
    pub subject: String,
    /// For the role tenant
    #[arg(long, required_if_eq("role", "tenant"))]
    pub tenant: Option<String>,
    /// For the role node
    #[arg(long, required_if_eq("role", "node"))]
    pub node: Option<String>,
    /// How long it holds; it cannot be called back
    #[arg(long = "for", value_name = "TIME", default_value = "15m", value_parser = humantime::parse_duration)]
    pub lives: Duration,
}

/// An address that may hold a password, out of the arguments or out of a file.
pub fn address(argument: &str, file: Option<&Path>) -> anyhow::Result<String> {
    if let Some(file) = file {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        return Ok(text.trim().to_owned());
    }
    let user = argument.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(user, _)| user);
    ensure!(
        !user.is_some_and(|user| user.contains(':')),
        "a password in an argument is for everybody to read: put the whole address into a file and name it with \
         --database-file or --index-file"
    );
    Ok(argument.to_owned())
}

/// Without TLS tokens are for everybody on the way to read.
pub fn tls_or_loopback(listen: SocketAddr, tls: &Tls) -> anyhow::Result<()> {
    if tls.tls_cert.is_none() && !listen.ip().is_loopback() {
        bail!("{listen} is not a loopback address: give --tls-cert and --tls-key");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_password_is_no_argument() {
        assert!(address("postgres://me:secret@host/db", None).is_err());
        assert!(address("postgres://me@host/db", None).is_ok());
        assert!(address("/var/lib/a:b@c.db", None).is_ok());
    }
}
