//! Whole requests to the API: any method, any credentials, any message. Each is answered, and never with an error of ours.

use std::{collections::HashMap, time::Duration};

use ate_api::{ateapi, v1};
use ate_fuzz::Target;
use http_body_util::{BodyExt, Full};
use prost::Message;
use serde_json::json;
use tonic::{Code, body::Body, codegen::http::Request};
use tower::ServiceExt;

mod support;

use support::world::{World, options, pool, reference, template};

/// What stands for the secret of a token that may do everything.
const ADMIN: &str = "admin";
/// No call without a limit of its own waits longer in this test.
const LIMIT: Duration = Duration::from_millis(300);
/// Requests between two looks at whether an honest one is served.
const LOOK: u64 = 256;

/// Path, credentials, timeout, message; the first three end with a line.
fn request(path: &str, message: &impl Message) -> Vec<u8> {
    [format!("{path}\n{ADMIN}\n200m\n").as_bytes(), &message.encode_to_vec()].concat()
}

fn object(kind: &str, name: &str) -> v1::ObjectRef {
    v1::ObjectRef { kind: kind.into(), namespace: "default".into(), name: name.into() }
}

fn sampled() -> Target {
    let target = Target::named("control.requests")
        .sample("get-actor", || {
            request("/ateapi.Control/GetActor", &ateapi::GetActorRequest { actor_ref: reference("default", "kept") })
        })
        .sample("list-actors", || {
            let list = ateapi::ListActorsRequest {
                page_size: 1,
                page_token: "actor/default/a".into(),
                atespace: "default".into(),
            };
            request("/ateapi.Control/ListActors", &list)
        })
        .sample("apply", || {
            let json = template("other").to_string().into_bytes();
            request("/ate.v1.Resources/Apply", &v1::ApplyRequest { json, dry_run: false })
        })
        .sample("apply-pool", || {
            let json = pool("pool", 1).to_string().into_bytes();
            request("/ate.v1.Resources/Apply", &v1::ApplyRequest { json, dry_run: true })
        })
        .sample("get", || request("/ate.v1.Resources/Get", &object("ActorTemplate", "counter")))
        .sample("list", || {
            let kind = "Snapshot".to_owned();
            let list = v1::ListRequest { kind, page_size: 1, page_token: "snapshot/00".into(), ..Default::default() };
            request("/ate.v1.Resources/List", &list)
        })
        .sample("watch", || {
            let watch = v1::WatchRequest { kind: "Actor".into(), namespace: "default".into(), ..Default::default() };
            request("/ate.v1.Resources/Watch", &watch)
        })
        .sample("usage", || {
            let page_token = "0/gvisor-default/1/default/a".into();
            let usage =
                v1::GetUsageRequest { config: "gvisor-default".into(), page_size: 1, page_token, ..Default::default() };
            request("/ate.v1.Usage/GetUsage", &usage)
        })
        .sample("revocations", || request("/ate.v1.Revocations/ListRevocations", &()))
        .sample("explain", || request("/ate.v1.Choices/Explain", &object("Actor", "kept")));
    // These change things, or are refused as the world is.
    target
        .other("create", || {
            let create = ateapi::CreateActorRequest {
                actor_ref: reference("default", "new"),
                actor_template_namespace: "default".into(),
                actor_template_name: "counter".into(),
                worker_selector: Some(ateapi::Selector { match_labels: HashMap::from([("a".into(), "b".into())]) }),
            };
            request("/ateapi.Control/CreateActor", &create)
        })
        .other("resume", || {
            let resume = ateapi::ResumeActorRequest { actor_ref: reference("default", "kept"), boot: false };
            request("/ateapi.Control/ResumeActor", &resume)
        })
        .other("suspend", || {
            request(
                "/ateapi.Control/SuspendActor",
                &ateapi::SuspendActorRequest { actor_ref: reference("default", "kept") },
            )
        })
        .other("delete", || {
            let delete = v1::DeleteRequest { r#ref: Some(object("Actor", "new")), force: false };
            request("/ate.v1.Resources/Delete", &delete)
        })
        .other("revoke", || {
            let revoke = v1::RevokeRequest { digest: "b".repeat(64), reason: "CVE".into(), stop: false };
            request("/ate.v1.Revocations/Revoke", &revoke)
        })
        .other("rollout", || {
            let config = "gvisor-default".to_owned();
            let start = v1::StartRolloutRequest {
                sandbox_class: "gvisor".into(),
                config,
                max_unavailable: "10%".into(),
                policy: 1,
            };
            request("/ate.v1.Rollouts/StartRollout", &start)
        })
        .other("manifest", || {
            request("/ate.v1.Snapshots/GetManifest", &v1::GetManifestRequest { digest: "0".repeat(64) })
        })
        .other("tail", || {
            let tail = v1::TailRequest {
                atespace: "default".into(),
                name: "kept".into(),
                tail_lines: 3,
                ..Default::default()
            };
            request("/ate.v1.Logs/Tail", &tail)
        })
        .other("token", || {
            let create = v1::CreateTokenRequest {
                name: "t".into(),
                role: "viewer".into(),
                ttl_seconds: 1,
                ..Default::default()
            };
            request("/ate.v1.Tokens/Create", &create)
        })
        .other("default-class", || {
            let set = v1::SetDefaultClassRequest { sandbox_class: "gvisor".into(), atespace: "default".into() };
            request("/ate.v1.Choices/SetDefaultClass", &set)
        })
        .other("import", || {
            let header = v1::import_request::Header {
                name: "runsc".into(),
                media_type: "application/octet-stream".into(),
                size: 3,
            };
            let part = Some(v1::import_request::Part::Header(header));
            request("/ate.v1.Assets/Import", &v1::ImportRequest { part })
        })
        .other("stranger", || {
            let text = request("/ate.v1.Resources/Get", &object("ActorTemplate", "counter"));
            String::from_utf8(text).unwrap().replacen(ADMIN, &format!("Bearer ate_{}", "0".repeat(64)), 1).into_bytes()
        })
}

/// The request, if it can be one of HTTP at all.
fn http(bytes: &[u8], secret: &str) -> Option<Request<Body>> {
    let mut parts = bytes.splitn(4, |b| *b == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (path, credentials, timeout, message) = (part(), part(), part(), part());
    let admin = format!("Bearer {secret}");
    let credentials = if credentials == ADMIN.as_bytes() { admin.as_bytes() } else { credentials };
    let mut builder = Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    if !credentials.is_empty() {
        builder = builder.header("authorization", credentials);
    }
    if !timeout.is_empty() {
        builder = builder.header("grpc-timeout", timeout);
    }
    let length = u32::try_from(message.len()).ok()?.to_be_bytes();
    let body = [&[0][..], &length, message].concat();
    builder.body(Body::new(Full::new(body.into()))).ok()
}

#[test]
fn fuzz_whatever_is_asked_is_answered_and_never_with_an_internal_error() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (world, secret, routes) = runtime.block_on(async {
        let world = World::ready(options(), 1).await;
        world.create("kept").await.unwrap();
        let secret = world.token("fuzz", ADMIN, &[]).await.unwrap();
        let routes = world.control.services().await;
        (world, secret, routes)
    });
    let tries = std::cell::Cell::new(0u64);
    sampled().run(|bytes| {
        tries.set(tries.get() + 1);
        if tries.get().is_multiple_of(LOOK) {
            runtime.block_on(world.apply(json!({
                "apiVersion": "ate.dev/v1alpha1", "kind": "Atespace", "metadata": {"name": "still-there"}
            })))?;
        }
        let refused = |message: &str| ate_api::Error::new(ate_api::Reason::Invalid, message);
        let request = http(bytes, &secret).ok_or_else(|| refused("not a request"))?;
        let status = runtime.block_on(async {
            let answered = tokio::time::timeout(LIMIT, async {
                let response = routes.clone().oneshot(request).await.expect("services do not fail");
                let status = tonic::Status::from_header_map(response.headers());
                if status.is_some() {
                    return status;
                }
                let trailers = response.into_body().collect().await.ok()?.trailers().cloned()?;
                tonic::Status::from_header_map(&trailers)
            });
            // A stream goes on, or a call waits for as long as it may.
            answered.await.ok().flatten()
        });
        match status {
            None => Ok(()),
            Some(status) if status.code() == Code::Ok => Ok(()),
            Some(status) => {
                let undecodable = status.message().contains("decode Protobuf message");
                let ours = matches!(status.code(), Code::Internal | Code::Unknown | Code::DataLoss);
                assert!(!ours || undecodable, "{status:?}");
                Err(ate_api::Error::from(&status))
            }
        }
    });
}
