//! A TUN device: a network interface whose packets are read and written through a file.

use crate::link::namespace;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::ioctl::{Opcode, Setter, ioctl};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::time::Duration;

const SET_INTERFACE: Opcode = rustix::ioctl::opcode::write::<i32>(b'T', 202);
const IS_TUN: u16 = 1;
const NO_PACKET_INFORMATION: u16 = 0x1000;
const NAME: &str = "link0";

/// `struct ifreq` of linux/if.h, as TUNSETIFF takes it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// An open TUN device.
#[derive(Debug)]
pub struct Tun(File);

impl Tun {
    /// Makes a device in that namespace, with that address in a network of 256.
    ///
    /// # Errors
    /// Not root, or no TUN devices here.
    pub fn create(in_namespace: &str, address: IpAddr) -> io::Result<Tun> {
        let file = namespace::within(in_namespace, open)??;
        let network = format!("{address}/24");
        namespace::ip(&["-n", in_namespace, "addr", "add", &network, "dev", NAME])?;
        namespace::ip(&["-n", in_namespace, "link", "set", NAME, "up"])?;
        Ok(Tun(file))
    }

    /// Waits for a packet and reads it into `packet`; none when nothing came for so long.
    ///
    /// # Errors
    /// The device is gone.
    pub fn receive(&self, packet: &mut [u8], limit: Duration) -> io::Result<Option<usize>> {
        let mut waited = [PollFd::new(&self.0, PollFlags::IN)];
        let limit = Timespec {
            tv_sec: limit.as_secs() as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        match poll(&mut waited, Some(&limit)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(None),
            Ok(_) => (&self.0).read(packet).map(Some),
            Err(error) => Err(error.into()),
        }
    }

    /// Delivers a packet.
    ///
    /// # Errors
    /// The device is gone or down.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        (&self.0).write_all(packet)
    }
}

fn open() -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let mut name = [0; 16];
    name[..NAME.len()].copy_from_slice(NAME.as_bytes());
    let request = InterfaceRequest {
        name,
        flags: IS_TUN | NO_PACKET_INFORMATION,
        rest: [0; 22],
    };
    // SAFETY: TUNSETIFF reads a `struct ifreq`, which `InterfaceRequest` is laid out as and as long as (40 bytes), and keeps
    // no pointer to it.
    unsafe {
        ioctl(
            &file,
            Setter::<SET_INTERFACE, InterfaceRequest>::new(request),
        )
    }?;
    Ok(file)
}
