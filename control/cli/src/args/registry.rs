//! The verbs that only a control plane answers.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::duration;

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
