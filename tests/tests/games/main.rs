//! The real servers with the real daemon and real clients, on a node as k3s builds it (root).

mod ddnet;
mod deep;
mod luanti;
mod minecraft;
mod stand;
mod swap;
