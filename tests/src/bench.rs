//! What the benches are made of: servers whose CPU time is counted, fio's jobs and figures, the floor, many volumes, and tables.
//!
//! Reading order: [`fio`], [`server`], [`floor`], [`table`], [`picture`], [`http`], [`volumes`], [`foreground`], [`kvdb_member`],
//! [`kvdb_rivals`].

pub mod fio;
pub mod floor;
pub mod foreground;
pub mod http;
pub mod kvdb_member;
pub mod kvdb_rivals;
pub mod picture;
pub mod server;
pub mod table;
pub mod volumes;
