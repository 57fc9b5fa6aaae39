//! Groups of kvdb in one process, over disks that survive them and a network that can be cut.

mod cluster;
mod generations;
mod group;
