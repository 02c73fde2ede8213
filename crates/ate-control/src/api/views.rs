//! Everything as JSON: resources as written, with their status, and views of the rest.

use ate_agent::{AssetPhase, AssetReport, WorkerPhase};
use ate_api::{
    Error, Reason,
    id::{ActorName, Digest, GOLDEN_ATESPACE},
    resource::{
        API_VERSION, ObjectMeta,
        view::{
            ActorView, ActorViewSpec, ActorViewStatus, AssetView, AssetViewSpec, AssetViewStatus, AtespaceStatus,
            AtespaceView, EventView, SnapshotView, SnapshotViewSpec, SnapshotViewStatus, TokenView, TokenViewSpec,
            TokenViewStatus, WorkerView, WorkerViewSpec, WorkerViewStatus,
        },
    },
    v1,
};
use serde::Serialize;

use crate::{
    access::tokens::TokenRecord,
    core::Core,
    records::{ActorRecord, AtespaceRecord, ConfigKey, Location, SnapshotRecord, now_ms, timestamp},
    scheduler::{Seat, Stage, Worker},
};

pub(crate) fn object<T: Serialize>(
    kind: &str,
    meta: &ObjectMeta,
    version: u64,
    value: &T,
) -> Result<v1::Object, Error> {
    let json =
        serde_json::to_vec(value).map_err(|e| Error::new(Reason::Internal, format!("cannot write {kind}: {e}")))?;
    Ok(v1::Object {
        kind: kind.to_owned(),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.as_ref().map(ToString::to_string).unwrap_or_default(),
        version,
        json,
    })
}

pub(crate) fn atespace(record: &AtespaceRecord, version: u64, actors: u64) -> Result<v1::Object, Error> {
    let a = &record.resource;
    let view = AtespaceView {
        api_version: a.api_version.clone(),
        kind: a.kind.clone(),
        metadata: a.metadata.clone(),
        spec: a.spec.clone(),
        status: AtespaceStatus { actors },
    };
    object("Atespace", &view.metadata, version, &view)
}

pub(crate) fn actor(core: &Core, name: &ActorName, a: &ActorRecord, version: u64) -> Result<v1::Object, Error> {
    let metadata = ObjectMeta {
        name: name.name.clone(),
        namespace: name.atespace.clone(),
        uid: Some(a.uid.clone()),
        creation_timestamp: Some(timestamp(a.created_ms)),
        ..Default::default()
    };
    let template = core.catalog.template(&a.template, &a.template_uid);
    let sandbox = a.seat.as_ref().map(|s| &s.sandbox).or(a.snapshot.as_ref().map(|s| &s.sandbox));
    let view = ActorView {
        api_version: API_VERSION.to_owned(),
        kind: "Actor".to_owned(),
        metadata,
        spec: ActorViewSpec {
            template_namespace: a.template.namespace.clone(),
            template_name: a.template.name.clone(),
            worker_selector: a.selector.clone(),
        },
        status: ActorViewStatus {
            phase: a.phase.as_str().to_owned(),
            activation: a.activation.0,
            generation: a.generation(),
            worker: a.seat.as_ref().map(|s| s.worker.to_string()),
            address: a.seat.as_ref().and_then(|s| s.address).map(|ip| ip.to_string()),
            snapshot: a.snapshot.as_ref().map(|s| s.manifest.clone()),
            sandbox_class: template.map(|t| t.value.class.clone()).unwrap_or_default(),
            sandbox_config: sandbox.map(ToString::to_string),
            lost_activations: a.lost,
            message: a.message.clone(),
            since: Some(timestamp(a.since_ms)),
            url: match core.options.router_port {
                Some(port) if name.atespace != GOLDEN_ATESPACE => ate_api::host::local_url(name, None, port),
                _ => String::new(),
            },
            events: a
                .events
                .iter()
                .map(|e| EventView { time: timestamp(e.at_ms), reason: e.reason.clone(), message: e.message.clone() })
                .collect(),
        },
    };
    object("Actor", &view.metadata, version, &view)
}

pub(crate) fn worker(core: &Core, w: &Worker) -> Result<v1::Object, Error> {
    let phase = match (&w.seat, w.phase) {
        (Seat::Held(h), _) if h.stage == Stage::Running => "Running",
        (Seat::Held(_), _) => "Claimed",
        (Seat::Cleaning(..), _) => "Cleaning",
        (Seat::Free, WorkerPhase::Ready) => "Free",
        (Seat::Free, WorkerPhase::Starting) => "Starting",
        (Seat::Free, WorkerPhase::Busy) => "Cleaning",
    };
    let metadata = ObjectMeta {
        name: w.report.id.to_string(),
        namespace: w.report.pool.namespace.clone(),
        labels: w.report.labels.clone(),
        ..Default::default()
    };
    let template_name = |uid| {
        let all = core.catalog.templates.all();
        all.into_iter().find(|(_, t)| t.value.uid() == uid).map(|(name, _)| name.to_string())
    };
    let view = WorkerView {
        api_version: API_VERSION.to_owned(),
        kind: "Worker".to_owned(),
        metadata,
        spec: WorkerViewSpec {
            pool_namespace: w.report.pool.namespace.clone(),
            pool: w.report.pool.name.clone(),
            sandbox_class: w.report.class.clone(),
            node: w.report.node.clone(),
        },
        status: WorkerViewStatus {
            phase: phase.to_owned(),
            address: w.report.address.to_string(),
            actor: w.holder().map(|h| h.actor.to_string()),
            configs: w.report.configs.clone(),
            prepared: w.prepared.as_ref().and_then(|p| template_name(&p.fits.template)),
            standby: w.prepared.as_ref().is_some_and(|p| p.standby),
        },
    };
    object("Worker", &view.metadata, w.uses, &view)
}

pub(crate) fn snapshot(core: &Core, record: &SnapshotRecord, current: bool, version: u64) -> Result<v1::Object, Error> {
    let s = &record.snapshot;
    let golden = record.actor.atespace == GOLDEN_ATESPACE;
    let revision = core.catalog.revisions.get(&s.sandbox);
    let metadata = ObjectMeta {
        name: s.manifest.to_string(),
        namespace: if golden { record.template.namespace.clone() } else { record.actor.atespace.clone() },
        creation_timestamp: Some(timestamp(s.created_ms)),
        ..Default::default()
    };
    let view = SnapshotView {
        api_version: API_VERSION.to_owned(),
        kind: "Snapshot".to_owned(),
        metadata,
        spec: SnapshotViewSpec {
            owner: if golden { record.template.to_string() } else { record.actor.to_string() },
            golden,
            scope: format!("{:?}", s.scope),
            generation: s.generation,
            sandbox_class: revision.as_ref().map(|r| r.value.reference.class.clone()).unwrap_or_default(),
            sandbox_config: s.sandbox.to_string(),
            versions: revision.as_ref().map(|r| r.value.versions.clone()).unwrap_or_default(),
            assets: revision
                .map(|r| r.value.reference.assets.iter().map(|a| (a.name.clone(), a.sha256.to_string())).collect())
                .unwrap_or_default(),
            location: match &s.location {
                Location::Node(node) => format!("node:{node}"),
                Location::Url(prefix) => prefix.clone(),
            },
            base: s.base.as_ref().map(|b| b.manifest.to_string()),
        },
        status: SnapshotViewStatus { size: s.size, current, created: Some(timestamp(s.created_ms)) },
    };
    object("Snapshot", &view.metadata, version, &view)
}

pub(crate) fn asset(core: &Core, sha256: &Digest, report: Option<&AssetReport>) -> Result<v1::Object, Error> {
    let mut used_by: Vec<String> = Vec::new();
    let mut declared = None;
    for (key, revision) in core.catalog.revisions.all() {
        for a in revision.value.reference.assets.iter().filter(|a| a.sha256 == *sha256) {
            used_by.push(format!("{}/{}", ConfigKey { ..key.clone() }, a.name));
            declared = Some((a.size, a.media_type.clone()));
        }
    }
    let phase = match report.map_or(AssetPhase::Missing, |r| r.phase) {
        AssetPhase::Fetching => "Fetching",
        AssetPhase::Verified => "Verified",
        AssetPhase::Failed => "Failed",
        AssetPhase::Missing => "Missing",
    };
    let (size, media_type) = match report {
        Some(r) => (r.total.unwrap_or(r.size), r.media_type.clone()),
        None => declared.map(|(size, t)| (size.unwrap_or(0), t)).unwrap_or_default(),
    };
    let view = AssetView {
        api_version: API_VERSION.to_owned(),
        kind: "Asset".to_owned(),
        metadata: ObjectMeta { name: sha256.to_string(), ..Default::default() },
        spec: AssetViewSpec { sha256: sha256.to_string(), size, media_type },
        status: AssetViewStatus {
            phase: phase.to_owned(),
            used_by,
            revoked: core.revocations().digests.get(sha256).map(|r| r.reason.clone()).unwrap_or_default(),
            message: report.map(|r| r.message.clone()).unwrap_or_default(),
        },
    };
    object("Asset", &view.metadata, 0, &view)
}

/// Everything but the hash: it is of no use to anybody but this server.
pub(crate) fn token(version: u64, t: &TokenRecord) -> Result<v1::Object, Error> {
    let expired = t.expires_ms.is_some_and(|at| at <= now_ms());
    let limited = t.grant.role.is_limited();
    let view = TokenView {
        api_version: API_VERSION.to_owned(),
        kind: "Token".to_owned(),
        metadata: ObjectMeta {
            name: t.name.clone(),
            creation_timestamp: Some(timestamp(t.created_ms)),
            ..Default::default()
        },
        spec: TokenViewSpec {
            role: t.grant.role.to_string(),
            atespaces: if limited { t.grant.atespaces.names() } else { Vec::new() },
            namespaces: if limited { t.grant.namespaces.names() } else { Vec::new() },
            expires: t.expires_ms.map(timestamp),
        },
        status: TokenViewStatus { phase: if expired { "Expired" } else { "Active" }.to_owned() },
    };
    object("Token", &view.metadata, version, &view)
}
