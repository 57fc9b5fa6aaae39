//! One replica on disk, and the maps of what a replica misses.
//!
//! Reading order: [`store`] (thin extents, checksums, checkpoints), [`region_map`].

pub mod region_map;
pub mod store;

pub use region_map::{RegionMap, RegionMapError};
pub use store::{
    BLOCKS_MAX, EXTENT_BLOCKS, StoreError, StoreEvent, StoreOp, TRANSFER_BLOCKS_MAX, VolumeSpec,
    VolumeStore,
};
