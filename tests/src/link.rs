//! A small link emulator: each node in a network namespace of its own, and between each two of them a link that can be slow,
//! lossy or cut, one way or both, changed while packets fly.
//!
//! Each namespace has one TUN device. A thread for each reads the packets that its node sends, looks at their destination,
//! and has them delivered at the destination's TUN device when their time has come. Nothing of it depends on what the kernel's
//! traffic control can do. Needs root.
//!
//! Reading order: [`namespace`], [`tun`], [`switch`].

pub mod namespace;
pub mod switch;
pub mod tun;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// How one direction between two nodes is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Condition {
    /// How long a packet takes.
    pub delay: Duration,
    /// How many of a thousand packets are lost.
    pub lost_per_mille: u32,
    /// How many of a thousand packets come twice.
    pub doubled_per_mille: u32,
    /// How much longer a packet may take, by chance: what was sent later may overtake it.
    pub jitter: Duration,
    /// Whether nothing gets through.
    pub cut: bool,
}

impl Condition {
    /// A perfect link.
    pub const GOOD: Condition = Condition {
        delay: Duration::ZERO,
        lost_per_mille: 0,
        doubled_per_mille: 0,
        jitter: Duration::ZERO,
        cut: false,
    };
    /// No link.
    pub const CUT: Condition = Condition {
        delay: Duration::ZERO,
        lost_per_mille: 0,
        doubled_per_mille: 0,
        jitter: Duration::ZERO,
        cut: true,
    };

    /// A link that loses this many of a thousand packets.
    #[must_use]
    pub const fn lossy(per_mille: u32) -> Condition {
        Condition {
            lost_per_mille: per_mille,
            ..Condition::GOOD
        }
    }

    /// A link on which a packet takes this long.
    #[must_use]
    pub const fn slow(delay: Duration) -> Condition {
        Condition {
            delay,
            ..Condition::GOOD
        }
    }

    /// A link on which one packet in three comes twice, and each takes up to this long.
    #[must_use]
    pub const fn disordered(jitter: Duration) -> Condition {
        Condition {
            jitter,
            doubled_per_mille: 333,
            ..Condition::GOOD
        }
    }
}

/// The address of a node in its namespace; `node` counts from 0.
///
/// # Panics
/// When `node` is over 200.
#[must_use]
pub fn address(node: usize) -> IpAddr {
    assert!(node <= 200, "there is no address for node {node}");
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, node as u8 + 1))
}
