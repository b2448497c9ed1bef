//! A real node and a real control plane.

mod erasure;
mod obeys;
mod operator;
mod plane;
mod redeploy;
mod region;
