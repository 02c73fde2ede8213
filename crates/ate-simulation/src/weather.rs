//! What goes wrong in one history, and how often. Each history has a weather of its own: most kinds of faults are off in
//! any one, so that some histories get far and others fail early. The storm breaks out when everything is set up, in some
//! histories before; after it everything works.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::chance::Chance;

/// Histories in which things go wrong from the first line on.
const EARLY: f64 = 0.2;

/// Probabilities for each call, or for each second.
#[derive(Debug, Clone, Default)]
struct Rates {
    /// A commit or a read takes long.
    store_slow: f64,
    /// A commit is answered with an error; it happened, did not happen, or is going to.
    store_unsure: f64,
    store_full: f64,
    store_unreadable: f64,
    /// A call of the node fails before it does anything.
    node_refuses: f64,
    /// It takes effect, and its answer is lost.
    node_answer_lost: f64,
    /// It is never answered, and takes effect or not, perhaps much later.
    node_silent: f64,
    node_twice: f64,
    node_slow: f64,
    /// For each second.
    crash: f64,
    worker_dies: f64,
    actor_ends: f64,
    stream_breaks: f64,
    /// The node's own copy of a snapshot that is nowhere else.
    local_copy_lost: f64,
    event_twice: f64,
}

/// What becomes of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commit {
    Fine,
    Full,
    /// Error, and nothing was written.
    Lost,
    /// Error, and it was written.
    Unheard,
    /// Error, and it is written after this time.
    Late(Duration),
}

/// What becomes of a call of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Fine,
    Refused,
    AnswerLost,
    /// No answer, until the connection is given up; the effect comes after this time, if at all.
    Silent(Option<Duration>),
    /// Again after this time.
    Twice(Duration),
}

pub(crate) struct Weather {
    rates: Rates,
    storm: AtomicBool,
    faults: AtomicU64,
}

impl Weather {
    pub(crate) fn of(chance: &Chance) -> Self {
        // A kind of fault is off, rare or frequent.
        let rate = |frequent: f64| match chance.below(5) {
            0..=2 => 0.0,
            3 => frequent / 6.0,
            _ => frequent,
        };
        let rates = Rates {
            store_slow: rate(0.15),
            store_unsure: rate(0.06),
            store_full: rate(0.03),
            store_unreadable: rate(0.06),
            node_refuses: rate(0.12),
            node_answer_lost: rate(0.12),
            node_silent: rate(0.08),
            node_twice: rate(0.3),
            node_slow: rate(0.25),
            crash: rate(0.04),
            worker_dies: rate(0.1),
            actor_ends: rate(0.1),
            stream_breaks: rate(0.08),
            local_copy_lost: rate(0.1),
            event_twice: rate(0.3),
        };
        Weather { rates, storm: AtomicBool::new(chance.happens(EARLY)), faults: AtomicU64::new(0) }
    }

    pub(crate) fn break_out(&self) {
        self.storm.store(true, Relaxed);
    }

    /// From here on nothing goes wrong any more.
    pub(crate) fn clear_up(&self) {
        self.storm.store(false, Relaxed);
    }

    pub(crate) fn is_clear(&self) -> bool {
        !self.storm.load(Relaxed)
    }

    /// Faults there were.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Relaxed)
    }

    fn strikes(&self, chance: &Chance, rate: f64) -> bool {
        let strikes = !self.is_clear() && chance.happens(rate);
        self.faults.fetch_add(u64::from(strikes), Relaxed);
        strikes
    }

    pub(crate) fn store_delay(&self, chance: &Chance) -> Duration {
        match self.strikes(chance, self.rates.store_slow) {
            true => chance.ms(20..4000),
            false => chance.ms(0..3),
        }
    }

    pub(crate) fn commit(&self, chance: &Chance) -> Commit {
        if self.strikes(chance, self.rates.store_full) {
            return Commit::Full;
        }
        if !self.strikes(chance, self.rates.store_unsure) {
            return Commit::Fine;
        }
        match chance.below(3) {
            0 => Commit::Lost,
            1 => Commit::Unheard,
            _ => Commit::Late(chance.ms(1..500)),
        }
    }

    pub(crate) fn read_fails(&self, chance: &Chance) -> bool {
        self.strikes(chance, self.rates.store_unreadable)
    }

    pub(crate) fn node_delay(&self, chance: &Chance) -> Duration {
        match self.strikes(chance, self.rates.node_slow) {
            true => chance.ms(50..6000),
            false => chance.ms(0..20),
        }
    }

    pub(crate) fn call(&self, chance: &Chance) -> Call {
        let r = &self.rates;
        if self.strikes(chance, r.node_refuses) {
            Call::Refused
        } else if self.strikes(chance, r.node_answer_lost) {
            Call::AnswerLost
        } else if self.strikes(chance, r.node_silent) {
            Call::Silent(chance.happens(0.6).then(|| chance.ms(0..30_000)))
        } else if self.strikes(chance, r.node_twice) {
            Call::Twice(chance.ms(0..2000))
        } else {
            Call::Fine
        }
    }

    pub(crate) fn event_twice(&self, chance: &Chance) -> bool {
        self.strikes(chance, self.rates.event_twice)
    }

    pub(crate) fn crashes(&self, chance: &Chance) -> bool {
        self.strikes(chance, self.rates.crash)
    }

    pub(crate) fn worker_dies(&self, chance: &Chance) -> bool {
        self.strikes(chance, self.rates.worker_dies)
    }

    pub(crate) fn actor_ends(&self, chance: &Chance) -> bool {
        self.strikes(chance, self.rates.actor_ends)
    }

    pub(crate) fn stream_breaks(&self, chance: &Chance) -> bool {
        self.strikes(chance, self.rates.stream_breaks)
    }

    pub(crate) fn local_copy_lost(&self, chance: &Chance) -> bool {
        self.strikes(chance, self.rates.local_copy_lost)
    }
}
