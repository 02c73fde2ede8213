//! One simulated world: what outlives a crash of the control plane, and those who watch it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use ate_store::Transaction;

use crate::{
    chance::Chance, disk::Disk, judge::Judge, machine::Machine, os, report::Report, router::Router, weather::Weather,
};

pub(crate) struct World {
    pub(crate) chance: Chance,
    pub(crate) weather: Weather,
    pub(crate) disk: Disk,
    pub(crate) machine: Machine,
    pub(crate) router: Router,
    pub(crate) judge: Judge,
    /// Everything is there that users need.
    pub(crate) set_up: AtomicBool,
    /// What users still have to do.
    pub(crate) errands: AtomicUsize,
    pub(crate) report: Mutex<Report>,
    /// Everything that happens is printed.
    traced: bool,
}

impl World {
    pub(crate) fn new(seed: u64, traced: bool) -> Arc<Self> {
        let chance = Chance::new(seed);
        Arc::new(World {
            weather: Weather::of(&chance),
            errands: AtomicUsize::new(10 + chance.below(40)),
            set_up: AtomicBool::new(false),
            chance,
            disk: Disk::default(),
            machine: Machine::default(),
            router: Router::default(),
            judge: Judge::default(),
            report: Mutex::default(),
            traced,
        })
    }

    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        if self.traced {
            println!("{:>8} {}", os::elapsed_ms(), what());
        }
    }

    /// An invariant does not hold.
    pub(crate) fn violated(&self, invariant: &str, what: impl std::fmt::Display) {
        self.note(|| format!("VIOLATED {invariant}: {what}"));
        let violation = format!("{invariant} at {} ms: {what}", os::elapsed_ms());
        self.with_report(|r| r.violations.push(violation));
    }

    pub(crate) fn with_report<T>(&self, change: impl FnOnce(&mut Report) -> T) -> T {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One errand less; false: there is none left.
    pub(crate) fn take_errand(&self) -> bool {
        self.errands.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_ok()
    }

    /// A commit takes effect, and whoever watches has a look at it.
    pub(crate) fn commit(&self, tx: &Transaction) -> ate_store::Result<u64> {
        let done = self.disk.apply(tx);
        self.note(|| {
            let sign = |value: &Option<bytes::Bytes>| if value.is_some() { "+" } else { "-" };
            let keys: Vec<_> = tx.writes.iter().map(|(k, v)| format!("{}{k}", sign(v))).collect();
            format!("commit {} {done:?}", keys.join(" "))
        });
        if done.as_ref().is_ok_and(|version| *version > 0) {
            self.with_report(|r| r.commits += 1);
            self.judge.committed(self, tx);
        }
        done
    }

    /// The process dies, and with it all it had in memory and every worker.
    pub(crate) fn crash(&self) {
        self.note(|| "CRASH".to_owned());
        self.machine.crash();
        self.router.crash();
        self.with_report(|r| r.crashes += 1);
    }

    pub(crate) fn finish(&self) -> Report {
        let mut report = self.with_report(std::mem::take);
        report.histories = 1;
        report.faults = self.weather.faults();
        report.simulated_ms = os::elapsed_ms();
        report
    }
}
