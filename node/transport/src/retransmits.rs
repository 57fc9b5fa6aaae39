//! How many segments a TCP connection has sent again. Its socket belongs to the task that moves its bytes, so that task looks, in passing,
//! when somebody has asked.

use rustix::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::net::TcpStream;

/// Bytes of the kernel's `tcp_info` up to the end of `tcpi_total_retrans`, which has been there since Linux 2.6.
const INFO_BYTES: usize = 104;
/// Where that field is: 8 bytes of flags, then u32s.
const RETRANSMITS_AT: usize = 100;

/// The figure of one connection.
#[derive(Debug, Default)]
pub(crate) struct Retransmits {
    asked: AtomicBool,
    seen: AtomicU64,
}

impl Retransmits {
    /// What was seen last; it is looked at again with the next bytes that move.
    pub(crate) fn ask(&self) -> u64 {
        self.asked.store(true, Ordering::Relaxed);
        self.seen.load(Ordering::Relaxed)
    }

    /// Looks, if somebody has asked.
    pub(crate) fn look_if_asked(&self, socket: &TcpStream) {
        if self.asked.load(Ordering::Relaxed) && self.asked.swap(false, Ordering::Relaxed) {
            let seen = total_retransmits(socket).unwrap_or_default();
            self.seen.store(seen.into(), Ordering::Relaxed);
        }
    }
}

fn total_retransmits(socket: &impl AsRawFd) -> Option<u32> {
    let mut info = [0_u8; INFO_BYTES];
    let mut length = INFO_BYTES as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `info`, which has that many, and says in `length` how many it wrote.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if outcome != 0 || (length as usize) < INFO_BYTES {
        return None;
    }
    let field = info[RETRANSMITS_AT..].first_chunk()?;
    Some(u32::from_ne_bytes(*field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_where_the_kernel_has_it() {
        let offset = std::mem::offset_of!(libc::tcp_info, tcpi_total_retrans);
        assert_eq!((offset, offset + 4), (RETRANSMITS_AT, INFO_BYTES));
    }

    #[test]
    fn a_fresh_connection_has_sent_nothing_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(total_retransmits(&stream), Some(0));
        assert_eq!(
            total_retransmits(&std::fs::File::open("/dev/null").unwrap()),
            None
        );
    }
}
