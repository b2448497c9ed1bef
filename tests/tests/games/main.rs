//! The real servers with the real daemon and real clients, on a node as k3s builds it (root).

mod changes;
mod ddnet;
mod deep;
mod limits;
mod links;
mod luanti;
mod minecraft;
mod observe;
mod stand;
