//! `ate.v1.Resources`: declarative objects and views, all as JSON.

use std::collections::BTreeMap;

use ate_agent::AssetReport;
use ate_api::{
    Error, Reason,
    id::{Digest, ObjectName, WorkerId},
    resource::{Invalid, Resource, validate_update},
    v1::{
        ApplyRequest, ApplyResponse, DeleteRequest, ListRequest, ListResponse, Object, ObjectRef, WatchRequest,
        apply_response::Outcome, resources_server::Resources,
    },
};
use tonic::{Request, Response, Status};

use super::{names, views, watch};
use crate::{
    access::{Ask, Gate, Verb, caller::Caller},
    core::Core,
    records::{AtespaceRecord, SnapshotRecord, keys, unpack},
    resources::{Applied, admission, defaults, in_use, not_found},
};

const DEFAULT_PAGE: usize = 200;
const MAX_PAGE: usize = 1000;
/// Actors counted for an atespace's status; a list of atespaces must not become a scan of all actors.
const COUNTED: usize = in_use::COUNTED;

pub(crate) struct ResourcesService(pub(crate) Gate);

/// Every kind there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Atespace,
    SandboxConfig,
    WorkerPool,
    ActorTemplate,
    Actor,
    Worker,
    Snapshot,
    Asset,
    Token,
}

impl Kind {
    #[cfg(test)]
    pub(crate) const ALL: [Kind; 9] = [
        Kind::Atespace,
        Kind::SandboxConfig,
        Kind::WorkerPool,
        Kind::ActorTemplate,
        Kind::Actor,
        Kind::Worker,
        Kind::Snapshot,
        Kind::Asset,
        Kind::Token,
    ];

    /// As in `actor/default/a`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Atespace => "atespace",
            Kind::SandboxConfig => "sandboxconfig",
            Kind::WorkerPool => "workerpool",
            Kind::ActorTemplate => "actortemplate",
            Kind::Actor => "actor",
            Kind::Worker => "worker",
            Kind::Snapshot => "snapshot",
            Kind::Asset => "asset",
            Kind::Token => "token",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Kind, Error> {
        Ok(match text {
            "Atespace" => Kind::Atespace,
            "SandboxConfig" => Kind::SandboxConfig,
            "WorkerPool" => Kind::WorkerPool,
            "ActorTemplate" => Kind::ActorTemplate,
            "Actor" => Kind::Actor,
            "Worker" => Kind::Worker,
            "Snapshot" => Kind::Snapshot,
            "Asset" => Kind::Asset,
            "Token" => Kind::Token,
            other => {
                let shown: String = other.chars().take(80).collect();
                return Err(Error::new(Reason::Invalid, format!("unknown kind {shown:?}")));
            }
        })
    }
}

#[tonic::async_trait]
impl Resources for ResourcesService {
    type WatchStream = watch::Events;

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let resource = admission::parse(&request.get_ref().json)?;
        let core = self.0.admit(&request, &[Ask::apply(&resource)]).await?.core;
        core.is_declared_here(resource.kind()).map_err(|e| e.on(resource.label()))?;
        let (applied, object) =
            if request.get_ref().dry_run { core.dry_run(&resource)? } else { core.apply_object(resource).await? };
        let outcome = match applied {
            Applied::Created => Outcome::Created,
            Applied::Configured => Outcome::Configured,
            Applied::Unchanged => Outcome::Unchanged,
        };
        Ok(Response::new(ApplyResponse { outcome: outcome.into(), object: Some(object) }))
    }

    async fn get(&self, request: Request<ObjectRef>) -> Result<Response<Object>, Status> {
        let r = request.get_ref();
        let kind = Kind::parse(&r.kind)?;
        let mut admitted = self.0.admit(&request, &[Ask::object(Verb::Get, kind, &r.namespace, &r.name)]).await?;
        if kind == Kind::Snapshot {
            let (record, version) = admitted.core.find_snapshot(&r.name).await?;
            admitted.check(&Ask::snapshot(Verb::Get, &record)).await?;
            let current = admitted.core.is_current(&record).await?;
            return Ok(Response::new(views::snapshot(&admitted.core, &record, current, version)?));
        }
        Ok(Response::new(admitted.core.get_object(kind, &r.namespace, &r.name).await?))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let kind = Kind::parse(&request.get_ref().kind)?;
        let admitted = self.0.admit(&request, &[Ask::all(Verb::List, kind, &request.get_ref().namespace)]).await?;
        let r = request.into_inner();
        let size = match r.page_size {
            0 => DEFAULT_PAGE,
            n => (n as usize).min(MAX_PAGE),
        };
        if !r.namespace.is_empty() {
            names::label("namespace", &r.namespace)?;
        }
        let (objects, next_page_token) =
            admitted.core.list_objects(&admitted.caller, kind, &r.namespace, &r.page_token, size).await?;
        Ok(Response::new(ListResponse { objects, next_page_token }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<()>, Status> {
        let DeleteRequest { r#ref, force } = request.get_ref().clone();
        let r = r#ref.ok_or_else(|| Error::new(Reason::Invalid, "ref is missing"))?;
        let kind = Kind::parse(&r.kind)?;
        let core = self.0.admit(&request, &[Ask::object(Verb::Delete, kind, &r.namespace, &r.name)]).await?.core;
        if force && !matches!(kind, Kind::SandboxConfig | Kind::Asset) {
            return Err(Error::new(Reason::Invalid, format!("a {} cannot be deleted with force", r.kind)).into());
        }
        core.is_declared_here(&r.kind)?;
        match kind {
            Kind::Atespace => {
                names::label("atespace", &r.name)?;
                core.delete_atespace(&r.name).await?;
            }
            Kind::SandboxConfig => {
                names::subdomain(&r.name)?;
                core.delete_config(&r.name, force).await?;
            }
            Kind::WorkerPool => core.delete_pool(&names::object(&r.namespace, &r.name)?).await?,
            Kind::ActorTemplate => core.delete_template(&names::object(&r.namespace, &r.name)?).await?,
            Kind::Actor => {
                let name = names::actor_object(&r.namespace, &r.name)?;
                names::not_golden(&name)?;
                core.delete_actor(&name, core.default_deadline()).await?;
            }
            Kind::Asset => core.delete_asset(&names::digest(&r.name)?, force).await?,
            Kind::Token => core.revoke_token(&r.name).await?,
            Kind::Worker | Kind::Snapshot => {
                return Err(Error::new(Reason::Invalid, format!("a {} cannot be deleted by hand", r.kind))
                    .hint("it goes when nothing needs it any more")
                    .into());
            }
        }
        Ok(Response::new(()))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let r = request.get_ref();
        let kind = Kind::parse(&r.kind)?;
        let ask = match r.name.as_str() {
            "" => Ask::all(Verb::Watch, kind, &r.namespace),
            // Without a namespace, objects of this name in all the spaces the caller sees.
            name => Ask { name: name.to_owned(), ..Ask::all(Verb::Watch, kind, &r.namespace) },
        };
        let admitted = self.0.admit(&request, &[ask]).await?;
        let r = request.into_inner();
        Ok(Response::new(watch::start(admitted, kind, r.namespace, r.name).await?))
    }
}

impl Core {
    pub(crate) async fn apply_object(&self, resource: Resource) -> Result<(Applied, Object), Error> {
        Ok(match resource {
            Resource::Atespace(atespace) => {
                let (applied, e) = self.apply_atespace(atespace).await?;
                let actors = self.count_actors(&e.value.resource.metadata.name).await?;
                (applied, views::atespace(&e.value, e.version, actors)?)
            }
            Resource::SandboxConfig(config) => {
                let (applied, e) = self.apply_config(config).await?;
                (applied, views::object("SandboxConfig", &e.value.resource.metadata, e.version, &e.value.resource)?)
            }
            Resource::WorkerPool(pool) => {
                let (applied, e) = self.apply_pool(pool).await?;
                (applied, views::object("WorkerPool", &e.value.resource.metadata, e.version, &e.value.resource)?)
            }
            Resource::ActorTemplate(template) => {
                let (applied, e) = self.apply_template(template).await?;
                (applied, views::object("ActorTemplate", &e.value.resource.metadata, e.version, &e.value.resource)?)
            }
        })
    }

    pub(crate) async fn count_actors(&self, atespace: &str) -> Result<u64, Error> {
        let found = self.db.first_keys(&format!("{}{atespace}/", keys::ACTORS), COUNTED).await?;
        Ok(found.len() as u64)
    }

    pub(crate) async fn get_object(&self, kind: Kind, namespace: &str, name: &str) -> Result<Object, Error> {
        match kind {
            Kind::Atespace => {
                let found = self.catalog.atespaces.get(&name.to_owned()).ok_or_else(|| not_found("atespace", name))?;
                views::atespace(&found.value, found.version, self.count_actors(name).await?)
            }
            Kind::SandboxConfig => {
                let found =
                    self.catalog.configs.get(&name.to_owned()).ok_or_else(|| not_found("sandboxconfig", name))?;
                let r = &found.value.resource;
                views::object("SandboxConfig", &r.metadata, found.version, r)
            }
            Kind::WorkerPool => {
                let name = names::object(namespace, name)?;
                let found = self.catalog.pools.get(&name).ok_or_else(|| not_found("workerpool", &name.to_string()))?;
                let r = &found.value.resource;
                views::object("WorkerPool", &r.metadata, found.version, r)
            }
            Kind::ActorTemplate => {
                let name = names::object(namespace, name)?;
                let found =
                    self.catalog.templates.get(&name).ok_or_else(|| not_found("actortemplate", &name.to_string()))?;
                let r = &found.value.resource;
                views::object("ActorTemplate", &r.metadata, found.version, r)
            }
            Kind::Actor => {
                let name = names::actor_object(namespace, name)?;
                let found = self.load(&name).await?;
                views::actor(self, &name, &found.value, found.version)
            }
            Kind::Worker => {
                let found = self.scheduler.worker(&WorkerId(name.to_owned()));
                views::worker(self, &found.ok_or_else(|| not_found("worker", name))?)
            }
            Kind::Snapshot => {
                let (record, version) = self.find_snapshot(name).await?;
                views::snapshot(self, &record, self.is_current(&record).await?, version)
            }
            Kind::Asset => {
                let digest = Digest::parse(name).ok_or_else(|| not_found("asset", name))?;
                let reports = self.asset_reports().await?;
                match reports.get(&digest) {
                    Some(report) => views::asset(self, &digest, report.as_ref()),
                    None => Err(not_found("asset", name)),
                }
            }
            Kind::Token => {
                let found = self.access.tokens.get(name).ok_or_else(|| not_found("token", name))?;
                views::token(found.version, &found.record)
            }
        }
    }

    /// By its whole digest or by a beginning of it that only one snapshot has.
    async fn find_snapshot(&self, name: &str) -> Result<(SnapshotRecord, u64), Error> {
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        if hex.len() < 4 || hex.len() > 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(not_found("snapshot", name));
        }
        let mut found = self.db.page(&format!("{}{hex}", keys::SNAPSHOTS), None, 2).await?;
        match (found.pop(), found.is_empty()) {
            (Some((key, v)), true) => Ok((unpack(&key, &v.value)?, v.version)),
            (Some(_), false) => {
                Err(Error::new(Reason::Invalid, "more than one snapshot begins like this")
                    .on(format!("snapshot/{name}")))
            }
            (None, _) => Err(not_found("snapshot", name)),
        }
    }

    pub(crate) async fn is_current(&self, record: &SnapshotRecord) -> Result<bool, Error> {
        let owner = self.db.find_actor(&record.actor).await?;
        Ok(owner.is_some_and(|o| o.value.snapshot.as_ref().is_some_and(|s| s.manifest == record.snapshot.manifest)))
    }

    /// One page of what the caller sees, and the token of the next.
    pub(crate) async fn list_objects(
        &self,
        caller: &Caller,
        kind: Kind,
        namespace: &str,
        token: &str,
        size: usize,
    ) -> Result<(Vec<Object>, String), Error> {
        let mut objects = Vec::new();
        let here = |ns: &str| namespace.is_empty() || ns == namespace;
        let sees = |ns: &str, name: &str| caller.sees(&Ask::object(Verb::List, kind, ns, name));
        match kind {
            Kind::Atespace => {
                for (name, e) in self.catalog.atespaces.all().into_iter().filter(|(n, _)| sees("", n)) {
                    objects.push(views::atespace(&e.value, e.version, self.count_actors(&name).await?)?);
                }
            }
            Kind::SandboxConfig => {
                for (_, e) in self.catalog.configs.all() {
                    objects.push(views::object(
                        "SandboxConfig",
                        &e.value.resource.metadata,
                        e.version,
                        &e.value.resource,
                    )?);
                }
            }
            Kind::WorkerPool => {
                for (_, e) in self.catalog.pools.all().into_iter().filter(|(n, _)| here(&n.namespace)) {
                    objects.push(views::object(
                        "WorkerPool",
                        &e.value.resource.metadata,
                        e.version,
                        &e.value.resource,
                    )?);
                }
            }
            Kind::ActorTemplate => {
                let all = self.catalog.templates.all().into_iter();
                for (_, e) in all.filter(|(n, _)| here(&n.namespace) && sees(&n.namespace, &n.name)) {
                    objects.push(views::object(
                        "ActorTemplate",
                        &e.value.resource.metadata,
                        e.version,
                        &e.value.resource,
                    )?);
                }
            }
            Kind::Worker => {
                let mut workers = self.scheduler.workers();
                workers.retain(|w| here(&w.report.pool.namespace));
                workers.sort_by(|a, b| a.report.id.cmp(&b.report.id));
                for w in workers {
                    objects.push(views::worker(self, &w)?);
                }
            }
            Kind::Asset => {
                for (digest, report) in self.asset_reports().await? {
                    objects.push(views::asset(self, &digest, report.as_ref())?);
                }
            }
            Kind::Token => {
                for token in self.access.tokens.all() {
                    objects.push(views::token(token.version, &token.record)?);
                }
            }
            Kind::Actor => return self.list_actors(caller, namespace, token, size).await,
            Kind::Snapshot => return self.list_snapshots(caller, namespace, token, size).await,
        }
        Ok((objects, String::new()))
    }

    async fn list_actors(
        &self,
        caller: &Caller,
        atespace: &str,
        token: &str,
        size: usize,
    ) -> Result<(Vec<Object>, String), Error> {
        let (page, next) = self.actors_page(caller, atespace, token, size).await?;
        let objects = page.iter().map(|(name, a)| views::actor(self, name, &a.value, a.version));
        Ok((objects.collect::<Result<_, _>>()?, next))
    }

    async fn list_snapshots(
        &self,
        caller: &Caller,
        namespace: &str,
        token: &str,
        size: usize,
    ) -> Result<(Vec<Object>, String), Error> {
        let (page, next) = self.snapshots_page(caller, token, size).await?;
        let mut objects = Vec::with_capacity(page.len());
        for (record, version) in page {
            let object = views::snapshot(self, &record, self.is_current(&record).await?, version)?;
            if namespace.is_empty() || object.namespace == namespace {
                objects.push(object);
            }
        }
        Ok((objects, next))
    }

    /// Assets the node has or fetches, and those some revision needs.
    pub(crate) async fn asset_reports(&self) -> Result<BTreeMap<Digest, Option<AssetReport>>, Error> {
        let mut found: BTreeMap<Digest, Option<AssetReport>> = BTreeMap::new();
        for (_, revision) in self.catalog.revisions.all() {
            found.extend(revision.value.reference.assets.iter().map(|a| (a.sha256.clone(), None)));
        }
        found.extend(self.node.assets().await?.into_iter().map(|r| (r.sha256.clone(), Some(r))));
        Ok(found)
    }
}

impl Core {
    /// The same checks, nothing written.
    fn dry_run(&self, new: &Resource) -> Result<(Applied, Object), Error> {
        let meta = new.metadata();
        let name = ObjectName::new(&meta.namespace, &meta.name);
        let (old, object) = match new {
            Resource::Atespace(a) => {
                let record = AtespaceRecord { resource: a.clone(), deleting: false };
                let old =
                    self.catalog.atespaces.get(&a.metadata.name).map(|o| Resource::Atespace(o.value.resource.clone()));
                (old, views::atespace(&record, 0, 0)?)
            }
            Resource::SandboxConfig(c) => {
                let class = &self.classes.get(&c.spec.sandbox_class)?.descriptor;
                defaults::check(class, c)?;
                ate_sandbox::config::pin(class, &meta.name, 0, &c.spec, &self.options.arch)?;
                let old =
                    self.catalog.configs.get(&meta.name).map(|o| Resource::SandboxConfig(o.value.resource.clone()));
                (old, views::object("SandboxConfig", meta, 0, c)?)
            }
            Resource::WorkerPool(p) => {
                self.classes.get(&p.spec.sandbox_class)?;
                let old = self.catalog.pools.get(&name).map(|o| Resource::WorkerPool(o.value.resource.clone()));
                (old, views::object("WorkerPool", meta, 0, p)?)
            }
            Resource::ActorTemplate(t) => {
                let old = self.catalog.templates.get(&name).map(|o| Resource::ActorTemplate(o.value.resource.clone()));
                if old.is_none() {
                    self.check_capabilities(t, &self.class_of(t)?.0.name)?;
                }
                (old, views::object("ActorTemplate", meta, 0, t)?)
            }
        };
        let Some(old) = old else { return Ok((Applied::Created, object)) };
        Invalid::check(new.label(), validate_update(&old, new))?;
        Ok((if same_spec(&old, new) { Applied::Unchanged } else { Applied::Configured }, object))
    }
}

fn same_spec(old: &Resource, new: &Resource) -> bool {
    match (old, new) {
        (Resource::Atespace(a), Resource::Atespace(b)) => a.spec == b.spec,
        (Resource::SandboxConfig(a), Resource::SandboxConfig(b)) => a.spec == b.spec,
        (Resource::WorkerPool(a), Resource::WorkerPool(b)) => a.spec == b.spec,
        (Resource::ActorTemplate(a), Resource::ActorTemplate(b)) => a.spec == b.spec,
        _ => false,
    }
}
