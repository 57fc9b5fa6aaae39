//! A disk in memory, from a seed: operations complete after a seeded time in any order, and a crash keeps, loses or
//! tears every write that no completed sync covers. Behind the same [`isthmus_journal::Disk`] seam as the real one.
//!
//! Reading order: [`random`], [`pages`] (sparse content), [`mod@file`] (stable and unsynced layers), [`failures`] (what
//! is to go wrong), [`disk`], [`shared`].

pub mod disk;
pub mod failures;
pub mod file;
pub mod pages;
pub mod random;
pub mod shared;

pub use disk::SimulatedDisk;
pub use failures::Operation;
pub use random::Random;
pub use shared::SharedDisk;
