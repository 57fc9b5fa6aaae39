//! The admin API: JSON over plain HTTP on loopback addresses, for `domain-ctl` and programs. Any node serves it.
//!
//! What is read is confirmed by a majority of kvdb's voters where one is reachable in time; else it is what this node knows,
//! and says so. What is changed is a command for kvdb, applied once per request id.
//!
//! Reading order: [`access`] (the seam: all that the API needs of the cluster), [`server`] (sockets, limits), [`routes`]
//! (paths), [`reads`], [`changes`], [`modify`], [`places`], [`members`] (handlers), [`facts`] with [`replicas`], [`volumes`], [`domains`], [`nodes`], [`links`],
//! [`verdict`] and [`explain`] (pure: how the answers come about), [`input`] and [`errors`].

pub mod access;
mod changes;
mod domains;
mod errors;
mod explain;
pub mod facts;
mod failovers;
mod input;
mod links;
mod members;
mod modify;
mod nodes;
mod places;
mod reads;
mod recovery;
mod replicas;
pub mod routes;
pub mod server;
mod verdict;
mod volumes;

#[cfg(test)]
pub(crate) mod tests;
