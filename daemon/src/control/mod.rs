//! The node's side of the control plane: it dials out, reports, follows the registry's thresholds if it is told to,
//! and carries out commands. Nothing here is on a packet's way, and without a control plane everything goes on as
//! it is (design §6).

mod back_off;
pub mod copy;
mod link;
mod orders;
mod pace;
mod report;

use std::path::PathBuf;
use std::sync::Arc;

use back_off::BackOff;
use link::{Link, LinkError};
use tokio::sync::watch;

use crate::config::Control;
use crate::socket::{Answer, Operator};

/// What the control plane alone asks of the node.
pub trait Node: Operator {
    /// Makes anonymous what the node knows of a person, of one tenant's servers or of all; how many things that were.
    ///
    /// The subject is opaque and no address tells whose it is: every player's address goes, not only this person's.
    fn erase(&self, subject: String, tenant: Option<String>) -> impl Future<Output = Answer<u64>> + Send;

    /// Changes with everything that the control plane wants to know at once.
    fn changes(&self) -> watch::Receiver<()>;
}

/// For ever. `follow`: `profiles_from = "control"`; `reload` reads the configuration again.
pub async fn run(
    control: Control,
    state_dir: PathBuf,
    follow: bool,
    node: Arc<impl Node>,
    reload: impl Fn() + Send + Sync + 'static,
) {
    let link = Link::new(control, &state_dir, follow, node, Box::new(reload));
    let mut link = match link {
        Ok(link) => link,
        Err(error) => {
            tracing::error!(%error, "the control plane is not asked; set it right and restart dormoused");
            return;
        }
    };
    let mut back_off = BackOff::default();
    loop {
        let Err(error) = link.session(&mut back_off).await;
        let wait = back_off.next();
        if let LinkError::Remote(dormouse_api::remote::RemoteError::Problem(problem)) = &error {
            tracing::warn!(%problem, ?wait, "the control plane refuses this node");
        } else {
            tracing::info!(%error, ?wait, "no control plane; servers sleep and wake all the same");
        }
        tokio::time::sleep(wait).await;
    }
}
