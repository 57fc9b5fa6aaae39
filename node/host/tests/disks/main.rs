//! What a disk's faults come to, with two hosts: fault table rows 12 (bad blocks), 13 (a disk full or failing on one side) and 14 (full on both).
//! And, over the same two, what a host counts and times (`figures`).

#![allow(clippy::unwrap_used)] // all of this is a test, but clippy sees no test function around the helpers

mod blocks;
mod faults;
mod figures;
mod growth;
mod journal;
mod space;
mod world;
