//! The journal over the simulated disk: crashes, damage, bounds and decoders.

mod crash;
mod damage;
mod decoder;
mod world;
