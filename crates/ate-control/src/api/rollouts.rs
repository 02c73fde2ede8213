//! `ate.v1.Rollouts`: bringing existing actors to another revision.

use ate_api::{
    Error, Reason,
    v1::{
        self, ListRolloutsResponse, RolloutRef, StartRolloutRequest,
        rollout::{Condition, Policy, Template, template::State},
        rollouts_server::Rollouts,
    },
};
use tonic::{Request, Response, Status};

use super::{Kind, names};
use crate::{
    access::{Ask, Gate, Verb},
    core::Core,
    records::{MaxUnavailable, Rollout, RolloutPhase, RolloutPolicy, StepState, timestamp},
};

pub(crate) struct RolloutsService(pub(crate) Gate);

#[tonic::async_trait]
impl Rollouts for RolloutsService {
    async fn start_rollout(&self, request: Request<StartRolloutRequest>) -> Result<Response<v1::Rollout>, Status> {
        let ask = Ask::object(Verb::Update, Kind::SandboxConfig, "", &request.get_ref().config);
        let core = self.0.admit(&request, &[ask]).await?.core;
        let r = request.into_inner();
        names::subdomain(&r.config)?;
        let policy = match r.policy() {
            Policy::Unspecified | Policy::NextResume => RolloutPolicy::NextResume,
            Policy::Reboot => RolloutPolicy::Reboot,
            Policy::Keep => RolloutPolicy::Keep,
        };
        let max_unavailable = match r.max_unavailable.as_str() {
            "" => MaxUnavailable::Count(1),
            text => text.parse()?,
        };
        let started = core.start_rollout(&r.sandbox_class, &r.config, policy, max_unavailable).await?;
        answer(&core, &started).await
    }

    async fn get_rollout(&self, request: Request<RolloutRef>) -> Result<Response<v1::Rollout>, Status> {
        let core = self.0.admit(&request, &[see()]).await?.core;
        let rollout = core.rollout(&request.into_inner().sandbox_class)?;
        answer(&core, &rollout).await
    }

    async fn list_rollouts(&self, request: Request<()>) -> Result<Response<ListRolloutsResponse>, Status> {
        let core = self.0.admit(&request, &[see()]).await?.core;
        let mut rollouts = Vec::new();
        for (_, rollout) in core.catalog.rollouts.all() {
            rollouts.push(view(&core, &rollout.value).await?);
        }
        Ok(Response::new(ListRolloutsResponse { rollouts }))
    }

    async fn pause_rollout(&self, request: Request<RolloutRef>) -> Result<Response<v1::Rollout>, Status> {
        let core = self.0.admit(&request, &[steer()]).await?.core;
        let paused = core.pause_rollout(&request.into_inner().sandbox_class).await?;
        answer(&core, &paused).await
    }

    async fn resume_rollout(&self, request: Request<RolloutRef>) -> Result<Response<v1::Rollout>, Status> {
        let core = self.0.admit(&request, &[steer()]).await?.core;
        let resumed = core.resume_rollout(&request.into_inner().sandbox_class).await?;
        answer(&core, &resumed).await
    }

    async fn undo_rollout(&self, request: Request<RolloutRef>) -> Result<Response<v1::Rollout>, Status> {
        let core = self.0.admit(&request, &[steer()]).await?.core;
        let undone = core.undo_rollout(&request.into_inner().sandbox_class).await?;
        answer(&core, &undone).await
    }
}

/// It names templates of all namespaces.
fn see() -> Ask {
    Ask::every(Verb::List, Kind::ActorTemplate)
}

fn steer() -> Ask {
    Ask::all(Verb::Update, Kind::SandboxConfig, "")
}

async fn answer(core: &Core, rollout: &Rollout) -> Result<Response<v1::Rollout>, Status> {
    Ok(Response::new(view(core, rollout).await?))
}

async fn view(core: &Core, rollout: &Rollout) -> Result<v1::Rollout, Error> {
    let left = match core.left(rollout).await {
        // The rest can be told while actors are being counted after a start.
        Err(e) if e.reason == Reason::Unavailable => Default::default(),
        left => left?,
    };
    // Before the moving begins, what there is to move is what is left.
    let total = rollout.total.max(if rollout.phase.is_active() { left.all() } else { 0 });
    let policy = match rollout.policy {
        RolloutPolicy::NextResume => Policy::NextResume,
        RolloutPolicy::Reboot => Policy::Reboot,
        RolloutPolicy::Keep => Policy::Keep,
    };
    Ok(v1::Rollout {
        sandbox_class: rollout.class.clone(),
        to: rollout.to.to_string(),
        policy: policy.into(),
        max_unavailable: rollout.max_unavailable.to_string(),
        phase: phase(rollout.phase).into(),
        started: timestamp(rollout.started_ms).to_string(),
        since: timestamp(rollout.since_ms).to_string(),
        stopped: rollout.stopped.clone().map(|s| Condition {
            reason: s.reason,
            object: s.object,
            message: s.message,
            hint: s.hint,
        }),
        templates: rollout
            .steps
            .iter()
            .map(|s| Template { name: s.template.to_string(), from: s.from.to_string(), state: state(s.state).into() })
            .collect(),
        total,
        moved: total.saturating_sub(left.all()),
        running: left.running,
        at_rest: left.at_rest,
    })
}

fn phase(phase: RolloutPhase) -> v1::rollout::Phase {
    use v1::rollout::Phase;
    match phase {
        RolloutPhase::Building => Phase::Building,
        RolloutPhase::Testing => Phase::Testing,
        RolloutPhase::Moving => Phase::Moving,
        RolloutPhase::Paused => Phase::Paused,
        RolloutPhase::Done => Phase::Done,
        RolloutPhase::Failed => Phase::Failed,
        RolloutPhase::Undone => Phase::Undone,
    }
}

fn state(state: StepState) -> State {
    match state {
        StepState::Waiting => State::Waiting,
        StepState::Building => State::Building,
        StepState::Testing => State::Testing,
        StepState::Passed => State::Passed,
        StepState::Failed => State::Failed,
    }
}
