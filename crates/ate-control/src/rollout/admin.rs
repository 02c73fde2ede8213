//! Start, pause, resume, undo: what people ask of a rollout. Each is one durable change of its record.

use std::sync::Arc;

use ate_api::{Error, Reason, id::Uid};

use crate::{
    core::Core,
    records::{
        ConfigKey, MaxUnavailable, Rollout, RolloutPhase as Phase, RolloutPolicy, StepState, keys, now_ms,
        rollout::object,
    },
    resources::{ATTEMPTS, not_found, too_many_conflicts},
};

impl Core {
    /// # Errors
    /// `ROLLOUT_UNDER_WAY`; `NOT_FOUND`, `CLASS_MISMATCH`, `ASSET_REVOKED` and `WRONG_STATE` of the configuration.
    pub(crate) async fn start_rollout(
        &self,
        class: &str,
        config: &str,
        policy: RolloutPolicy,
        max_unavailable: MaxUnavailable,
    ) -> Result<Arc<Rollout>, Error> {
        self.classes.get(class)?;
        let to = self.target(class, config)?;
        let mut rollout = Rollout {
            uid: Uid::generate(),
            class: class.to_owned(),
            to,
            policy,
            max_unavailable,
            phase: Phase::Building,
            started_ms: now_ms(),
            since_ms: now_ms(),
            deadline_ms: None,
            steps: Vec::new(),
            total: 0,
            stopped: None,
            swept: false,
        };
        for _ in 0..ATTEMPTS {
            let old = self.catalog.rollouts.get(&class.to_owned());
            if let Some(old) = old.as_ref().filter(|old| old.value.phase.is_under_way()) {
                return Err(under_way(&old.value));
            }
            // What it has done already can still be undone.
            let again = old.as_ref().filter(|old| old.value.phase == Phase::Failed && old.value.to == rollout.to);
            let steps = again.map(|old| old.value.steps.clone()).unwrap_or_default();
            rollout.steps = steps.into_iter().filter(|s| s.state == StepState::Passed).collect();
            match self.db.put_json(&keys::rollout(class), old.map(|o| o.version), &rollout).await {
                Ok(version) => {
                    self.catalog.rollouts.set(class.to_owned(), version, rollout.clone());
                    return Ok(Arc::new(rollout));
                }
                Err(e) if e.reason == Reason::Conflict => self.reload_rollout(class).await?,
                Err(e) => return Err(e),
            }
        }
        Err(too_many_conflicts(object(class)))
    }

    /// The revision a configuration has now, if actors may come to it.
    fn target(&self, class: &str, config: &str) -> Result<ConfigKey, Error> {
        let object = format!("sandboxconfig/{config}");
        let found = self.catalog.configs.get(&config.to_owned()).ok_or_else(|| not_found("sandboxconfig", config))?;
        let of = &found.value.resource.spec.sandbox_class;
        if of != class {
            let message = format!("it is of class {of}, the rollout of class {class}");
            return Err(Error::new(Reason::ClassMismatch, message).on(object));
        }
        let key = found.value.key();
        let revision = self.trusted_revision(&key).map_err(|e| e.on(object.clone()))?;
        if !revision.probed || !self.scheduler.is_verified(&key.to_string()) {
            let why = revision.failure.as_ref().map_or("its binaries are being fetched and tried", |f| &f.message);
            return Err(Error::new(Reason::WrongState, format!("{key} is not ready: {why}"))
                .on(object.clone())
                .hint(format!("`ate describe {object}` shows how far it is")));
        }
        Ok(key)
    }

    pub(crate) async fn pause_rollout(&self, class: &str) -> Result<Arc<Rollout>, Error> {
        self.change_rollout(class, |r| match r.phase {
            Phase::Paused => Ok(()),
            phase if phase.is_active() => {
                r.enter(Phase::Paused);
                Ok(())
            }
            _ => Err(wrong_state(r, "paused")),
        })
        .await
    }

    /// Goes on with one that was paused, by somebody or by itself.
    pub(crate) async fn resume_rollout(&self, class: &str) -> Result<Arc<Rollout>, Error> {
        self.change_rollout(class, |r| match r.phase {
            Phase::Paused => {
                // What is done already is found to be.
                r.enter(Phase::Building);
                r.stopped = None;
                Ok(())
            }
            phase if phase.is_active() => Ok(()),
            _ => Err(wrong_state(r, "resumed")),
        })
        .await
    }

    /// New actors, and actors that were not moved, are as before when this returns.
    pub(crate) async fn undo_rollout(&self, class: &str) -> Result<Arc<Rollout>, Error> {
        let rollout = self
            .change_rollout(class, |r| match r.phase {
                Phase::Undone => Ok(()),
                phase if phase.is_under_way() || phase == Phase::Failed => {
                    r.enter(Phase::Undone);
                    Ok(())
                }
                _ => Err(wrong_state(r, "undone").hint(format!(
                    "nobody is left to stay behind; roll the former configuration out: ate sandbox rollout start --class \
                     {} --to CONFIG",
                    r.class
                ))),
            })
            .await?;
        self.take_back(&rollout).await?;
        Ok(rollout)
    }

    pub(crate) fn rollout(&self, class: &str) -> Result<Arc<Rollout>, Error> {
        self.catalog.rollouts.get(&class.to_owned()).map(|r| r.value).ok_or_else(|| {
            Error::new(Reason::NotFound, "there was no rollout of this class yet")
                .on(object(class))
                .hint(format!("ate sandbox rollout start --class {class} --to CONFIG"))
        })
    }

    /// Changes the record as it is now. Writes nothing when nothing changes.
    pub(super) async fn change_rollout(
        &self,
        class: &str,
        change: impl Fn(&mut Rollout) -> Result<(), Error>,
    ) -> Result<Arc<Rollout>, Error> {
        for _ in 0..ATTEMPTS {
            let old = self.catalog.rollouts.get(&class.to_owned());
            let Some(old) = old else { return self.rollout(class) };
            let mut record = (*old.value).clone();
            change(&mut record)?;
            if record == *old.value {
                return Ok(old.value);
            }
            match self.db.put_json(&keys::rollout(class), Some(old.version), &record).await {
                Ok(version) => {
                    self.catalog.rollouts.set(class.to_owned(), version, record.clone());
                    return Ok(Arc::new(record));
                }
                Err(e) if e.reason == Reason::Conflict => self.reload_rollout(class).await?,
                Err(e) => {
                    // It may have been written, and whoever moves actors goes by memory.
                    let _ = self.reload_rollout(class).await;
                    return Err(e);
                }
            }
        }
        Err(too_many_conflicts(object(class)))
    }

    async fn reload_rollout(&self, class: &str) -> Result<(), Error> {
        self.reload(&self.catalog.rollouts, &class.to_owned(), &keys::rollout(class)).await.map(drop)
    }

    /// The rollout under way that leads to a configuration.
    pub(crate) fn rollout_to(&self, config: &str) -> Option<Arc<Rollout>> {
        let mut all = self.catalog.rollouts.all().into_iter().map(|(_, r)| r.value);
        all.find(|r| r.phase.is_under_way() && r.to.name == config)
    }
}

fn under_way(rollout: &Rollout) -> Error {
    let message = format!("a rollout to {} is under way ({})", rollout.to, rollout.phase.as_str());
    Error::new(Reason::RolloutUnderWay, message)
        .on(rollout.object())
        .hint(format!("wait until it is done, or take it back: ate sandbox rollout undo --class {}", rollout.class))
}

fn wrong_state(rollout: &Rollout, asked: &str) -> Error {
    let message = format!("the rollout to {} is {} and cannot be {asked}", rollout.to, rollout.phase.as_str());
    Error::new(Reason::WrongState, message).on(rollout.object())
}
