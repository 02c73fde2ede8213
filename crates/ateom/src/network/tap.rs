//! A TAP device: the actor's link for sandboxes that bring a network stack of their own, such as virtual machines.
//!
//! The device lives in the worker's namespace; whoever holds its descriptor is the other end of the link, in whatever
//! namespace it may be. Several can exist, one is connected: it has the gateway's address, so that the actor is
//! reached through it.

use std::{fs::File, io, os::fd::OwnedFd};

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

const DEVICE: &str = "/dev/net/tun";
const NAME: usize = 16;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);

/// `struct ifreq` of linux/if.h with its member `ifr_flags`.
#[repr(C)]
struct Request {
    name: [u8; NAME],
    flags: u16,
    rest: [u8; 22],
}

/// Makes a device that lives as long as the descriptor. Packets carry a virtio header, as VMMs want them.
#[allow(unsafe_code)]
pub(super) fn create(name: &str) -> io::Result<OwnedFd> {
    let file = File::options().read(true).write(true).open(DEVICE)?;
    let mut request = Request { name: [0; NAME], flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, rest: [0; 22] };
    if name.len() >= NAME {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}` is no interface name")));
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes a struct ifreq, 40 bytes, which is what Request is.
    unsafe { ioctl(&file, Setter::<TUNSETIFF, Request>::new(request))? };
    Ok(file.into())
}
