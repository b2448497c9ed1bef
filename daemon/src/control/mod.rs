//! The node's side of the control plane: it dials out, reports, follows the registry's thresholds if it is told to,
//! and carries out commands. Nothing here is on a packet's way, and without a control plane everything goes on as
//! it is (design §6).

mod back_off;
pub mod copy;
mod link;
mod orders;
mod report;

use std::path::PathBuf;
use std::sync::Arc;

use back_off::BackOff;
use link::{Link, LinkError};

use crate::config::Control;
use crate::socket::Operator;

/// For ever. `follow`: `profiles_from = "control"`; `reload` reads the configuration again.
pub async fn run(
    control: Control,
    state_dir: PathBuf,
    follow: bool,
    operator: Arc<impl Operator>,
    reload: impl Fn() + Send + Sync + 'static,
) {
    let link = Link::new(control, &state_dir, follow, operator, Box::new(reload));
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
