//! Where the time of an activation went.

use std::{collections::HashMap, time::Instant};

/// Names and durations of steps, in microseconds.
#[derive(Debug)]
pub struct Steps {
    last: Instant,
    took: HashMap<String, u64>,
}

impl Default for Steps {
    fn default() -> Self {
        Steps { last: Instant::now(), took: HashMap::new() }
    }
}

impl Steps {
    /// Everything since the last mark was the step `name`.
    pub fn mark(&mut self, name: &str) {
        let now = Instant::now();
        let took = u64::try_from(now.duration_since(self.last).as_micros()).unwrap_or(u64::MAX);
        *self.took.entry(name.to_owned()).or_default() += took;
        self.last = now;
    }

    pub fn into_map(self) -> HashMap<String, u64> {
        self.took
    }
}
