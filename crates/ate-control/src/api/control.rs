//! `ateapi.Control`.

use std::{collections::HashMap, sync::Arc};

use ate_api::{
    Error, Reason,
    ateapi::{self, control_server::Control, *},
    id::{ActorName, GOLDEN_ATESPACE},
    resource::{self, API_VERSION, ObjectMeta, Resource},
};
use tonic::{Request, Response, Status};

use super::{Kind as ObjectKind, deadline, names};
use crate::{
    access::{Ask, Gate, Verb},
    core::Core,
    db::Stored,
    records::{ActorRecord, Location, Phase, keys},
    scheduler,
    workflow::turns::Kind,
};

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

pub(crate) struct ControlService(pub(crate) Gate);

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Control for ControlService {
    async fn get_actor(&self, request: Request<GetActorRequest>) -> Reply<GetActorResponse> {
        let name = names::actor(request.get_ref().actor_ref.clone())?;
        let core = self.0.admit(&request, &[Ask::actor(Verb::Get, &name)]).await?.core;
        let found = core.load(&name).await?;
        Ok(Response::new(GetActorResponse { actor: Some(actor(&name, &found)) }))
    }

    async fn create_actor(&self, request: Request<CreateActorRequest>) -> Reply<CreateActorResponse> {
        let r = request.get_ref();
        let name = names::new_actor(r.actor_ref.clone())?;
        let template = names::object(&r.actor_template_namespace, &r.actor_template_name)?;
        // Who makes an actor runs its template, so it has to be one they may see.
        let see = Ask::object(Verb::Get, ObjectKind::ActorTemplate, &template.namespace, &template.name);
        let core = self.0.admit(&request, &[Ask::actor(Verb::Create, &name), see]).await?.core;
        let selector = names::selector(request.into_inner().worker_selector)?;
        let created = core.create_actor(&name, &template, selector).await?;
        Ok(Response::new(CreateActorResponse { actor: Some(actor(&name, &created)) }))
    }

    async fn update_actor(&self, request: Request<UpdateActorRequest>) -> Reply<UpdateActorResponse> {
        let name = names::actor(request.get_ref().actor_ref.clone())?;
        names::not_golden(&name)?;
        let core = self.0.admit(&request, &[Ask::actor(Verb::Update, &name)]).await?.core;
        let deadline = deadline::of(request.metadata(), core.options.resume_timeout);
        let selector = names::selector(request.into_inner().worker_selector)?;
        let updated = core.update_actor(&name, selector, deadline).await?;
        Ok(Response::new(UpdateActorResponse { actor: Some(actor(&name, &updated)) }))
    }

    async fn suspend_actor(&self, request: Request<SuspendActorRequest>) -> Reply<SuspendActorResponse> {
        let (name, done) = self.leave(&request, &request.get_ref().actor_ref, Kind::Suspend).await?;
        Ok(Response::new(SuspendActorResponse { actor: Some(actor(&name, &done)) }))
    }

    async fn pause_actor(&self, request: Request<PauseActorRequest>) -> Reply<PauseActorResponse> {
        let (name, done) = self.leave(&request, &request.get_ref().actor_ref, Kind::Pause).await?;
        Ok(Response::new(PauseActorResponse { actor: Some(actor(&name, &done)) }))
    }

    async fn resume_actor(&self, request: Request<ResumeActorRequest>) -> Reply<ResumeActorResponse> {
        let name = names::actor(request.get_ref().actor_ref.clone())?;
        names::not_golden(&name)?;
        let core = self.0.admit(&request, &[Ask::actor(Verb::Resume, &name)]).await?.core;
        let deadline = deadline::of(request.metadata(), core.options.resume_timeout);
        let done = core.resume_record(&name, request.get_ref().boot, deadline).await?;
        Ok(Response::new(ResumeActorResponse { actor: Some(actor(&name, &done)) }))
    }

    async fn delete_actor(&self, request: Request<DeleteActorRequest>) -> Reply<DeleteActorResponse> {
        let name = names::actor(request.get_ref().actor_ref.clone())?;
        names::not_golden(&name)?;
        let core = self.0.admit(&request, &[Ask::actor(Verb::Delete, &name)]).await?.core;
        let deadline = deadline::of(request.metadata(), core.options.resume_timeout);
        core.delete_actor(&name, deadline).await?;
        Ok(Response::new(DeleteActorResponse {}))
    }

    async fn list_workers(&self, request: Request<ListWorkersRequest>) -> Reply<ListWorkersResponse> {
        let core = self.0.admit(&request, &[Ask::all(Verb::List, ObjectKind::Worker, "")]).await?.core;
        let mut found = core.scheduler.workers();
        found.sort_by(|a, b| a.report.id.cmp(&b.report.id));
        let mut workers = Vec::with_capacity(found.len());
        for w in &found {
            workers.push(worker(&core, w).await?);
        }
        Ok(Response::new(ListWorkersResponse { workers }))
    }

    async fn list_actors(&self, request: Request<ListActorsRequest>) -> Reply<ListActorsResponse> {
        let ask = Ask::all(Verb::List, ObjectKind::Actor, &request.get_ref().atespace);
        let admitted = self.0.admit(&request, &[ask]).await?;
        let r = request.into_inner();
        let size = match usize::try_from(r.page_size) {
            Err(_) => return Err(Error::new(Reason::Invalid, "page_size must not be negative").into()),
            Ok(0) => DEFAULT_PAGE,
            Ok(n) => n.min(MAX_PAGE),
        };
        if !r.atespace.is_empty() {
            names::label("atespace", &r.atespace)?;
        }
        let (found, next_page_token) =
            admitted.core.actors_page(&admitted.caller, &r.atespace, &r.page_token, size).await?;
        let actors = found.iter().map(|(name, stored)| actor(name, stored)).collect();
        Ok(Response::new(ListActorsResponse { actors, next_page_token }))
    }

    async fn create_atespace(&self, request: Request<CreateAtespaceRequest>) -> Reply<CreateAtespaceResponse> {
        let name = request.get_ref().name.clone();
        names::label("atespace", &name)?;
        let core = self.0.admit(&request, &[Ask::object(Verb::Create, ObjectKind::Atespace, "", &name)]).await?.core;
        if core.catalog.atespaces.get(&name).is_some() {
            return Err(Error::new(Reason::AlreadyExists, "there is an atespace of this name")
                .on(format!("atespace/{name}"))
                .into());
        }
        let atespace = Resource::Atespace(resource::Atespace {
            api_version: API_VERSION.to_owned(),
            kind: "Atespace".to_owned(),
            metadata: ObjectMeta { name: name.clone(), ..Default::default() },
            spec: Default::default(),
        });
        core.apply_object(atespace).await?;
        Ok(Response::new(CreateAtespaceResponse { atespace: Some(Atespace { name }) }))
    }

    async fn get_atespace(&self, request: Request<GetAtespaceRequest>) -> Reply<GetAtespaceResponse> {
        let name = request.get_ref().name.clone();
        names::label("atespace", &name)?;
        let core = self.0.admit(&request, &[Ask::object(Verb::Get, ObjectKind::Atespace, "", &name)]).await?.core;
        match core.catalog.atespaces.get(&name) {
            Some(_) => Ok(Response::new(GetAtespaceResponse { atespace: Some(Atespace { name }) })),
            None => Err(crate::resources::not_found("atespace", &name).into()),
        }
    }

    async fn list_atespaces(&self, request: Request<ListAtespacesRequest>) -> Reply<ListAtespacesResponse> {
        let admitted = self.0.admit(&request, &[Ask::all(Verb::List, ObjectKind::Atespace, "")]).await?;
        let all = admitted.core.catalog.atespaces.all().into_iter().map(|(name, _)| name);
        let seen = all.filter(|n| admitted.caller.sees(&Ask::object(Verb::List, ObjectKind::Atespace, "", n)));
        let atespaces = seen.map(|name| Atespace { name }).collect();
        Ok(Response::new(ListAtespacesResponse { atespaces }))
    }

    async fn delete_atespace(&self, request: Request<DeleteAtespaceRequest>) -> Reply<DeleteAtespaceResponse> {
        let name = request.get_ref().name.clone();
        names::label("atespace", &name)?;
        let core = self.0.admit(&request, &[Ask::object(Verb::Delete, ObjectKind::Atespace, "", &name)]).await?.core;
        core.delete_atespace(&name).await?;
        Ok(Response::new(DeleteAtespaceResponse {}))
    }

    async fn debug_clear(&self, request: Request<DebugClearRequest>) -> Reply<DebugClearResponse> {
        let core = self.0.admit(&request, &[Ask::every(Verb::Clear, ObjectKind::Actor)]).await?.core;
        if !core.options.debug {
            return Err(Error::new(Reason::PermissionDenied, "DebugClear deletes every actor and is switched off")
                .hint("start the server with debugging on")
                .into());
        }
        let mut actors = Vec::new();
        core.db
            .scan(keys::ACTORS, |key, _| {
                actors.extend(keys::actor_of(&key).filter(|a| a.atespace != GOLDEN_ATESPACE));
                Ok(())
            })
            .await?;
        for name in actors {
            match core.delete_actor(&name, core.default_deadline()).await {
                Err(e) if e.reason != Reason::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        Ok(Response::new(DebugClearResponse {}))
    }
}

impl ControlService {
    async fn leave<T>(
        &self,
        request: &Request<T>,
        reference: &Option<ActorRef>,
        kind: Kind,
    ) -> Result<(ActorName, Arc<Stored<ActorRecord>>), Status> {
        let name = names::actor(reference.clone())?;
        names::not_golden(&name)?;
        let verb = if kind == Kind::Pause { Verb::Pause } else { Verb::Suspend };
        let core = self.0.admit(request, &[Ask::actor(verb, &name)]).await?.core;
        let deadline = deadline::of(request.metadata(), core.options.capture_timeout);
        let done = core.suspend(&name, kind, deadline, core.options.drain).await?;
        Ok((name, done))
    }
}

fn actor(name: &ActorName, stored: &Stored<ActorRecord>) -> ateapi::Actor {
    let a = &stored.value;
    let status = match a.phase {
        Phase::Resuming => ateapi::actor::Status::Resuming,
        Phase::Running => ateapi::actor::Status::Running,
        Phase::Suspending => ateapi::actor::Status::Suspending,
        Phase::Suspended => ateapi::actor::Status::Suspended,
        Phase::Pausing => ateapi::actor::Status::Pausing,
        Phase::Paused => ateapi::actor::Status::Paused,
    };
    let seat = a.seat.as_ref();
    ateapi::Actor {
        actor_id: name.name.clone(),
        atespace: name.atespace.clone(),
        version: i64::try_from(stored.version).unwrap_or(i64::MAX),
        actor_template_namespace: a.template.namespace.clone(),
        actor_template_name: a.template.name.clone(),
        status: status.into(),
        ateom_pod_namespace: seat.map(|s| s.pool.namespace.clone()).unwrap_or_default(),
        ateom_pod_name: seat.map(|s| s.worker.to_string()).unwrap_or_default(),
        ateom_pod_ip: seat.and_then(|s| s.address).map(|ip| ip.to_string()).unwrap_or_default(),
        ateom_pod_uid: seat.map(|s| s.worker.to_string()).unwrap_or_default(),
        in_progress_snapshot: match a.phase {
            Phase::Suspending | Phase::Pausing => format!("generation {}", a.last_generation),
            _ => String::new(),
        },
        latest_snapshot_info: a.snapshot.as_ref().map(snapshot_info),
        worker_selector: (!a.selector.is_empty())
            .then(|| Selector { match_labels: a.selector.clone().into_iter().collect::<HashMap<_, _>>() }),
        worker_pool_name: seat.map(|s| s.pool.name.clone()).unwrap_or_default(),
        uid: a.uid.to_string(),
        activation: a.activation.0,
        message: a.message.clone(),
    }
}

fn snapshot_info(s: &crate::records::Snapshot) -> SnapshotInfo {
    let (r#type, data) = match &s.location {
        Location::Node(node) => (
            SnapshotType::Local,
            snapshot_info::Data::Local(LocalSnapshotInfo {
                snapshot_prefix: s.manifest.to_string(),
                node_vms_with_local_snapshots: vec![node.clone()],
            }),
        ),
        Location::Url(prefix) => (
            SnapshotType::External,
            snapshot_info::Data::External(ExternalSnapshotInfo { snapshot_uri_prefix: prefix.clone() }),
        ),
    };
    SnapshotInfo {
        r#type: r#type.into(),
        data: Some(data),
        manifest_digest: s.manifest.to_string(),
        generation: s.generation,
    }
}

async fn worker(core: &Core, w: &scheduler::Worker) -> Result<ateapi::Worker, Error> {
    let holder = w.holder();
    let template = match holder {
        Some(h) => core.load(&h.actor).await.ok().map(|a| a.value.template),
        None => None,
    };
    Ok(ateapi::Worker {
        worker_namespace: w.report.pool.namespace.clone(),
        worker_pool: w.report.pool.name.clone(),
        worker_pod: w.report.pod.as_ref().map_or_else(|| w.report.id.to_string(), |pod| pod.name.clone()),
        actor_namespace: template.as_ref().map_or(String::new(), |t| t.namespace.clone()),
        actor_template: template.map(|t| t.name).unwrap_or_default(),
        actor_id: holder.map(|h| h.actor.name.clone()).unwrap_or_default(),
        ip: w.report.address.to_string(),
        version: i64::try_from(w.uses).unwrap_or(i64::MAX),
        worker_pod_uid: w.report.pod.as_ref().map_or_else(|| w.report.id.to_string(), |pod| pod.uid.clone()),
        node_name: w.report.node.clone(),
        actor_atespace: holder.map(|h| h.actor.atespace.clone()).unwrap_or_default(),
    })
}
