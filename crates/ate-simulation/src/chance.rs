//! Everything that is decided by throwing dice, all from one seed.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub(crate) struct Chance(Mutex<fastrand::Rng>);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Chance(Mutex::new(fastrand::Rng::with_seed(seed)))
    }

    fn rng(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True with this probability. Nothing is thrown for what cannot happen.
    pub(crate) fn happens(&self, probability: f64) -> bool {
        probability > 0.0 && self.rng().f64() < probability
    }

    pub(crate) fn below(&self, n: usize) -> usize {
        self.rng().usize(0..n.max(1))
    }

    pub(crate) fn ms(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.rng().u64(range))
    }

    pub(crate) fn one_of<'a, T>(&self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { all.get(self.below(all.len())) }
    }

    /// An index, as often as its weight says.
    pub(crate) fn weighted(&self, weights: &[u32]) -> usize {
        let mut left = self.rng().u32(0..weights.iter().sum::<u32>().max(1));
        for (i, weight) in weights.iter().enumerate() {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return i,
            }
        }
        0
    }
}
