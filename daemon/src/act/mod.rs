//! What dormouse does to a server: the calls on its cgroup, one module a kind. None of them decides anything.

pub mod doze;
pub mod freezer;
pub mod throttle;
