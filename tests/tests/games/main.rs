//! The real servers with the real daemon and real clients, on a node as k3s builds it (root).

mod ddnet;
mod luanti;
mod minecraft;
mod stand;
