//! The fault table: for each fault, what must happen, with real processes. The number in a test's name is the row.
//!
//! | row | fault | file |
//! | --- | --- | --- |
//! | 1, 2, 3, 5 | nodes and sites die | [`sites`] |
//! | 4, 6, 7, 8, 9 | links between sites are cut, lossy or slow; the witness is away | [`links`]; what is done about slow ones: [`latency`] |
//! | 10, 11 | the power goes at both sites | [`power`]; for volumes with `--durability flush`: [`flush`] |
//! | 12, 13, 14 | disks rot, fail, are full | [`disks`] |
//! | 15 | a crash at any step | [`crashes`] |
//! | 16, 23 | a site comes back | [`returning`] |
//! | 17, 18 | clocks jump, a process stops for a while | [`clocks`] |
//! | 19 | peers that talk nonsense | [`peers`] |
//! | 21, 22 | rolling restarts, kvdb without leader or quorum | [`restarts`] |
//! | 24 | a disk is emptied, replaced or rolled back | [`replaced`] |
//!
//! What can't be made from outside is made in the engine's tests and the simulator; `docs/reliability.md` lists all rows.

mod clocks;
mod crashes;
mod disks;
mod flush;
mod latency;
mod links;
mod peers;
mod power;
mod replaced;
mod restarts;
mod returning;
mod sites;
