//! Where an actor could go now: the same questions as a claim asks, of every pool, and nobody takes anything.

use std::{collections::BTreeMap, sync::Arc};

use ate_api::id::{Digest, ObjectName, WorkerId};
use ate_snapshot::manifest::Platform;

use super::{
    Need, Suits,
    book::{Book, Pool},
    gates::Misfit,
};
use crate::records::Revision;

pub(crate) struct Survey {
    pub(crate) pools: Vec<PoolSurvey>,
    /// The worker it would get, and its pool.
    pub(crate) next: Option<(WorkerId, ObjectName, Suits)>,
}

pub(crate) struct PoolSurvey {
    pub(crate) name: ObjectName,
    /// What it would run under there, or why it may not run there.
    pub(crate) fit: Result<Arc<Revision>, Misfit>,
    pub(crate) workers: usize,
    /// Those that could take it at once.
    pub(crate) free: usize,
}

impl Book {
    pub(super) fn survey(&self, need: &Need) -> Survey {
        let mut survey = Survey { pools: Vec::new(), next: None };
        for (name, pool) in &self.pools {
            let fit = need.fits_pool(&pool.info).and_then(|sandbox| self.fits_workers(name, need).map(|()| sandbox));
            let has_room = pool.held < pool.info.capacity;
            if let Ok(sandbox) = &fit
                && has_room
                && let Some((id, suits)) = self.best_free(pool, need, sandbox, &[])
                && survey.next.as_ref().is_none_or(|(.., best)| suits < *best)
            {
                survey.next = Some((id.clone(), name.clone(), suits));
            }
            let free = if has_room { self.able(pool, need, fit.as_ref().ok()) } else { 0 };
            let workers = self.workers.values().filter(|w| &w.report.pool == name).count();
            survey.pools.push(PoolSurvey { name: name.clone(), fit, workers, free });
        }
        survey
    }

    /// Refuses if the pool has workers and none of them is of the platform, or on the node, that is needed.
    fn fits_workers(&self, pool: &ObjectName, need: &Need) -> Result<(), Misfit> {
        let mut first = Ok(());
        for w in self.workers.values().filter(|w| &w.report.pool == pool) {
            match need.fits_worker(&w.report) {
                Ok(()) => return Ok(()),
                misfit => first = misfit,
            }
        }
        first
    }

    /// How many workers could take it at once, and how many if they were free.
    pub(super) fn reach(&self, need: &Need) -> (usize, usize) {
        let mut reach = (0, 0);
        for (name, pool) in &self.pools {
            let Ok(sandbox) = need.fits_pool(&pool.info) else { continue };
            if pool.held < pool.info.capacity {
                reach.0 += self.able(pool, need, Some(&sandbox));
            }
            let workers = self.workers.values().filter(|w| &w.report.pool == name);
            reach.1 += workers.filter(|w| need.fits_worker(&w.report).is_ok()).count();
        }
        reach
    }

    /// The platforms there are workers of, by digest.
    pub(super) fn platforms(&self) -> BTreeMap<Digest, Platform> {
        let mut found = BTreeMap::new();
        for w in self.workers.values() {
            found.entry(w.platform.clone()).or_insert_with(|| w.report.platform.clone());
        }
        found
    }

    fn able(&self, pool: &Pool, need: &Need, sandbox: Option<&Arc<Revision>>) -> usize {
        let Some(sandbox) = sandbox else { return 0 };
        let workers = self.workers.values().filter(|w| pool.free.contains(&w.report.id));
        workers.filter(|w| w.has_binaries_of(sandbox) && need.fits_worker(&w.report).is_ok()).count()
    }
}
