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

/// The kernel's random numbers, open.
pub(crate) struct Entropy(File);

impl Entropy {
    pub(crate) fn open() -> io::Result<Self> {
        File::options().write(true).open("/dev/random").map(Entropy)
    }

    /// Mixes `fresh` in, counts it in full, and has the kernel draw from it at once.
    #[allow(unsafe_code)]
    pub(crate) fn reseed(&self, fresh: [u8; ENTROPY]) -> io::Result<()> {
        let len = i32::try_from(ENTROPY).unwrap_or(i32::MAX);
        let info = PoolInfo { entropy_bits: len * 8, bytes: len, buffer: fresh };
        // SAFETY: RNDADDENTROPY reads a rand_pool_info whose `bytes` says how much follows, which is what PoolInfo is.
        unsafe { ioctl(&self.0, Setter::<ADD, PoolInfo>::new(info))? };
        // SAFETY: RNDRESEEDCRNG takes no argument.
        unsafe { ioctl(&self.0, NoArg::<RESEED>::new())? };
        Ok(())
    }
}
