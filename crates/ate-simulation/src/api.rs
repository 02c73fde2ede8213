//! The real gRPC services of a control plane, called in the same process as root on the machine would call them.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use ate_api::{
    Error,
    ateapi::{self, control_client::ControlClient},
    id::{ActorName, WorkerId},
    v1::{
        self, resources_client::ResourcesClient, revocations_client::RevocationsClient, rollouts_client::RolloutsClient,
    },
};
use ate_control::Control;
use serde_json::Value;
use tonic::{
    Request,
    body::Body,
    codegen::http,
    service::Routes,
    transport::{Uri, server::UdsConnectInfo},
};
use tower::Service;

/// A connection without a wire: the caller's user is told as a unix socket would tell it.
#[derive(Clone)]
pub(crate) struct Local {
    routes: Routes,
    peer: UdsConnectInfo,
}

impl Service<http::Request<Body>> for Local {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = <Routes as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.routes, cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        self.routes.call(request)
    }
}

#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) control: Control,
    actors: ControlClient<Local>,
    resources: ResourcesClient<Local>,
    revocations: RevocationsClient<Local>,
    rollouts: RolloutsClient<Local>,
}

type Answer<T> = Result<T, Error>;

fn answer<T>(result: Result<tonic::Response<T>, tonic::Status>) -> Answer<T> {
    result.map(tonic::Response::into_inner).map_err(|s| Error::from(&s))
}

fn reference(actor: &ActorName) -> Option<ateapi::ActorRef> {
    Some(ateapi::ActorRef { atespace: actor.atespace.clone(), name: actor.name.clone() })
}

fn within<T>(patience: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(patience);
    request
}

impl Api {
    pub(crate) async fn of(control: Control) -> std::io::Result<Api> {
        let (ours, _theirs) = tokio::net::UnixStream::pair()?;
        let peer = UdsConnectInfo { peer_addr: None, peer_cred: Some(ours.peer_cred()?) };
        let local = Local { routes: control.services().await, peer };
        let origin = Uri::from_static("http://simulation");
        Ok(Api {
            actors: ControlClient::with_origin(local.clone(), origin.clone()),
            resources: ResourcesClient::with_origin(local.clone(), origin.clone()),
            revocations: RevocationsClient::with_origin(local.clone(), origin.clone()),
            rollouts: RolloutsClient::with_origin(local, origin),
            control,
        })
    }

    pub(crate) async fn create(&self, actor: &ActorName, template: &str) -> Answer<()> {
        let request = ateapi::CreateActorRequest {
            actor_ref: reference(actor),
            actor_template_namespace: "default".to_owned(),
            actor_template_name: template.to_owned(),
            worker_selector: None,
        };
        answer(self.actors.clone().create_actor(request).await).map(drop)
    }

    pub(crate) async fn resume(&self, actor: &ActorName, boot: bool, patience: Duration) -> Answer<()> {
        let request = within(patience, ateapi::ResumeActorRequest { actor_ref: reference(actor), boot });
        answer(self.actors.clone().resume_actor(request).await).map(drop)
    }

    /// Returns the generation it is at rest with.
    pub(crate) async fn suspend(&self, actor: &ActorName, patience: Duration) -> Answer<Option<u64>> {
        let request = within(patience, ateapi::SuspendActorRequest { actor_ref: reference(actor) });
        answer(self.actors.clone().suspend_actor(request).await).map(|a| generation(a.actor))
    }

    pub(crate) async fn pause(&self, actor: &ActorName, patience: Duration) -> Answer<Option<u64>> {
        let request = within(patience, ateapi::PauseActorRequest { actor_ref: reference(actor) });
        answer(self.actors.clone().pause_actor(request).await).map(|a| generation(a.actor))
    }

    pub(crate) async fn delete(&self, actor: &ActorName, patience: Duration) -> Answer<()> {
        let request = within(patience, ateapi::DeleteActorRequest { actor_ref: reference(actor) });
        answer(self.actors.clone().delete_actor(request).await).map(drop)
    }

    pub(crate) async fn apply(&self, object: &Value) -> Answer<()> {
        let request = v1::ApplyRequest { json: object.to_string().into_bytes(), dry_run: false };
        answer(self.resources.clone().apply(request).await).map(drop)
    }

    pub(crate) async fn get(&self, kind: &str, name: &str) -> Answer<Value> {
        let request = v1::ObjectRef { kind: kind.to_owned(), namespace: "default".to_owned(), name: name.to_owned() };
        Ok(json(&answer(self.resources.clone().get(request).await)?))
    }

    /// Phase of each worker, as it is shown.
    pub(crate) async fn workers(&self) -> Answer<Vec<(WorkerId, String)>> {
        let request = v1::ListRequest { kind: "Worker".to_owned(), page_size: 1000, ..Default::default() };
        let all = answer(self.resources.clone().list(request).await)?.objects;
        let shown = all.iter().map(json).map(|o| {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            (WorkerId(text(&o["metadata"]["name"])), text(&o["status"]["phase"]))
        });
        Ok(shown.collect())
    }

    pub(crate) async fn revoke(&self, digest: &str, stop: bool) -> Answer<()> {
        let request = v1::RevokeRequest { digest: digest.to_owned(), reason: "a drill".to_owned(), stop };
        answer(self.revocations.clone().revoke(request).await).map(drop)
    }

    pub(crate) async fn unrevoke(&self, digest: &str) -> Answer<()> {
        let request = v1::UnrevokeRequest { digest: digest.to_owned() };
        answer(self.revocations.clone().unrevoke(request).await).map(drop)
    }

    pub(crate) async fn start_rollout(&self, config: &str, policy: v1::rollout::Policy) -> Answer<()> {
        let request = v1::StartRolloutRequest {
            sandbox_class: super::objects::CLASS.to_owned(),
            config: config.to_owned(),
            policy: policy.into(),
            max_unavailable: "2".to_owned(),
        };
        answer(self.rollouts.clone().start_rollout(request).await).map(drop)
    }

    pub(crate) async fn undo_rollout(&self) -> Answer<()> {
        let request = v1::RolloutRef { sandbox_class: super::objects::CLASS.to_owned() };
        answer(self.rollouts.clone().undo_rollout(request).await).map(drop)
    }
}

fn generation(actor: Option<ateapi::Actor>) -> Option<u64> {
    actor?.latest_snapshot_info.map(|s| s.generation)
}

fn json(object: &v1::Object) -> Value {
    serde_json::from_slice(&object.json).unwrap_or_default()
}
