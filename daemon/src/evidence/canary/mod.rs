//! Did the server survive its wake? A watchdog strikes at the first tick after a thaw, and the process may take
//! seconds to die of it, answering queries meanwhile: so it is watched for the whole grace.

mod status;
#[cfg(fuzzing)]
pub use status::fuzz as fuzz_status;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::config::{PortSpec, Ready, Server, Transport};
use crate::discover::process::ProcessId;
use crate::discover::sockets::Sockets;

/// Unless said otherwise. A JVM's crash report takes seconds.
pub const GRACE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// For one status query; the first after a deep sleep waits for the disk.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    Failed { reason: String },
}

/// What is watched.
pub struct Canary<'a> {
    pub server: &'a Server,
    /// As it was before the wake: a restarted server has not survived.
    pub main: ProcessId,
    /// The server's ports, as found.
    pub ports: &'a [PortSpec],
    /// Where the server's own network namespace takes status queries from the node.
    pub address: IpAddr,
    /// How long a server that is ready is watched.
    pub grace: Duration,
    /// How long it may take to be ready: a world that is being loaded for the player who woke it keeps a
    /// server from its sockets for seconds on a busy machine.
    pub patience: Duration,
}

impl Canary<'_> {
    /// Watches until it was ready and the grace is over, or the process is gone. `sockets` lists those of the server's
    /// namespace; it may block.
    pub async fn watch<E: fmt::Display>(
        &self,
        sockets: impl Fn() -> Result<Sockets, E> + Send + Sync + 'static,
    ) -> Outcome {
        let sockets = Arc::new(sockets);
        let started = Instant::now();
        let settled = started + self.grace;
        let patience = started + self.patience.max(self.grace);
        let mut queues = Queues::default();
        let mut ready = Err("it was not looked at".to_owned());
        loop {
            let (main, sockets) = (self.main, Arc::clone(&sockets));
            let wants_sockets = ready.is_err() && self.server.profile.ready != Ready::Alive;
            let look = move || {
                let seen = if wants_sockets {
                    sockets().map_err(|error| error.to_string())
                } else {
                    Ok(Sockets::default())
                };
                (main.is_alive(), seen)
            };
            let (alive, seen) = match tokio::task::spawn_blocking(look).await {
                Ok(looked) => looked,
                Err(error) => {
                    return Outcome::Failed { reason: format!("it could not be looked at: {error}") };
                }
            };
            if !alive {
                let after = started.elapsed().as_secs();
                return Outcome::Failed {
                    reason: format!("its process {} died {after} s after the wake", main.pid),
                };
            }
            if Instant::now() >= if ready.is_ok() { settled } else { patience } {
                break;
            }
            if ready.is_err() {
                ready = match seen {
                    Ok(seen) => self.is_ready(&seen, &mut queues, patience).await,
                    Err(why) => Err(format!("its sockets can't be listed: {why}")),
                };
            }
            let deadline = if ready.is_ok() { settled } else { patience };
            sleep_until(deadline.min(Instant::now() + LOOK_EVERY)).await;
        }
        match ready {
            Ok(()) => Outcome::Ok,
            Err(reason) => Outcome::Failed { reason },
        }
    }

    async fn is_ready(&self, seen: &Sockets, queues: &mut Queues, deadline: Instant) -> Result<(), String> {
        if self.server.profile.ready == Ready::Alive {
            return Ok(());
        }
        for &port in self.ports {
            queues.look(seen, port)?;
        }
        if self.server.profile.ready == Ready::Status {
            for &port in self.ports {
                let query = status::ask(self.server.game(port), SocketAddr::new(self.address, port.port));
                let within = deadline.min(Instant::now() + ANSWER_WITHIN);
                match timeout_at(within, query).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(format!("its status query on {port} failed: {error}")),
                    Err(_) => return Err(format!("it doesn't answer a status query on {port}")),
                }
            }
        }
        Ok(())
    }
}

/// What waited on each port at the last look.
#[derive(Default)]
struct Queues(HashMap<PortSpec, u64>);

impl Queues {
    /// Whether the port has its socket, and what waits there is nothing or less than before.
    fn look(&mut self, seen: &Sockets, port: PortSpec) -> Result<(), String> {
        let waiting: Vec<u32> = match port.transport {
            Transport::Tcp => seen.listeners_on(&[port.port]).map(|listener| listener.accept_queue).collect(),
            Transport::Udp => {
                let bound = seen.udp.iter().filter(|socket| socket.local.port() == port.port);
                bound.map(|socket| socket.unread).collect()
            }
        };
        if waiting.is_empty() {
            return Err(format!("nobody listens on {port}"));
        }
        let now = waiting.iter().copied().map(u64::from).sum();
        let before = self.0.insert(port, now);
        if now == 0 || before.is_some_and(|before| now < before) {
            return Ok(());
        }
        Err(match port.transport {
            Transport::Tcp => format!("{now} connections wait on {port} and none is accepted"),
            Transport::Udp => format!("datagrams wait on {port} and none is read"),
        })
    }
}

#[cfg(test)]
mod tests;
