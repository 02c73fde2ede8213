//! The golden snapshots of a rollout: made under its revision beside the ones there are, restored once, and only then
//! begun with.

use std::sync::Arc;

use ate_api::{
    Error,
    id::{ActorName, Uid},
};
use ate_failpoint::{again, step};
use ate_sandbox::capability;

use crate::{
    core::Core,
    records::{Rollout, RolloutPhase as Phase, SnapshotRecord, Step, StepState, TemplateRecord, keys, now_ms},
};

impl Core {
    /// Templates whose actors still begin under something the rollout replaces.
    pub(super) fn behind(&self, rollout: &Rollout) -> Vec<Arc<TemplateRecord>> {
        let templates = self.catalog.templates.all().into_iter().map(|(_, t)| t.value);
        templates.filter(|t| t.class == rollout.class && !t.deleting && self.is_behind(rollout, t)).collect()
    }

    /// Brings one template to the revision of the rollout.
    pub(super) async fn renew_golden(
        self: &Arc<Self>,
        rollout: &Rollout,
        template: Arc<TemplateRecord>,
    ) -> Result<(), Error> {
        let (name, uid) = (template.name(), template.uid().clone());
        let revision = self.trusted_revision(&rollout.to)?;
        let label = rollout.to.to_string();
        capability::check(&name, &template.resource.spec, &label, &revision.capabilities)?;
        let time = self.options.golden_timeout * self.options.golden_attempts + self.options.capture_timeout;
        let (building, testing) = (StepState::Building, StepState::Testing);
        step!("rollout.building", self.enter_step(rollout, &template, building, Phase::Building, time), repeatable)?;
        let template = self.resolve_images(&name, template).await?;
        let actor = step!("rollout.actor", self.golden_actor_under(rollout, &template), repeatable)?;
        let snapshot = step!("rollout.build", self.golden_snapshot(&actor), repeatable)?;
        step!("rollout.testing", self.enter_step(rollout, &template, testing, Phase::Testing, time), repeatable)?;
        step!("rollout.restore", self.restore_golden(&actor), repeatable)?;
        if !self.goes_on(rollout) {
            return Ok(());
        }
        step!("rollout.record", self.record_golden(&name, &uid, again!(snapshot)), repeatable)?;
        step!("rollout.passed", self.set_step(rollout, &template, StepState::Passed), repeatable)
    }

    /// The golden actor of a template under the revision of the rollout: one there was before, or a new one.
    async fn golden_actor_under(&self, rollout: &Rollout, template: &TemplateRecord) -> Result<ActorName, Error> {
        if let Some(former) = template.goldens().find(|g| g.sandbox == rollout.to)
            && let Some(of) = self.db.get_packed::<SnapshotRecord>(&keys::snapshot(&former.manifest)).await?
        {
            return Ok(of.actor);
        }
        self.ensure_golden_actor(template, Some(&rollout.to), None).await
    }

    /// New actors begin again with what they began with before the rollout. What was moved stays.
    pub(super) async fn take_back(&self, rollout: &Rollout) -> Result<(), Error> {
        for step in &rollout.steps {
            // Its new golden snapshot may have been recorded without our hearing of it.
            self.reload_template(&step.template).await?;
            let Some(template) = self.catalog.template(&step.template, &step.uid).map(|t| t.value) else { continue };
            let moved = template.golden.as_ref().is_some_and(|g| g.sandbox == rollout.to);
            let before = template.former.iter().rev().find(|g| g.sandbox == step.from);
            if let Some(before) = before.filter(|_| moved) {
                let (name, uid) = (&step.template, &step.uid);
                step!("rollout.take-back", self.record_golden(name, uid, before.clone()))?;
            }
        }
        Ok(())
    }

    async fn enter_step(
        &self,
        rollout: &Rollout,
        template: &TemplateRecord,
        state: StepState,
        phase: Phase,
        time: std::time::Duration,
    ) -> Result<(), Error> {
        self.go_on(rollout, |r| {
            set(r, template, state);
            if r.phase != phase {
                // One deadline for both; what waits for a worker has it from the beginning.
                let deadline = r.deadline_ms.filter(|_| r.phase != Phase::Moving);
                r.enter(phase);
                r.deadline_ms = deadline;
            }
            let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
            r.deadline_ms.get_or_insert(now_ms().saturating_add(time));
        })
        .await
    }

    pub(super) async fn set_step(
        &self,
        rollout: &Rollout,
        template: &TemplateRecord,
        state: StepState,
    ) -> Result<(), Error> {
        self.go_on(rollout, |r| {
            set(r, template, state);
            r.deadline_ms = None;
        })
        .await
    }

    /// Whether this rollout still goes on by itself.
    pub(super) fn goes_on(&self, rollout: &Rollout) -> bool {
        let now = self.catalog.rollouts.get(&rollout.class);
        now.is_some_and(|now| now.value.uid == rollout.uid && now.value.phase.is_active())
    }

    /// Changes the record if the rollout still goes on; somebody may have paused or undone it meanwhile.
    pub(super) async fn go_on(&self, rollout: &Rollout, change: impl Fn(&mut Rollout)) -> Result<(), Error> {
        let change = |r: &mut Rollout| {
            if r.uid == rollout.uid && r.phase.is_active() {
                change(r);
            }
            Ok(())
        };
        self.change_rollout(&rollout.class, change).await.map(drop)
    }
}

fn set(rollout: &mut Rollout, template: &TemplateRecord, state: StepState) {
    let uid: &Uid = template.uid();
    match (rollout.step(uid), &template.golden) {
        (Some(step), _) => step.state = state,
        (None, Some(golden)) => rollout.steps.push(Step {
            template: template.name(),
            uid: uid.clone(),
            from: golden.sandbox.clone(),
            state,
        }),
        (None, None) => {}
    }
}
