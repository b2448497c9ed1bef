//! Running: opens everything, listens, works, and stops in order.

mod housekeeping;
mod listen;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::app::{App, Parts, Region};
use crate::auth::keys::{KeyRing, RELOAD};
use crate::bus::{sequence, stream};
use crate::config::{self, Serve};
use crate::erasure::ledger::Ledger;
use crate::index::writer::{self, Writer};
use crate::index::{Index, refresh, regions};
use crate::store::Db;
use crate::{deliver, erasure, http, metrics, names, thresholds};

/// What is under way at SIGTERM has this long.
const FAREWELL: Duration = Duration::from_secs(10);

pub async fn run(options: Serve) -> anyhow::Result<()> {
    config::tls_or_loopback(options.listen, &options.tls)?;
    ensure!(options.rate > 0, "--rate 0 would refuse everybody");
    let region = names::plain("region", &options.region.region)?;
    let tls = listen::tls(&options.tls)?;
    let database = config::address(&options.database, options.database_file.as_deref())?;
    let db = Db::open(&database).await.context("cannot open the database")?;
    thresholds::shipped::seed(&db).await?;
    let erasure_services = erasure_services(&options.erasure_services)?;
    let erasure_ledger = Ledger::at(&options.erasure_ledger(&region));
    erasure::restore::run(&db, &erasure_ledger, &erasure_services, options.restored)
        .await
        .context("cannot ask again for the erasures that a restored database has forgotten")?;
    let keys = KeyRing::open(&options.keys.keys)?;
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let address = listener.local_addr()?;
    let scrapes = match options.metrics_listen {
        Some(address) => Some(metrics::bind(address).await?),
        None => None,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = options.url.clone().unwrap_or_else(|| format!("{scheme}://{address}"));
    let redis = redis(&options)?;
    let (writer, entries) = Writer::new();
    let index = redis.as_ref().map(|client| Index::new(client, options.index_ttl)).transpose()?;
    let app = Arc::new(App::new(Parts {
        db,
        region: Region { name: region, url },
        keys,
        rate: options.rate,
        redis,
        index: index.clone().map(|index| (index, writer.clone())),
        nearest: options
            .nearest
            .iter()
            .map(|name| names::plain("nearest", name))
            .collect::<Result<_, _>>()?,
        erasure_services,
        erasure_ledger,
    }));

    let (stop, stopped) = watch::channel(());
    let mut workers = tokio::task::JoinSet::new();
    workers.spawn(reload_keys(app.clone()));
    workers.spawn(housekeeping::run(app.clone()));
    workers.spawn(deliver::look(app.clone()));
    workers.spawn(sequence::run(app.clone()));
    if let Some(scrapes) = scrapes {
        let app = app.clone();
        workers.spawn(async move {
            if let Err(error) = metrics::serve(scrapes, app).await {
                tracing::error!(%error, "metrics are no longer served");
            }
        });
    }
    match app.redis.clone() {
        Some(client) => {
            workers.spawn(stream::run(app.clone(), client.clone()));
            workers.spawn(erasure::consume::from_stream(app.clone(), client));
        }
        None => {
            workers.spawn(erasure::consume::from_outbox(app.clone()));
        }
    }
    if let Some(index) = index {
        workers.spawn(writer::run(index.clone(), entries, writer.dropped.clone()));
        workers.spawn(refresh::run(app.clone(), index.clone()));
        workers.spawn(regions::run(app.clone(), index));
    }
    let router = http::router(app.clone());
    let listening = tokio::spawn(listen::run(listener, tls, router, stopped));
    // Scripts and tests wait for this line.
    println!("listening on {scheme}://{address}");
    tracing::info!(%address, region = app.region.name, "ready");

    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("stopping");
    app.stopping.send_replace(true);
    drop(stop);
    if tokio::time::timeout(FAREWELL, listening).await.is_err() {
        tracing::warn!("requests that did not end are cut off");
    }
    workers.shutdown().await;
    app.db.close().await;
    Ok(())
}

fn redis(options: &Serve) -> anyhow::Result<Option<redis::Client>> {
    if options.index.is_none() && options.index_file.is_none() {
        return Ok(None);
    }
    let url = config::address(options.index.as_deref().unwrap_or_default(), options.index_file.as_deref())?;
    let client = redis::Client::open(url).context("--index is no address of a Redis")?;
    Ok(Some(client))
}

/// The control plane itself, and those that were named.
fn erasure_services(named: &[String]) -> anyhow::Result<Vec<String>> {
    let mut services = vec![erasure::OWN.to_owned()];
    for name in named {
        services.push(names::plain("erasure-service", name)?);
    }
    services.sort();
    services.dedup();
    Ok(services)
}

async fn reload_keys(app: Arc<App>) {
    let mut ticks = tokio::time::interval(RELOAD);
    loop {
        ticks.tick().await;
        let app = app.clone();
        // Files: not on a worker of the runtime.
        if tokio::task::spawn_blocking(move || app.reload_keys()).await.is_err() {
            tracing::error!("reading the keys panicked");
        }
    }
}
