//! What is asked of a server, before it reaches the database.

use dormouse_api::Problem;

use crate::names;
use crate::store::{Tx, args};

const ADDRESS_MOST: usize = 255;
/// 64 TiB: more is a mistake.
const MEMORY_MOST: u64 = 64 << 40;

/// What was asked for, found to be in form.
pub struct Checked {
    pub profile: Option<String>,
    pub address: Option<String>,
    pub node: Option<String>,
}

impl Checked {
    pub fn of(
        profile: Option<&str>,
        memory_bytes: Option<u64>,
        address: Option<&str>,
        node: Option<&str>,
    ) -> Result<Self, Problem> {
        if memory_bytes.is_some_and(|bytes| bytes > MEMORY_MOST) {
            return Err(Problem::bad_field("memory_bytes", format!("memory_bytes is at most {MEMORY_MOST}")));
        }
        Ok(Self {
            profile: profile.map(|profile| names::plain("profile", profile)).transpose()?,
            address: address.map(|address| names::title("address", address, ADDRESS_MOST)).transpose()?,
            node: node.map(|node| names::plain("node", node)).transpose()?,
        })
    }

    /// The profile and the node are there.
    pub async fn exists(&self, tx: &mut Tx) -> Result<(), Problem> {
        if let Some(profile) = &self.profile
            && tx.row("SELECT name FROM profile WHERE name = $1", &args![profile]).await?.is_none()
        {
            let remedy = "`dormouse profile list --control …` lists the profiles";
            return Err(
                Problem::bad_field("profile", format!("no profile is called {profile}")).with_remedy(remedy)
            );
        }
        if let Some(node) = &self.node
            && tx.row("SELECT name FROM node WHERE name = $1", &args![node]).await?.is_none()
        {
            return Err(Problem::bad_field("node", format!("no node is called {node}")));
        }
        Ok(())
    }
}
