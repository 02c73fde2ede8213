//! `ateapi.Control`.

use std::{collections::HashMap, sync::Arc};

use ate_api::{
    Error, Reason,
    ateapi::{self, control_server::Control, *},
    id::{ActorName, GOLDEN_ATESPACE},
    resource::{self, API_VERSION, ObjectMeta, Resource},
};
use tonic::{Request, Response, Status};

use super::{deadline, names};
use crate::{
    core::Core,
    db::Stored,
    records::{ActorRecord, Location, Phase, keys, unpack},
    scheduler,
    workflow::turns::Kind,
};

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

pub(crate) struct ControlService(pub(crate) Arc<Core>);

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Control for ControlService {
    async fn get_actor(&self, request: Request<GetActorRequest>) -> Reply<GetActorResponse> {
        let name = names::actor(request.into_inner().actor_ref)?;
        let found = self.0.load(&name).await?;
        Ok(Response::new(GetActorResponse { actor: Some(actor(&name, &found)) }))
    }

    async fn create_actor(&self, request: Request<CreateActorRequest>) -> Reply<CreateActorResponse> {
        let r = request.into_inner();
        let name = names::new_actor(r.actor_ref)?;
        let template = names::object(&r.actor_template_namespace, &r.actor_template_name)?;
        let created = self.0.create_actor(&name, &template, names::selector(r.worker_selector)?).await?;
        Ok(Response::new(CreateActorResponse { actor: Some(actor(&name, &created)) }))
    }

    async fn update_actor(&self, request: Request<UpdateActorRequest>) -> Reply<UpdateActorResponse> {
        let deadline = deadline::of(request.metadata(), self.0.options.resume_timeout);
        let r = request.into_inner();
        let name = names::actor(r.actor_ref)?;
        not_golden(&name)?;
        let updated = self.0.update_actor(&name, names::selector(r.worker_selector)?, deadline).await?;
        Ok(Response::new(UpdateActorResponse { actor: Some(actor(&name, &updated)) }))
    }

    async fn suspend_actor(&self, request: Request<SuspendActorRequest>) -> Reply<SuspendActorResponse> {
        let (name, done) = self.leave(request.metadata(), &request.get_ref().actor_ref, Kind::Suspend).await?;
        Ok(Response::new(SuspendActorResponse { actor: Some(actor(&name, &done)) }))
    }

    async fn pause_actor(&self, request: Request<PauseActorRequest>) -> Reply<PauseActorResponse> {
        let (name, done) = self.leave(request.metadata(), &request.get_ref().actor_ref, Kind::Pause).await?;
        Ok(Response::new(PauseActorResponse { actor: Some(actor(&name, &done)) }))
    }

    async fn resume_actor(&self, request: Request<ResumeActorRequest>) -> Reply<ResumeActorResponse> {
        let deadline = deadline::of(request.metadata(), self.0.options.resume_timeout);
        let r = request.into_inner();
        let name = names::actor(r.actor_ref)?;
        not_golden(&name)?;
        let done = self.0.resume_record(&name, r.boot, deadline).await?;
        Ok(Response::new(ResumeActorResponse { actor: Some(actor(&name, &done)) }))
    }

    async fn delete_actor(&self, request: Request<DeleteActorRequest>) -> Reply<DeleteActorResponse> {
        let deadline = deadline::of(request.metadata(), self.0.options.resume_timeout);
        let name = names::actor(request.into_inner().actor_ref)?;
        not_golden(&name)?;
        self.0.delete_actor(&name, deadline).await?;
        Ok(Response::new(DeleteActorResponse {}))
    }

    async fn list_workers(&self, _: Request<ListWorkersRequest>) -> Reply<ListWorkersResponse> {
        let mut found = self.0.scheduler.workers();
        found.sort_by(|a, b| a.report.id.cmp(&b.report.id));
        let mut workers = Vec::with_capacity(found.len());
        for w in &found {
            workers.push(worker(&self.0, w).await?);
        }
        Ok(Response::new(ListWorkersResponse { workers }))
    }

    async fn list_actors(&self, request: Request<ListActorsRequest>) -> Reply<ListActorsResponse> {
        let r = request.into_inner();
        let size = match usize::try_from(r.page_size) {
            Err(_) => return Err(Error::new(Reason::Invalid, "page_size must not be negative").into()),
            Ok(0) => DEFAULT_PAGE,
            Ok(n) => n.min(MAX_PAGE),
        };
        let mut prefix = keys::ACTORS.to_owned();
        if !r.atespace.is_empty() {
            names::label("atespace", &r.atespace)?;
            prefix = format!("{prefix}{}/", r.atespace);
        }
        let after = (!r.page_token.is_empty()).then_some(r.page_token.as_str());
        if after.is_some_and(|t| !t.starts_with(&prefix)) {
            return Err(Error::new(Reason::Invalid, "page_token is not one of this list").into());
        }
        let page = self.0.db.page(&prefix, after, size).await?;
        let next_page_token =
            if page.len() == size { page.last().map(|(k, _)| k.clone()).unwrap_or_default() } else { String::new() };
        let mut actors = Vec::with_capacity(page.len());
        for (key, v) in page {
            let Some(name) = keys::actor_of(&key) else { continue };
            let stored = Stored { version: v.version, value: unpack(&key, &v.value)? };
            actors.push(actor(&name, &self.0.freshest(&name, stored)));
        }
        Ok(Response::new(ListActorsResponse { actors, next_page_token }))
    }

    async fn create_atespace(&self, request: Request<CreateAtespaceRequest>) -> Reply<CreateAtespaceResponse> {
        let name = request.into_inner().name;
        names::label("atespace", &name)?;
        if self.0.catalog.atespaces.get(&name).is_some() {
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
        self.0.apply_object(atespace).await?;
        Ok(Response::new(CreateAtespaceResponse { atespace: Some(Atespace { name }) }))
    }

    async fn get_atespace(&self, request: Request<GetAtespaceRequest>) -> Reply<GetAtespaceResponse> {
        let name = request.into_inner().name;
        names::label("atespace", &name)?;
        match self.0.catalog.atespaces.get(&name) {
            Some(_) => Ok(Response::new(GetAtespaceResponse { atespace: Some(Atespace { name }) })),
            None => Err(crate::resources::not_found("atespace", &name).into()),
        }
    }

    async fn list_atespaces(&self, _: Request<ListAtespacesRequest>) -> Reply<ListAtespacesResponse> {
        let atespaces = self.0.catalog.atespaces.all().into_iter().map(|(name, _)| Atespace { name }).collect();
        Ok(Response::new(ListAtespacesResponse { atespaces }))
    }

    async fn delete_atespace(&self, request: Request<DeleteAtespaceRequest>) -> Reply<DeleteAtespaceResponse> {
        let name = request.into_inner().name;
        names::label("atespace", &name)?;
        self.0.delete_atespace(&name).await?;
        Ok(Response::new(DeleteAtespaceResponse {}))
    }

    async fn debug_clear(&self, _: Request<DebugClearRequest>) -> Reply<DebugClearResponse> {
        if !self.0.options.debug {
            return Err(Error::new(Reason::PermissionDenied, "DebugClear deletes every actor and is switched off")
                .hint("start the server with debugging on")
                .into());
        }
        let mut actors = Vec::new();
        self.0
            .db
            .scan(keys::ACTORS, |key, _| {
                actors.extend(keys::actor_of(&key).filter(|a| a.atespace != GOLDEN_ATESPACE));
                Ok(())
            })
            .await?;
        for name in actors {
            match self.0.delete_actor(&name, self.0.default_deadline()).await {
                Err(e) if e.reason != Reason::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        Ok(Response::new(DebugClearResponse {}))
    }
}

impl ControlService {
    async fn leave(
        &self,
        metadata: &tonic::metadata::MetadataMap,
        reference: &Option<ActorRef>,
        kind: Kind,
    ) -> Result<(ActorName, Arc<Stored<ActorRecord>>), Status> {
        let deadline = deadline::of(metadata, self.0.options.capture_timeout);
        let name = names::actor(reference.clone())?;
        not_golden(&name)?;
        let done = self.0.suspend(&name, kind, deadline, self.0.options.drain).await?;
        Ok((name, done))
    }
}

fn not_golden(name: &ActorName) -> Result<(), Error> {
    if name.atespace != GOLDEN_ATESPACE {
        return Ok(());
    }
    Err(Error::new(Reason::PermissionDenied, "golden actors belong to the system").on(format!("actor/{name}")))
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
        worker_pod: w.report.id.to_string(),
        actor_namespace: template.as_ref().map_or(String::new(), |t| t.namespace.clone()),
        actor_template: template.map(|t| t.name).unwrap_or_default(),
        actor_id: holder.map(|h| h.actor.name.clone()).unwrap_or_default(),
        ip: w.report.address.to_string(),
        version: i64::try_from(w.uses).unwrap_or(i64::MAX),
        worker_pod_uid: w.report.id.to_string(),
        node_name: core.node.name().to_owned(),
        actor_atespace: holder.map(|h| h.actor.atespace.clone()).unwrap_or_default(),
    })
}
