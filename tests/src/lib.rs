//! Checks of a whole cluster from outside: real `isthmusd` processes, real clients, real `kill -9`.
//!
//! A [`cluster::Cluster`] is three node processes on loopback, or each in a network namespace of its own with a
//! [`link`] between each two of them that can be slow, lossy or cut, one way or both. A [`load::Load`] writes through an
//! NBD client of our own ([`nbd`]) and keeps a [`history`] of what was acknowledged; every sector says which write it came
//! from ([`stamp`]), so that what is read later is known to be right, or to be lost, torn or taken from somewhere else.
//!
//! Reading order: [`cluster`], [`control`], [`nbd`], [`stamp`], [`history`], [`load`], [`verify`], [`link`], [`lossy`]; [`csi`]; [`mod@bench`]; and what they
//! stand on: [`binaries`], [`patience`], [`random`], [`tool`], [`turn`].

pub mod bench;
pub mod binaries;
pub mod cluster;
pub mod control;
pub mod csi;
pub mod history;
pub mod link;
pub mod load;
pub mod lossy;
pub mod nbd;
pub mod patience;
pub mod random;
pub mod stamp;
pub mod tool;
pub mod turn;
pub mod verify;

pub use cluster::Node;
