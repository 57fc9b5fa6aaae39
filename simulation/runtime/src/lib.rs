//! A runtime for openraft and kvdb in one thread, from a seed: time is told from outside, tasks run in an order of the seed, and all
//! of a process ends at once, in the middle of whatever it did.
//!
//! * One [`Executor`] is one process: its tasks, its timers, its clock. Many of them, also of several simulations, share a thread or not;
//!   none of them ever waits for another.
//! * openraft reaches its runtime by static methods, so the executor that polls is kept in a thread-local variable meanwhile.
//! * The channels that carry what happens are tokio's (`tokio::sync`), as in what ships; but for the watch, which in tokio wakes
//!   its receivers in an order that is not ours to seed.
//!
//! Reading order: [`executor`] (tasks and time), [`timing`], [`mod@watch`], [`runtime`] (all of it as openraft's `AsyncRuntime`).

pub mod executor;
pub mod runtime;
pub mod timing;
pub mod watch;

pub use executor::Executor;
pub use runtime::SimulatedRuntime;
