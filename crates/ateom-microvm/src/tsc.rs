//! How fast this host's time stamp counter runs. A guest executed in software sees the same counter.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Long enough that reading both clocks one after the other does not matter: a few parts in a million.
const WINDOW: Duration = Duration::from_millis(30);
/// A guest whose clock is off by more than this is not restored, in parts per thousand.
pub(crate) const TOLERANCE_PERMILLE: u64 = 2;

/// In kHz, measured once per process. Blocks for a moment the first time.
pub(crate) fn khz() -> u64 {
    static KHZ: OnceLock<u64> = OnceLock::new();
    *KHZ.get_or_init(measure)
}

fn measure() -> u64 {
    // The best of three: an interruption between the two readings only ever makes a sample worse.
    let sample = || {
        let (from, begun) = (counter(), Instant::now());
        std::thread::sleep(WINDOW);
        let (to, took) = (counter(), begun.elapsed());
        u64::try_from(u128::from(to - from) * 1_000_000 / took.as_nanos()).unwrap_or_default()
    };
    let mut samples = [sample(), sample(), sample()];
    samples.sort_unstable();
    samples[1]
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets everybody use it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Elsewhere the guest's clock is not tied to a counter of the host's: any steady one will do.
#[cfg(not(target_arch = "x86_64"))]
fn counter() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or_default()
}

/// Whether a guest that was told one rate keeps time on a host with another.
pub(crate) fn close(told: u64, here: u64) -> bool {
    told.abs_diff(here) * 1000 <= told * TOLERANCE_PERMILLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (a, b) = (measure(), measure());
        assert!(close(a, b), "{a} {b}");
        assert!(!close(2_000_000, 2_100_000));
    }
}
