//! Where somebody could run: every pool with its answer, the worker that would be taken, and why there is none.

use ate_api::{
    Reason,
    id::ObjectName,
    resource::{
        Choice,
        explanation::{Next, Obstacle, Place},
    },
};

use crate::{
    core::Core,
    records::TemplateRecord,
    scheduler::{Need, PoolSurvey, Suits, Wanted},
};

#[derive(Default)]
pub(super) struct Places {
    pub(super) pools: Vec<Place>,
    pub(super) next: Option<Next>,
}

impl Core {
    /// The pools, and what the one that comes first would have it run under.
    pub(super) fn places(&self, need: &Need) -> (Places, Option<Choice>) {
        let survey = self.scheduler.survey(need);
        let mut first = None;
        let taken = survey.next.as_ref().map(|(_, pool, _)| pool);
        let mut pools = Vec::new();
        for p in &survey.pools {
            let (place, choice) = self.place(p, need);
            if place.fits && (first.is_none() || taken == Some(&p.name)) {
                first = choice;
            }
            pools.push(place);
        }
        let next = survey.next.map(|(worker, pool, suits)| Next {
            worker: worker.to_string(),
            pool: pool.to_string(),
            prepared: match suits {
                Suits::Exactly if need.begins => "the golden snapshot is restored in it already",
                Suits::Exactly | Suits::Prepared => "its sandbox is started already",
                Suits::Bare | Suits::Other | Suits::OthersStandby => "its sandbox has to be started",
            }
            .to_owned(),
        });
        (Places { pools, next }, first)
    }

    fn place(&self, p: &PoolSurvey, need: &Need) -> (Place, Option<Choice>) {
        let pool = self.catalog.pools.get(&p.name);
        let chosen = pool.as_ref().map(|pool| self.config_choice(&pool.value.resource));
        let (config, why, choice) = match (&p.fit, chosen) {
            (Ok(revision), chosen) => {
                let config = revision.key().to_string();
                let choice = chosen.and_then(Result::ok).map(|(choice, _)| choice);
                // A snapshot brings its own; what the pool runs does not matter then.
                let choice = choice.filter(|_| matches!(need.wanted, Wanted::OfPool { .. }));
                let why = choice.as_ref().map(|c| c.why.clone()).unwrap_or_default();
                let choice = choice.map(|c| Choice { name: config.clone(), ..c });
                (Some(config), why, choice)
            }
            (Err(misfit), Some(Err(e))) if self.is_of_class(&p.name, &need.class) => {
                (None, format!("{misfit}: {}", e.message), None)
            }
            (Err(misfit), Some(Ok((_, record)))) if self.is_of_class(&p.name, &need.class) => {
                let failure = self.catalog.revisions.get(&record.key()).and_then(|r| r.value.failure.clone());
                let more = failure.map(|f| format!(": {}", f.message)).unwrap_or_default();
                (None, format!("{misfit}{more}"), None)
            }
            (Err(misfit), _) => (None, misfit.to_string(), None),
        };
        let place =
            Place { pool: p.name.to_string(), fits: p.fit.is_ok(), why, config, workers: p.workers, free: p.free };
        (place, choice)
    }

    fn is_of_class(&self, pool: &ObjectName, class: &str) -> bool {
        self.catalog.pools.get(pool).is_some_and(|p| p.value.resource.spec.sandbox_class == class)
    }

    /// Why no worker would be had at once.
    pub(super) fn in_the_way(&self, template: &TemplateRecord, places: &Places) -> Option<Obstacle> {
        let obstacle = |reason: Reason, message: String, hint: &str| {
            Some(Obstacle { reason: reason.as_str().to_owned(), message, hint: hint.to_owned() })
        };
        let class = &template.class;
        if self.catalog.pools.all().iter().all(|(_, p)| p.value.resource.spec.sandbox_class != *class) {
            let message = format!("there is no worker pool of class {class}");
            let hint = format!("apply a WorkerPool with sandboxClass: {class}");
            return obstacle(Reason::NoSuitableWorker, message, &hint);
        }
        let fitting: Vec<_> = places.pools.iter().filter(|p| p.fits).collect();
        if fitting.is_empty() {
            let why: Vec<_> = places.pools.iter().map(|p| format!("{}: {}", p.pool, p.why)).collect();
            let message = format!("no pool may take it: {}", why.join("; "));
            return obstacle(Reason::NoSuitableWorker, message, "apply a WorkerPool that fits, or mend one of these");
        }
        let workers: usize = fitting.iter().map(|p| p.workers).sum();
        match workers {
            0 => obstacle(
                Reason::NoFreeWorker,
                "its pool has no worker yet".to_owned(),
                "workers are on their way, or `ate get pools -o wide` says what they wait for",
            ),
            n => obstacle(
                Reason::NoFreeWorker,
                format!("all {n} workers it could have are taken"),
                "it waits for one; whoever had no request for longest makes room",
            ),
        }
    }
}
