//! The Container Storage Interface, version 1.11, as far as `isthmus-csi` serves it: messages, servers and clients, made from
//! `proto/csi.proto`.
//!
//! That file is ours, wire-compatible with the public specification
//! (<https://github.com/container-storage-interface/spec>): the same names and numbers, without what we do not serve (snapshots,
//! groups, metadata: a call of these is answered with UNIMPLEMENTED). What a message means is said there.

/// Package `csi.v1`.
#[allow(
    missing_docs,
    clippy::all,
    reason = "generated; the specification is its documentation"
)]
pub mod v1 {
    tonic::include_proto!("csi.v1");
}
