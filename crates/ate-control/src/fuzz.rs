//! What the store may give back, and the small texts in requests. Whole requests are in `tests/fuzz.rs`.

use std::collections::BTreeMap;

use ate_api::{
    Error,
    id::{Activation, ActorName, Digest, ObjectName, Uid, WorkerId},
    resource::{Resource, template::Scope},
};
use ate_fuzz::Target;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    api::Kind,
    records::{
        ActorRecord, Base, ConfigKey, Garbage, Location, MaxUnavailable, Phase, Rollout, RolloutPhase, RolloutPolicy,
        Seat, Snapshot, SnapshotRecord, Step, StepState, from_json, keys, pack, to_json, unpack,
    },
    resources::admission,
    usage::page::User,
};

fn key() -> ConfigKey {
    ConfigKey { name: "gvisor-default".into(), revision: 3 }
}

fn snapshot() -> Snapshot {
    let manifest = Digest::of(b"manifest");
    let location = Location::Url("file:///x/actors/y/00000001-1".into());
    Snapshot {
        base: Some(Base { manifest: manifest.clone(), location: Location::Node("here".into()) }),
        manifest,
        scope: Scope::Full,
        location,
        generation: 7,
        sandbox: key(),
        platform: Digest::of(b"platform"),
        size: 1 << 33,
        created_ms: 1_700_000_000_000,
        quarantined: Some("damaged".into()),
    }
}

fn actor() -> ActorRecord {
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let mut actor = ActorRecord::new(ObjectName::new("default", "counter"), Uid::generate(), labels);
    actor.enter(Phase::Running, Some(std::time::Duration::from_secs(5)));
    actor.activation = Activation(9);
    actor.snapshot = Some(snapshot());
    actor.pinned = Some(key());
    actor.seat = Some(Seat {
        worker: WorkerId("w-1".into()),
        pool: ObjectName::new("default", "pool"),
        address: Some("10.88.0.2".parse().unwrap()),
        sandbox: key(),
        platform: Digest::of(b"platform"),
        parent: None,
    });
    actor.tell("Lost", "a worker went away");
    actor
}

/// What is read is written so that it reads the same.
fn packed<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Result<T, Error> {
    let record: T = unpack("actor/default/a", bytes)?;
    assert_eq!(unpack::<T>("again", &pack(&record)?).as_ref(), Ok(&record));
    Ok(record)
}

#[test]
fn records_of_actors() {
    Target::named("control.actor-record").sample("running", || pack(&actor()).unwrap().to_vec()).run(|bytes| {
        let mut record: ActorRecord = packed(bytes)?;
        record.tell("Test", "x".repeat(3000));
        record.fall_back_to_rest();
        let _ = (record.generation(), record.phase.is_at_rest(), record.snapshot.map(|s| s.source()));
        Ok::<_, Error>(())
    });
}

#[test]
fn records_of_snapshots() {
    Target::named("control.snapshot-record")
        .sample("snapshot", || {
            let (actor, template) = (ActorName::new("default", "a"), ObjectName::new("default", "t"));
            let record = SnapshotRecord { actor, actor_uid: Uid::generate(), template, snapshot: snapshot() };
            pack(&record).unwrap().to_vec()
        })
        .sample("garbage", || pack(&snapshot().garbage()).unwrap().to_vec())
        .run(|bytes| {
            let garbage: Result<Garbage, Error> = packed(bytes);
            packed::<SnapshotRecord>(bytes).map(drop).or(garbage.map(drop))
        });
}

#[test]
fn records_of_rollouts() {
    Target::named("control.rollout-record")
        .sample("moving", || {
            let template = ObjectName::new("default", "t");
            let step = Step { template, uid: Uid::generate(), from: key(), state: StepState::Passed };
            let rollout = Rollout {
                uid: Uid::generate(),
                class: "gvisor".into(),
                to: key(),
                policy: RolloutPolicy::Reboot,
                max_unavailable: MaxUnavailable::Percent(10),
                phase: RolloutPhase::Moving,
                started_ms: 1,
                since_ms: 2,
                deadline_ms: Some(3),
                steps: vec![step],
                total: 40,
                stopped: None,
                swept: false,
            };
            to_json(&rollout).unwrap().to_vec()
        })
        .run(|bytes| {
            let rollout: Rollout = from_json("rollout/gvisor", bytes)?;
            assert_eq!(from_json::<Rollout>("again", &to_json(&rollout)?), Ok(rollout.clone()));
            assert!(rollout.at_once() > 0);
            Ok::<_, Error>(())
        });
}

#[test]
fn objects_that_are_applied() {
    Target::named("control.apply")
        .sample("pool", || {
            let text = r#"{"apiVersion":"ate.dev/v1alpha1","kind":"WorkerPool","metadata":{"name":"p"},"spec":{"replicas":1,"ateomImage":"x"}}"#;
            text.as_bytes().to_vec()
        })
        .run(|bytes| {
            let resource = admission::parse(bytes)?;
            let named = !Resource::is_cluster_scoped(resource.kind());
            assert_eq!(named, !resource.metadata().namespace.is_empty());
            assert!(!resource.metadata().name.contains('/'), "keys are made of it");
            Ok::<_, Error>(())
        });
}

#[test]
fn small_texts_in_requests() {
    Target::named("control.words")
        .sample("page-token", || {
            let user =
                User { kind: crate::usage::page::UserKind::Suspended, revision: key(), name: "default/a".into() };
            user.token().into_bytes()
        })
        .sample("kind", || b"ActorTemplate".to_vec())
        .sample("share", || b"10%".to_vec())
        .sample("key", || keys::actor(&ActorName::new("default", "a")).into_bytes())
        .sample("timeout", || b"99999999H".to_vec())
        .run(|bytes| {
            let text = std::str::from_utf8(bytes).map_err(|_| Error::new(ate_api::Reason::Invalid, "not text"))?;
            let _ = keys::revision_of(keys::BY_CONFIG, text);
            let timeout = text.parse::<tonic::metadata::MetadataValue<_>>().is_ok_and(|value| {
                let mut metadata = tonic::metadata::MetadataMap::new();
                metadata.insert("grpc-timeout", value);
                let now = std::time::Instant::now();
                crate::api::deadline::of(&metadata, std::time::Duration::ZERO)
                    > now + std::time::Duration::from_millis(1)
            });
            if keys::actor_of(text).is_some() || timeout {
                return Ok(());
            }
            if let Ok(share) = text.parse::<MaxUnavailable>() {
                assert_eq!(share.to_string().parse(), Ok(share));
                return Ok(());
            }
            if let Ok(user) = User::from_token(text) {
                let _ = user.label();
                assert_eq!(User::from_token(&user.token()), Ok(user));
                return Ok(());
            }
            Kind::parse(text).map(drop)
        });
}
