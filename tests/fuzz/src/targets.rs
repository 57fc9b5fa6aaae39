//! All that is fuzzed: one file for each crate whose decoders it feeds.

pub mod api;
pub mod catalog;
pub mod config;
mod envelope;
pub mod host_frames;
pub mod host_recovery;
pub mod host_wire;
pub mod journal;
pub mod kvdb;
pub mod nbd;
pub mod region_map;
pub mod transport;
pub mod volume;

use crate::target::Target;

/// Every target.
#[must_use]
pub fn all() -> Vec<Box<dyn Target>> {
    let mut all: Vec<Box<dyn Target>> = vec![
        Box::new(catalog::CatalogBytes),
        Box::new(catalog::Requests::new()),
        Box::new(catalog::Answers),
        Box::new(host_wire::Records),
        Box::new(host_wire::Messages),
        Box::new(host_wire::Copies),
        Box::new(host_frames::Frames::new()),
        Box::new(host_recovery::Starts::new()),
        Box::new(region_map::RegionMaps),
        Box::new(transport::Greetings),
        Box::new(transport::Frames),
        Box::new(transport::MixedFrames),
        Box::new(transport::Forwarding),
        Box::new(nbd::Clients::new()),
        Box::new(journal::Headers),
        Box::new(journal::Journals),
        Box::new(volume::Stores),
        Box::new(kvdb::Stores),
        Box::new(config::Configs),
    ];
    all.extend(kvdb::forms());
    all.extend(api::bodies());
    all
}
