//! The whole way on one kernel, with the real daemon. The VM bench runs this on each of its kernels (tests/vm/wakes):
//! it wants pure cgroup v2 with the cpu and memory controllers, and swap.

mod door;
mod features;
mod roads;
mod stages;
mod stand;
