//! Contexts: control planes by name, each with the key that logs in there. The token is kept beside it until it ends.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use dormouse_api::registry::login::{Login as Request, Token};
use dormouse_api::remote::Remote;
use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::args::Login;
use crate::exit::Usage;
use crate::output;

/// A token that ends within this is not used any more.
const MARGIN_MS: u64 = 30_000;

#[derive(Default, Serialize, Deserialize)]
struct Contexts(BTreeMap<String, Context>);

#[derive(Clone, Serialize, Deserialize)]
struct Context {
    url: String,
    key: String,
    secret_file: PathBuf,
    ca: Option<PathBuf>,
    token: Option<Token>,
}

/// `$XDG_CONFIG_HOME/dormouse/contexts.json` (XDG Base Directory Specification).
fn file() -> anyhow::Result<PathBuf> {
    let folder = env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let folder = folder.or_else(home).context("neither XDG_CONFIG_HOME nor HOME is set")?;
    Ok(folder.join("dormouse/contexts.json"))
}

fn load(file: &Path) -> anyhow::Result<Contexts> {
    match fs::read(file) {
        Ok(text) => serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged: log in again after removing it", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Contexts::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Replaced in one step, and for its owner's eyes only: it holds tokens.
fn save(file: &Path, contexts: &Contexts) -> anyhow::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let new = file.with_extension(format!("new-{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut handle =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        handle.write_all(&serde_json::to_vec_pretty(contexts)?)?;
        handle.sync_all()?;
        fs::rename(&new, file)
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}

pub async fn login(login: &Login) -> anyhow::Result<()> {
    let absolute =
        |path: &PathBuf| fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()));
    let mut context = Context {
        url: login.url.clone(),
        key: login.key.clone(),
        secret_file: absolute(&login.secret_file)?,
        ca: login.ca.as_ref().map(absolute).transpose()?,
        token: None,
    };
    context.token = Some(fresh(&context).await?);
    let file = file()?;
    let mut contexts = load(&file)?;
    contexts.0.insert(login.context.clone(), context);
    save(&file, &contexts)?;
    Ok(output::text(&format!("logged in; use it with --control {}\n", login.context))?)
}

/// A token for the key, from the control plane.
async fn fresh(context: &Context) -> anyhow::Result<Token> {
    let secret = fs::read_to_string(&context.secret_file)
        .with_context(|| format!("cannot read the secret in {}", context.secret_file.display()))?;
    let request = Request { key: context.key.clone(), secret: secret.trim().to_owned() };
    let remote = Remote::new(&context.url, context.ca.as_deref())?;
    Ok(remote.call(Method::POST, "/v1/login", Some(&request)).await?)
}

/// The control plane of a context, or of an address with the token in the file that DORMOUSE_TOKEN_FILE names.
pub async fn remote(which: &str) -> anyhow::Result<Remote> {
    if which.contains("://") {
        let Some(file) = env::var_os("DORMOUSE_TOKEN_FILE") else {
            let why =
                "an address alone is no login: name a context (`dormouse login`), or set DORMOUSE_TOKEN_FILE";
            return Err(Usage(why.to_owned()).into());
        };
        let token = fs::read_to_string(&file)
            .with_context(|| format!("cannot read the token in {}", Path::new(&file).display()))?;
        return Ok(Remote::new(which, None)?.with_token(token.trim()));
    }
    let file = file()?;
    let mut contexts = load(&file)?;
    let Some(context) = contexts.0.get_mut(which) else {
        let known: Vec<_> = contexts.0.keys().cloned().collect();
        bail!("no context is called {which}; there are: {}", known.join(", "));
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let token = match &context.token {
        Some(token) if token.expires_at_ms > now_ms + MARGIN_MS => token.token.clone(),
        _ => {
            let token = fresh(context).await?;
            context.token = Some(token.clone());
            let (url, ca) = (context.url.clone(), context.ca.clone());
            save(&file, &contexts)?;
            return Ok(Remote::new(&url, ca.as_deref())?.with_token(token.token));
        }
    };
    Ok(Remote::new(&context.url, context.ca.as_deref())?.with_token(token))
}
