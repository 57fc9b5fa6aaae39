//! What the comparing bench is made of: servers whose CPU time is counted, fio's jobs and figures, the floor, and the table.
//!
//! Reading order: [`fio`], [`server`], [`floor`], [`table`], [`picture`].

pub mod fio;
pub mod floor;
pub mod picture;
pub mod server;
pub mod table;
