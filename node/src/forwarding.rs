//! A node without a store (role `diskless`) forwards its NBD clients to the volumes' primaries.
//!
//! ```text
//!   client ──NBD──► diskless node ──a tunnel (TLS over TCP) for each client──► primary's NBD server ──► host
//! ```
//!
//! The handshake is made by the diskless node; what follows are the client's own bytes, which it passes on both ways without a look. At the
//! primary a forwarded client is one of its NBD server's: attached, counted, answered and sent away as those that came there.
//!
//! Invariants (decision 21):
//! * An attachment is of one primary's time in office: it is asked for under the epoch that both nodes know, and ends when the primary steps
//!   down, when either process ends, and when the session between the two nodes does. A request of an attachment that is over is not taken.
//! * Nothing is ever sent again by the diskless node: what was not answered when an attachment ends is the client's to ask for again, as when
//!   a primary that it came to directly steps down.
//! * The primary, not the diskless node, decides whose requests are taken: by the domain of the node that forwards (I8), and by the volume's
//!   publication.
//!
//! Modules in reading order: `places` (where to ask), `exports` (a diskless node's volumes), `diskless` (its data path), `taking` (the primary's side).

mod diskless;
mod exports;
mod places;
mod taking;

pub use diskless::Diskless;
pub use taking::Taker;
