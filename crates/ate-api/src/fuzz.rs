//! What users, clients and other processes may send: objects, names, hosts, errors.

use ate_fuzz::Target;
use serde_json::Value;
use tonic::{Code, Status};

use crate::{
    Error, Reason, canonical, host,
    id::{Digest, Uid},
    name,
    resource::{self, Resource, duration},
    role::Role,
};

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "not text".to_owned())
}

fn json(resource: &Resource) -> Vec<u8> {
    let json = match resource {
        Resource::Atespace(o) => serde_json::to_vec(o),
        Resource::SandboxConfig(o) => serde_json::to_vec(o),
        Resource::WorkerPool(o) => serde_json::to_vec(o),
        Resource::ActorTemplate(o) => serde_json::to_vec(o),
    };
    json.unwrap()
}

fn sample(file: &str) -> Vec<u8> {
    let path = format!("{}/testdata/good/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn resources() {
    Target::named("api.resources")
        .sample("template-full", || sample("template-full.yaml"))
        .sample("template-of-kubectl", || sample("template-as-kubectl-writes-it.yaml"))
        .sample("config", || sample("sandboxconfig-full.yaml"))
        .sample("list", || {
            let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: ate.dev/v1alpha1\n  kind: WorkerPool\n  metadata: {name: p, \
                        labels: &l {a: b}, annotations: *l}\n  spec: {replicas: 2, ateomImage: x}\n---\n{apiVersion: ate.dev/v1alpha1, kind: \
                        Atespace, metadata: {name: a}}\n";
            text.as_bytes().to_vec()
        })
        .run(|bytes| {
            let read = resource::parse(bytes)?;
            for object in &read {
                let broken = resource::validate(object);
                assert_eq!(broken.is_empty(), resource::check(object).is_ok());
                if broken.is_empty() {
                    assert_eq!(resource::from_json(&json(object)).as_ref(), Ok(object), "it reads back the same");
                }
            }
            Ok::<_, Error>(())
        });
}

#[test]
fn words() {
    Target::named("api.words")
        .sample("uid", || Uid::generate().as_str().as_bytes().to_vec())
        .sample("digest", || format!("sha256:{}", Digest::of(b"x")).into_bytes())
        .sample("name", || b"web-1".to_vec())
        .sample("label-key", || b"ate.dev/worker-pool".to_vec())
        .sample("duration", || b"1h30m0.25s".to_vec())
        .sample("role", || b"actor-user".to_vec())
        .sample("reason", || b"NO_FREE_WORKER".to_vec())
        .run(|bytes| {
            let text = text(bytes)?;
            let mut accepted = false;
            if let Some(uid) = Uid::parse(text) {
                accepted = true;
                assert_eq!(uid.as_str(), text);
            }
            if let Some(digest) = Digest::parse(text) {
                accepted = true;
                assert!(text.ends_with(digest.as_str()) && digest.short().len() == 12);
            }
            if name::check_actor(text).is_ok() || name::check_atespace(text).is_ok() || name::is_subdomain(text) {
                accepted = true;
                assert!(!text.is_empty() && !text.contains(['/', '\0', '\n']) && !text.contains(".."), "{text:?}");
            }
            accepted |= name::is_label_key(text) || name::is_label_value(text);
            if let Ok(duration) = duration::parse(text) {
                accepted = true;
                assert!(duration <= duration::MAX);
            }
            if let Ok(role) = text.parse::<Role>() {
                accepted = true;
                assert_eq!(role.as_str(), text);
            }
            if let Ok(reason) = text.parse::<Reason>() {
                accepted = true;
                assert_eq!(reason.as_str(), text);
            }
            if accepted { Ok(()) } else { Err("none of these words".to_owned()) }
        });
}

#[test]
fn hosts() {
    Target::named("api.host")
        .sample("plain", || b"web.default.localhost".to_vec())
        .sample("port", || b"8080-web.team.localhost.:443".to_vec())
        .sample("domain", || b"65535-A.b.actors.resources.substrate.ate.dev".to_vec())
        .run(|bytes| {
            let found = host::parse(text(bytes)?).map_err(|e| e.to_string())?;
            let again = host::name(&found.actor, found.port, host::LOCAL_SUFFIX);
            assert_eq!(host::parse(&again), Ok(found));
            Ok::<_, String>(())
        });
}

#[test]
fn canonical_json() {
    Target::named("api.canonical")
        .sample("mixed", || {
            r#"{"b":[1,{"z":null,"a":true}],"a":"x\"\né","n":[-0.0,1e3,0.5,18446744073709551615]}"#.into()
        })
        .run(|bytes| {
            let value: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
            let written = canonical::to_vec(&value);
            let again: Value = serde_json::from_slice(&written).expect("what was written is JSON");
            assert_eq!(canonical::to_vec(&again), written);
            Ok::<_, String>(())
        });
}

#[test]
fn errors_of_other_processes() {
    Target::named("api.status")
        .sample("details", || {
            let error = Error::new(Reason::DiskFull, "it broke").on("actor/default/a").hint("mend it");
            Status::from(error).details().to_vec()
        })
        .run(|bytes| {
            let status = Status::with_details(Code::Internal, "it broke", bytes.to_vec().into());
            let error = Error::from(&status);
            assert_eq!(Error::from(&Status::from(error.clone())), error);
            if error.reason == Reason::Internal { Err("an error without a reason") } else { Ok(()) }
        });
}
