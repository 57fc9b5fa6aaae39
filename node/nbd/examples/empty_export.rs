//! What the NBD server itself costs: an export that answers at once, to be measured with fio.
//!
//!     cargo run --release -p isthmus-nbd --example empty_export -- 10899 [null|memory]
//!     fio --name=m --ioengine=nbd --uri=nbd://127.0.0.1:10899/empty --rw=randwrite --bs=4k --iodepth=32 --time_based --runtime=5

#[path = "../tests/support/memory.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod memory;

use bytes::Bytes;
use isthmus_nbd::{
    Address, BoxFuture, Command, Connection, Export, ExportEntry, ExportInfo, Exports, Extent,
    Limits, Refusal, Reply, Request, Server,
};
use memory::{Memory, MemoryExports};
use std::sync::Arc;

const EXPORT_BYTES: u64 = 1 << 30;

/// Takes every write and forgets it; reads as zeroes.
struct Null {
    zeroes: Bytes,
}

impl Export for Null {
    fn info(&self) -> ExportInfo {
        Memory::new(EXPORT_BYTES, 4096).info
    }

    fn submit(&self, request: Request, reply: Reply) {
        match request.command {
            Command::Read => reply.data(self.zeroes.slice(..request.length as usize)),
            Command::BlockStatus { .. } => {
                reply.status(vec![Extent {
                    bytes: request.length,
                    hole: true,
                    zero: true,
                }]);
            }
            Command::Write { .. }
            | Command::Flush
            | Command::Trim
            | Command::WriteZeroes { .. }
            | Command::Cache => reply.done(),
        }
    }
}

struct NullExports(Arc<Null>);

impl Exports for NullExports {
    fn list(&self) -> Vec<ExportEntry> {
        vec![ExportEntry {
            name: "empty".to_owned(),
            description: String::new(),
        }]
    }

    fn info<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<ExportInfo, Refusal>> {
        Box::pin(async { Ok(self.0.info()) })
    }

    fn open<'a>(
        &'a self,
        _: &'a str,
        _: Connection,
    ) -> BoxFuture<'a, Result<Arc<dyn Export>, Refusal>> {
        Box::pin(async { Ok(self.0.clone() as Arc<dyn Export>) })
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments
        .next()
        .and_then(|port| port.parse().ok())
        .unwrap_or(10899);
    let exports: Arc<dyn Exports> = if arguments.next().as_deref() == Some("memory") {
        let memories = [(
            "empty".to_owned(),
            Arc::new(Memory::new(EXPORT_BYTES, 4096)),
        )]
        .into();
        Arc::new(MemoryExports {
            memories,
            ..MemoryExports::default()
        })
    } else {
        Arc::new(NullExports(Arc::new(Null {
            zeroes: Bytes::from(vec![0; 32 << 20]),
        })))
    };
    let address = Address::Tcp(([127, 0, 0, 1], port).into());
    let server = Server::start(&[address], exports, Limits::default()).await?;
    println!("serving nbd://{}/empty", server.addresses()[0]);
    tokio::signal::ctrl_c().await?;
    server.stop().await;
    Ok(())
}
