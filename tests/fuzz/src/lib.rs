//! Fuzzing: bytes that nobody meant, for every decoder that takes bytes from outside.
//!
//! `cargo run --release -p fuzz -- --cases 1000000` runs with inputs from valid ones by mutation; `tests/fuzz/run` does the same
//! with coverage (our own crates are built with counters on their edges), and keeps what reaches new code to go on from, as AFL and
//! libFuzzer do. Both stop at the first broken rule, keep the input in `tests/fuzz/found/`, and say how to run it again. Whatever is
//! in that folder is run by `cargo test -p fuzz`, and a few ten thousand fresh cases with it.
//!
//! Rules for each target: no panic; memory and time within bounds; what the crate's own encoder made is accepted; a wrong bit in
//! what is sealed by a checksum is refused; so is what is cut off; what was accepted encodes to what it was, where the form is
//! canonical, and to something that decodes to the same anywhere else. Stores must be usable after they were opened.
//!
//! `tests/planted.rs` shows that the loop finds what it looks for. Reading order: [`target`], [`targets`], [`mutate`], [`runner`], then what it measures with: [`allocation`], [`coverage`],
//! [`current`]; [`memory_disk`] and [`chunks`] serve the targets that read a disk.

pub mod allocation;
pub mod chunks;
pub mod coverage;
pub mod current;
pub mod memory_disk;
pub mod mutate;
pub mod random;
pub mod runner;
pub mod target;
pub mod targets;
