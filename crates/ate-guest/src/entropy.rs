//! Random numbers that differ between machines restored from one snapshot.

use std::{fs::File, io};

use ate_guest::protocol::ENTROPY;
use rustix::ioctl::{NoArg, Opcode, Setter, ioctl, opcode};

/// `struct rand_pool_info` of linux/random.h with room for what we give.
#[repr(C)]
struct PoolInfo {
    entropy_bits: i32,
    bytes: i32,
    buffer: [u8; ENTROPY],
}

/// The kernel's definition names two of the three members' sizes.
const ADD: Opcode = opcode::write::<[i32; 2]>(b'R', 3);
const RESEED: Opcode = opcode::none(b'R', 7);

/// Mixes `fresh` in, counts it in full, and has the kernel draw from it at once.
#[allow(unsafe_code)]
pub(crate) fn reseed(fresh: [u8; ENTROPY]) -> io::Result<()> {
    let random = File::options().write(true).open("/dev/random")?;
    let len = i32::try_from(ENTROPY).unwrap_or(i32::MAX);
    let info = PoolInfo { entropy_bits: len * 8, bytes: len, buffer: fresh };
    // SAFETY: RNDADDENTROPY reads a rand_pool_info whose `bytes` says how much follows, which is what PoolInfo is.
    unsafe { ioctl(&random, Setter::<ADD, PoolInfo>::new(info))? };
    // SAFETY: RNDRESEEDCRNG takes no argument.
    unsafe { ioctl(&random, NoArg::<RESEED>::new())? };
    Ok(())
}
