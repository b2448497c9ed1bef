//! Who a region is for and who may speak to it: tenants and stored keys.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context as _;
use dormouse_api::path;
use dormouse_api::registry::login::{CreatedKey, Key, NewKey, Role};
use dormouse_api::registry::tenant::{NewTenant, Tenant};
use hyper::Method;

use super::Asks;
use crate::args::{KeysVerb, TenantsVerb};
use crate::output;
use crate::render::table::table;
use crate::units::Clock;

pub async fn tenants(asks: &Asks, verb: TenantsVerb) -> anyhow::Result<()> {
    let list = |tenants: &[Tenant]| {
        let row = |one: &Tenant| [one.id.clone(), one.title.clone(), one.server_limit.to_string()];
        table(["TENANT", "TITLE", "SERVERS AT MOST"], &tenants.iter().map(row).collect::<Vec<_>>())
    };
    match verb {
        TenantsVerb::List => {
            let tenants: Vec<Tenant> = asks.all("/v1/tenants").await?;
            asks.print(&tenants, |tenants| list(tenants))
        }
        TenantsVerb::Add { tenant, title, servers } => {
            let new = NewTenant { id: tenant, title, server_limit: servers };
            let added: Tenant = asks.remote.call(Method::POST, "/v1/tenants", Some(&new)).await?;
            asks.print(&added, |added| list(std::slice::from_ref(added)))
        }
    }
}

pub async fn keys(asks: &Asks, verb: KeysVerb) -> anyhow::Result<()> {
    match verb {
        KeysVerb::List => {
            let keys: Vec<Key> = asks.all("/v1/keys").await?;
            asks.print(&keys, |keys| list(keys))
        }
        KeysVerb::Add { title, node, tenant, service, operator: _, secret_file } => {
            let role = match (&node, &tenant, service) {
                (Some(_), ..) => Role::Node,
                (_, Some(_), _) => Role::Tenant,
                (.., true) => Role::Service,
                _ => Role::Operator,
            };
            // First the file: a key whose secret nobody has is of no use.
            let cannot = || format!("cannot write the new file {}", secret_file.display());
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&secret_file)
                .with_context(cannot)?;
            let new = NewKey { title, role, tenant, node };
            let made: Result<CreatedKey, _> = asks.remote.call(Method::POST, "/v1/keys", Some(&new)).await;
            let made = made.inspect_err(|_| remove(&secret_file))?;
            writeln!(file, "{}", made.secret).and_then(|()| file.sync_all()).with_context(cannot)?;
            asks.print(&made.key, |key| list(std::slice::from_ref(key)))
        }
        KeysVerb::Remove { key } => {
            let path = format!("/v1/keys/{}", path::encode(&key));
            asks.remote.call::<()>(Method::DELETE, &path, None::<&()>).await?;
            Ok(output::text(&format!("{key}  removed\n"))?)
        }
    }
}

fn remove(file: &Path) {
    // It is empty, and ours.
    let _ = std::fs::remove_file(file);
}

fn list(keys: &[Key]) -> String {
    let clock = Clock::now();
    let row = |one: &Key| {
        [
            one.id.clone(),
            one.title.clone(),
            one.role.name().to_owned(),
            one.node.clone().or_else(|| one.tenant.clone()).unwrap_or_else(|| "-".to_owned()),
            clock.minute(one.created_at_ms),
        ]
    };
    table(["KEY", "TITLE", "ROLE", "WHOSE", "MADE"], &keys.iter().map(row).collect::<Vec<_>>())
}
