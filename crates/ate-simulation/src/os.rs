//! The three calls of libc by which a world from outside would get in: the clock, randomness, and waiting.
//!
//! Defined here they take the place of libc's in the whole program, dependencies included. In a child that called
//! [`enter`] the clock stands still until everybody waits; then waiting takes no time and the clock goes forward by as
//! much. Randomness is a stream that the seed decides, also for the order of hash maps, for new uids, and for what
//! tokio throws dice for. Elsewhere the clock and waiting are the kernel's.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libc::{c_int, c_uint, c_void};

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_S: u64 = 1_000_000_000;
/// Where simulated time begins: 2026-01-01, in seconds since 1970. As good as any.
const EPOCH_S: u64 = 1_767_225_600;
/// The monotonic clock never shows 0, which means that time is real.
const START_NS: u64 = NS_PER_S;

/// Simulated nanoseconds. 0: time is real.
static CLOCK: AtomicU64 = AtomicU64::new(0);
/// State of the random stream.
static RANDOM: AtomicU64 = AtomicU64::new(0);

/// From here on this process lives in simulated time, with the randomness of this seed.
pub(crate) fn enter(seed: u64) {
    RANDOM.store(seed, Relaxed);
    CLOCK.store(START_NS, Relaxed);
}

/// Simulated time since [`enter`].
pub(crate) fn elapsed_ms() -> u64 {
    CLOCK.load(Relaxed).saturating_sub(START_NS) / NS_PER_MS
}

/// SplitMix64: one addition and a hash, so that one atomic is the whole state.
fn random() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = RANDOM.fetch_add(STEP, Relaxed).wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// # Safety
/// As of `clock_gettime(2)`: `at` points to a `timespec`.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, at: *mut libc::timespec) -> c_int {
    let mut ns = CLOCK.load(Relaxed);
    if ns == 0 {
        // SAFETY: passed on as it came.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, at) as c_int };
    }
    if clock == libc::CLOCK_REALTIME {
        ns += EPOCH_S * NS_PER_S;
    }
    let time = libc::timespec { tv_sec: (ns / NS_PER_S) as libc::time_t, tv_nsec: (ns % NS_PER_S) as _ };
    // SAFETY: the caller vouches for the pointer.
    unsafe { at.write(time) };
    0
}

/// # Safety
/// As of `getrandom(2)`: `buffer` points to `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, _flags: c_uint) -> libc::ssize_t {
    // SAFETY: the caller vouches for the buffer.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), len) };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&random().to_le_bytes()[..chunk.len()]);
    }
    len as libc::ssize_t
}

/// # Safety
/// As of `epoll_wait(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_wait(fd: c_int, events: *mut libc::epoll_event, max: c_int, timeout_ms: c_int) -> c_int {
    let real = CLOCK.load(Relaxed) == 0;
    let timeout = if real { timeout_ms } else { 0 };
    let no_mask = std::ptr::null::<libc::sigset_t>();
    // SAFETY: passed on as it came, without a signal mask.
    let ready = unsafe { libc::syscall(libc::SYS_epoll_pwait, fd, events, max, timeout, no_mask, 8) as c_int };
    if !real && ready == 0 {
        match u64::try_from(timeout_ms) {
            Ok(ms) => drop(CLOCK.fetch_add(ms * NS_PER_MS, Relaxed)),
            // Nothing will ever happen again, and whoever waits would wait for ever.
            Err(_) => panic!("everybody waits, and nobody for a time"),
        }
    }
    ready
}
