//! A client that sends just the bytes it is told to.

#![allow(
    clippy::unwrap_used,
    reason = "a test may fail loudly in its helpers, too"
)]

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No answer of the server takes longer; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const EXPORT_NAME: u32 = 1;
pub const ABORT: u32 = 2;
pub const LIST: u32 = 3;
pub const STARTTLS: u32 = 5;
pub const INFO: u32 = 6;
pub const GO: u32 = 7;
pub const STRUCTURED_REPLY: u32 = 8;
pub const LIST_META_CONTEXT: u32 = 9;
pub const SET_META_CONTEXT: u32 = 10;

pub const ACK: u32 = 1;
pub const ERR_UNSUP: u32 = 0x8000_0001;
pub const ERR_POLICY: u32 = 0x8000_0002;
pub const ERR_INVALID: u32 = 0x8000_0003;
pub const ERR_UNKNOWN: u32 = 0x8000_0006;
pub const ERR_TOO_BIG: u32 = 0x8000_0009;

pub const READ: u16 = 0;
pub const WRITE: u16 = 1;
pub const DISC: u16 = 2;

pub struct Raw {
    pub stream: TcpStream,
}

/// A simple reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Simple {
    pub error: u32,
    pub cookie: u64,
}

impl Raw {
    /// Connected; nothing read.
    pub async fn connect(port: u16) -> Raw {
        Raw {
            stream: TcpStream::connect(("127.0.0.1", port)).await.unwrap(),
        }
    }

    /// Greeted, with client flags sent.
    pub async fn greeted(port: u16) -> Raw {
        let mut raw = Raw::connect(port).await;
        let greeting = raw.receive(18).await;
        assert_eq!(greeting, b"NBDMAGICIHAVEOPT\0\x03");
        raw.send(&3u32.to_be_bytes()).await;
        raw
    }

    /// In the transmission phase, with simple replies.
    pub async fn attached(port: u16, name: &str) -> Raw {
        let mut raw = Raw::greeted(port).await;
        raw.option(EXPORT_NAME, name.as_bytes()).await;
        raw.receive(10).await;
        raw
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes))
            .await
            .expect("the server reads")
            .unwrap();
    }

    pub async fn receive(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        timeout(PATIENCE, self.stream.read_exact(&mut bytes))
            .await
            .expect("the server answers")
            .unwrap();
        bytes
    }

    /// What still comes until the server closes, cleanly or not.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut bytes))
            .await
            .expect("the server closes");
        bytes
    }

    pub async fn option(&mut self, number: u32, data: &[u8]) {
        self.option_announcing(number, data.len() as u32, data)
            .await;
    }

    pub async fn option_announcing(&mut self, number: u32, length: u32, data: &[u8]) {
        let option = [
            b"IHAVEOPT",
            &number.to_be_bytes()[..],
            &length.to_be_bytes(),
            data,
        ]
        .concat();
        self.send(&option).await;
    }

    /// One reply to an option: its kind and data.
    pub async fn option_reply(&mut self, number: u32) -> (u32, Vec<u8>) {
        let header = self.receive(20).await;
        assert_eq!(header[..8], 0x0003_e889_0455_65a9_u64.to_be_bytes());
        assert_eq!(header[8..12], number.to_be_bytes());
        let kind = u32::from_be_bytes(header[12..16].try_into().unwrap());
        let length = u32::from_be_bytes(header[16..20].try_into().unwrap());
        (kind, self.receive(length as usize).await)
    }

    /// The last reply to an option: ACK or an error.
    pub async fn option_end(&mut self, number: u32) -> (u32, String) {
        loop {
            let (kind, data) = self.option_reply(number).await;
            if kind == ACK || kind >= 1 << 31 {
                return (kind, String::from_utf8(data).unwrap());
            }
        }
    }

    pub async fn simple(&mut self) -> Simple {
        let reply = self.receive(16).await;
        assert_eq!(reply[..4], 0x6744_6698_u32.to_be_bytes());
        let error = u32::from_be_bytes(reply[4..8].try_into().unwrap());
        Simple {
            error,
            cookie: u64::from_be_bytes(reply[8..].try_into().unwrap()),
        }
    }
}

pub fn request(command: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

/// The data of INFO and GO.
pub fn info_data(name: &str, wants: &[u16]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend((wants.len() as u16).to_be_bytes());
    data.extend(wants.iter().flat_map(|want| want.to_be_bytes()));
    data
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
pub fn context_data(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend((queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend((query.len() as u32).to_be_bytes());
        data.extend(query.as_bytes());
    }
    data
}
