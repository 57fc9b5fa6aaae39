//! What the comparing bench is made of: servers whose CPU time is counted, fio's jobs and figures, and the table.
//!
//! Reading order: [`fio`], [`server`], [`table`].

pub mod fio;
pub mod server;
pub mod table;
