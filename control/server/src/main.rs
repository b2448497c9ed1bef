//! `dormouse-control`
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use dormouse_control::auth::keys::{self, KeyRing};
use dormouse_control::auth::token::{Grant, sign};
use dormouse_control::config::{Cli, KeyVerb, TokenOptions, Verb};
use dormouse_control::{http, serve};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("DORMOUSE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(cli.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dormouse-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Serve(options) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?
            .block_on(serve::run(*options)),
        Verb::Token(options) => token(&options),
        Verb::Key(KeyVerb::New { keys }) => {
            println!("{}", keys::create(&keys.keys)?);
            Ok(())
        }
        Verb::Openapi => {
            println!("{}", http::document().to_pretty_json()?);
            Ok(())
        }
    }
}

fn token(options: &TokenOptions) -> anyhow::Result<()> {
    let ring = KeyRing::open(&options.keys.keys)?;
    let grant = Grant {
        subject: &options.subject,
        region: &options.region.region,
        role: options.role.into(),
        tenant: options.tenant.as_deref(),
        node: options.node.as_deref(),
        lives: options.lives,
    };
    let (token, _) = sign(&ring.keys(), &grant)?;
    println!("{token}");
    Ok(())
}
