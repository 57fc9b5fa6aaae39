//! One replica on disk, and the maps of what a replica misses.
//!
//! Reading order: [`region_map`].

pub mod region_map;

pub use region_map::{RegionMap, RegionMapError};
