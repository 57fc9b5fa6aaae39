//! The store over a simulated disk.

mod crashes;
mod faults;
mod ordering;
mod rig;
mod space;
