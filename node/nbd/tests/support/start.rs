//! A server on a free port, over exports in memory.

#![allow(
    clippy::unwrap_used,
    reason = "a test may fail loudly in its helpers, too"
)]

use crate::memory::{Memory, MemoryExports};
use isthmus_nbd::{Address, Limits, Server};
use std::sync::Arc;

pub struct Started {
    pub server: Server,
    pub exports: Arc<MemoryExports>,
    pub port: u16,
}

/// Serves the memories under their names.
pub async fn start(memories: Vec<(&str, Memory)>, limits: Limits) -> Started {
    let memories = memories
        .into_iter()
        .map(|(name, memory)| (name.to_owned(), Arc::new(memory)))
        .collect();
    let exports = Arc::new(MemoryExports {
        memories,
        ..MemoryExports::default()
    });
    let anywhere = Address::Tcp("127.0.0.1:0".parse().unwrap());
    let server = Server::start(&[anywhere], exports.clone(), limits)
        .await
        .unwrap();
    let Address::Tcp(address) = server.addresses()[0].clone() else {
        panic!("a TCP server has a TCP address");
    };
    Started {
        server,
        exports,
        port: address.port(),
    }
}

impl Started {
    pub fn memory(&self, name: &str) -> &Arc<Memory> {
        &self.exports.memories[name]
    }

    pub fn uri(&self, name: &str) -> String {
        format!("nbd://127.0.0.1:{}/{name}", self.port)
    }
}
