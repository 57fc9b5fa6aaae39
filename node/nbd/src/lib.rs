//! The NBD server: any block device behind the small trait [`Exports`], served to NBD clients over TCP and Unix sockets.
//!
//! It speaks the fixed newstyle of the public NBD protocol document
//! (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>), with structured replies and `base:allocation`,
//! and knows nothing of replication: who may serve, and for how long, is the business of the [`Exports`] behind it.
//!
//! A connection is two tasks. The *reader* haggles options, opens the export, and then turns headers and payloads into
//! [`Request`]s; each carries a [`Reply`], a one-shot that any thread may answer without blocking. The *writer* gathers
//! all replies that are ready into one vectored write. No lock and no task is shared between connections.
//!
//! Rules of the place:
//! * No byte from a client panics, hangs another client, or takes more memory than [`Limits`] allows it.
//! * A refused request leaves the stream in sync: its payload is read and thrown away. Where that can't be (a bad magic,
//!   a payload past [`PAYLOAD_DISCARDED_BYTES_MAX`]) the connection ends.
//! * Every admitted request is answered once: by the export, or with EIO when its [`Reply`] is dropped.
//! * A request takes its part of the connection's window until its reply is *written*, so a client that sends but does
//!   not read is stopped, not buffered.
//!
//! Reading order: [`export`] (the seam), [`reply`], then `wire` (numbers), `options` and `request` (pure parsers),
//! `handshake`, `transmission`, `writer`, `connection`, [`server`]; `passing` for what is served elsewhere.

mod connection;
pub mod export;
mod handshake;
mod inbound;
mod options;
mod passing;
pub mod reply;
mod request;
pub mod server;
mod transmission;
mod window;
mod wire;
mod writer;

pub use connection::Connection;
pub use export::{
    Agreement, BoxFuture, Command, Elsewhere, Export, ExportEntry, ExportInfo, Exports,
    PAYLOAD_BYTES_MAX, Refusal, RefusalKind, Request, Stream,
};
pub use reply::{Errno, Extent, Reply};
pub use request::PAYLOAD_DISCARDED_BYTES_MAX;
pub use server::{Address, Adopted, Adopter, Limits, Server};
