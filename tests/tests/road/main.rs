//! What may happen on the road to a sleeping server, with real sockets, namespaces and the real daemon. Many cases
//! share one node; each says how long it took and how many segments were sent again.

mod case;
mod loss;
mod neighbours;
mod redirected;
mod shapes;
mod streams;

/// A connection that was made before the doze wakes by its next word, as the generic profiles have it.
const LIMITS: &str = "old_links = \"wake\"\nloopback = \"wake\"\n";
