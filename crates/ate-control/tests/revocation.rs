//! Revoked binaries: nothing begins under them, here or on the node, and everybody concerned is told.

mod support;

use std::time::Duration;

use ate_agent::{AssetPhase, AssetReport};
use ate_api::{
    Error, Reason,
    ateapi::actor::Status as Phase,
    id::Digest,
    v1::{
        Revocation, RevokeRequest, RevokeResponse, UnrevokeRequest, affected_actor::State,
        revocations_client::RevocationsClient,
    },
};
use serde_json::{Value, json};
use support::{
    node::Fault,
    world::{World, eventually, options, pool, sandbox_config, template},
};

/// The binary of revision 1.
fn a() -> String {
    "a".repeat(64)
}

async fn revoke(w: &World, digest: &str, stop: bool) -> Result<RevokeResponse, Error> {
    let request = RevokeRequest { digest: digest.into(), reason: "CVE-2026-1".into(), stop };
    let answer = RevocationsClient::new(w.face.clone()).revoke(request).await;
    answer.map(tonic::Response::into_inner).map_err(|s| Error::from(&s))
}

async fn unrevoke(w: &World, digest: &str) -> Result<(), Error> {
    let request = UnrevokeRequest { digest: digest.into() };
    RevocationsClient::new(w.face.clone()).unrevoke(request).await.map(drop).map_err(|s| Error::from(&s))
}

async fn revoked(w: &World) -> Vec<Revocation> {
    RevocationsClient::new(w.face.clone()).list_revocations(()).await.unwrap().into_inner().revocations
}

fn running(answer: &RevokeResponse) -> Vec<(&str, State)> {
    answer.running.iter().map(|a| (a.name.as_str(), a.state())).collect()
}

/// `Some((status, reason))` of a condition.
async fn condition(w: &World, kind: &str, name: &str, r#type: &str) -> Option<(String, String)> {
    let object = w.get(kind, name).await.unwrap();
    let found = object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == r#type)?.clone();
    Some((found["status"].as_str()?.to_owned(), found["reason"].as_str()?.to_owned()))
}

async fn condition_becomes(w: &World, kind: &str, name: &str, r#type: &str, status: &str, reason: &str) {
    let wanted = Some((status.to_owned(), reason.to_owned()));
    eventually(&format!("{type} of {kind}/{name} is {status}, {reason}"), async || {
        condition(w, kind, name, r#type).await == wanted
    })
    .await;
}

/// A template whose actors have a durable directory beside their memory.
fn durable(name: &str) -> Value {
    let mut object = template(name);
    object["spec"]["volumes"] = json!([{"name": "data", "durableDir": {}}]);
    object["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    object
}

fn last_activation(w: &World) -> String {
    w.node.with(|s| s.calls.iter().rfind(|c| c.starts_with("activate")).cloned()).unwrap()
}

async fn suspended(w: &World, name: &str, template: &str) {
    w.create_from("default", name, template).await.unwrap();
    w.resume(name).await.unwrap();
    w.suspend(name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_resumes_or_begins_under_a_revoked_binary_and_the_error_says_what_to_do() {
    let w = World::ready(options(), 2).await;
    suspended(&w, "old", "counter").await;
    w.create("new").await.unwrap();
    let answer = revoke(&w, &a(), false).await.unwrap();
    assert_eq!((answer.running.len(), answer.configs), (0, vec!["gvisor-default@1".to_owned()]));
    let before = w.node.count("activate");
    for actor in ["old", "new"] {
        let e = w.resume(actor).await.unwrap_err();
        assert_eq!(e.reason, Reason::AssetRevoked, "{e}");
        assert!(e.message.contains("runsc") && e.message.contains("CVE-2026-1"), "{e}");
        assert!(e.hint.contains(&format!("ate resume actor {actor} -a default --boot")), "{}", e.hint);
    }
    // The pool runs under it too, so there is nothing to boot under either.
    eventually("a boot is refused for the same reason", async || {
        w.resume_in("default", "old", true).await.unwrap_err().reason == Reason::AssetRevoked
    })
    .await;
    assert_eq!(w.node.count("activate"), before, "no worker was touched");
    w.all_workers_free().await;
    let list = revoked(&w).await;
    assert_eq!((list.len(), list[0].reason.as_str(), list[0].digest.as_str()), (1, "CVE-2026-1", a().as_str()));

    unrevoke(&w, &a()).await.unwrap();
    assert_eq!(w.resume("old").await.unwrap().status(), Phase::Running);
    assert_eq!(unrevoke(&w, &a()).await.unwrap_err().reason, Reason::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_shows_in_the_conditions_of_all_who_are_concerned_and_goes_when_it_is_taken_back() {
    let w = World::ready(options(), 1).await;
    revoke(&w, &a(), false).await.unwrap();
    condition_becomes(&w, "SandboxConfig", "gvisor-default", "Revoked", "True", "AssetRevoked").await;
    condition_becomes(&w, "SandboxConfig", "gvisor-default", "Ready", "False", "AssetRevoked").await;
    condition_becomes(&w, "WorkerPool", "pool", "Ready", "False", "AssetRevoked").await;
    condition_becomes(&w, "ActorTemplate", "counter", "Revoked", "True", "AssetRevoked").await;
    assert_eq!(w.get_in("Asset", "", &a()).await.unwrap()["status"]["revoked"], "CVE-2026-1");
    unrevoke(&w, &a()).await.unwrap();
    condition_becomes(&w, "SandboxConfig", "gvisor-default", "Revoked", "False", "NotRevoked").await;
    condition_becomes(&w, "SandboxConfig", "gvisor-default", "Ready", "True", "Verified").await;
    condition_becomes(&w, "WorkerPool", "pool", "Ready", "True", "Ready").await;
    condition_becomes(&w, "ActorTemplate", "counter", "Revoked", "False", "NotRevoked").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_holds_over_a_crash_in_the_control_plane_and_on_the_node() {
    let w = World::ready(options(), 1).await;
    suspended(&w, "a", "counter").await;
    revoke(&w, &a(), false).await.unwrap();
    let w = w.restart().await;
    assert_eq!(w.resume("a").await.unwrap_err().reason, Reason::AssetRevoked);
    assert_eq!(revoked(&w).await.len(), 1);
    // A node that lost its list is told again without being asked for anything.
    w.node.with(|s| s.revoked = Default::default());
    let w = w.restart().await;
    eventually("the node has the list", async || w.node.with(|s| s.revoked.digests.len() == 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_runs_under_it_is_listed_and_goes_on() {
    let w = World::ready(options(), 2).await;
    w.create("a").await.unwrap();
    w.resume("a").await.unwrap();
    let answer = revoke(&w, &a(), false).await.unwrap();
    assert_eq!(running(&answer), [("a", State::Running)]);
    assert_eq!(w.actor("a").await.unwrap().status(), Phase::Running);
    w.suspend("a").await.unwrap();
    assert_eq!(w.resume("a").await.unwrap_err().reason, Reason::AssetRevoked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_keeps_durable_directories_and_goes_back_to_the_last_snapshot_without_any() {
    let w = World::ready(options(), 3).await;
    w.apply(durable("durable")).await.unwrap();
    w.template_ready("durable").await;
    suspended(&w, "plain", "counter").await;
    for name in ["plain", "files"] {
        if name == "files" {
            w.create_from("default", name, "durable").await.unwrap();
        }
        w.resume(name).await.unwrap();
    }
    let answer = revoke(&w, &a(), true).await.unwrap();
    assert_eq!(running(&answer), [("files", State::Suspended), ("plain", State::Stopped)]);
    for name in ["files", "plain"] {
        assert_eq!(w.actor(name).await.unwrap().status(), Phase::Suspended);
    }
    let plain = w.get("Actor", "plain").await.unwrap();
    assert_eq!((&plain["status"]["generation"], &plain["status"]["lostActivations"]), (&json!(1), &json!(1)));
    assert!(plain["status"]["events"].to_string().contains("ASSET_REVOKED"), "{plain}");
    let capture = w.node.with(|s| s.calls.iter().rfind(|c| c.starts_with("capture default/files")).cloned()).unwrap();
    assert!(capture.contains(" Data "), "{capture}");
    let snapshots = w.list("Snapshot").await;
    let of_files = snapshots.iter().find(|s| s["spec"]["owner"] == "default/files").unwrap();
    assert_eq!(of_files["spec"]["scope"], "Data");
    w.all_workers_free().await;

    // Files need nothing of the binary: under another one they are back.
    w.apply(sandbox_config("gvisor-default", 'b', true)).await.unwrap();
    w.pool_runs("gvisor-default@2").await;
    w.resume("files").await.unwrap();
    let manifest = of_files["metadata"]["name"].as_str().unwrap();
    let last = last_activation(&w);
    assert!(last.contains(manifest) && last.ends_with("gvisor-default@2"), "{last}");
    assert_eq!(w.resume("plain").await.unwrap_err().reason, Reason::AssetRevoked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_gives_up_the_memory_and_keeps_the_durable_directories() {
    let w = World::ready(options(), 2).await;
    w.apply(durable("durable")).await.unwrap();
    w.template_ready("durable").await;
    suspended(&w, "files", "durable").await;
    suspended(&w, "plain", "counter").await;
    w.apply(sandbox_config("gvisor-default", 'b', true)).await.unwrap();
    revoke(&w, &a(), false).await.unwrap();
    w.pool_runs("gvisor-default@2").await;
    let manifest = w.get("Actor", "files").await.unwrap()["status"]["snapshot"].as_str().unwrap().to_owned();
    w.resume_in("default", "files", true).await.unwrap();
    let last = last_activation(&w);
    assert!(last.contains(&format!("files:{manifest}")) && last.ends_with("gvisor-default@2"), "{last}");
    w.resume_in("default", "plain", true).await.unwrap();
    let last = last_activation(&w);
    assert!(last.contains(" boot ") && last.ends_with("gvisor-default@2"), "{last}");
    // Once suspended, they are the new binary's.
    for name in ["files", "plain"] {
        w.suspend(name).await.unwrap();
        w.resume(name).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_cannot_be_stopped_is_said_to_go_on() {
    let w = World::ready(options(), 1).await;
    w.apply(durable("durable")).await.unwrap();
    w.template_ready("durable").await;
    w.create_from("default", "files", "durable").await.unwrap();
    w.resume("files").await.unwrap();
    w.node.fault("capture", Fault::Fail(Reason::DiskFull));
    let answer = revoke(&w, &a(), true).await.unwrap();
    assert_eq!(running(&answer), [("files", State::Failed)]);
    assert!(answer.running[0].message.contains("DISK_FULL"), "{}", answer.running[0].message);
    assert_eq!(w.actor("files").await.unwrap().status(), Phase::Running);
    assert_eq!(running(&revoke(&w, &a(), true).await.unwrap()), [("files", State::Suspended)], "asked again it works");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_acknowledged_only_when_the_node_has_confirmed() {
    let w = World::ready(options(), 1).await;
    suspended(&w, "a", "counter").await;
    // Whatever the node was told at the start is over.
    eventually("the node knows the first list", async || w.node.count("set_revocations") > 0).await;
    w.node.with(|s| {
        let faults = s.faults.entry("set_revocations").or_default();
        faults.extend([Fault::Fail(Reason::DiskFull), Fault::Fail(Reason::DiskFull)]);
    });
    let e = revoke(&w, &a(), false).await.unwrap_err();
    assert_eq!(e.reason, Reason::Unavailable, "{e}");
    assert_eq!(w.resume("a").await.unwrap_err().reason, Reason::AssetRevoked, "we refuse whatever the node does");
    eventually("the node is told again", async || w.node.with(|s| s.revoked.digests.len() == 1)).await;
    revoke(&w, &a(), false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_races_with_it_fails_or_is_listed() {
    let w = World::ready(options(), 4).await;
    for i in 0..4 {
        suspended(&w, &format!("a{i}"), "counter").await;
    }
    for round in 0..10 {
        let resumes = futures::future::join_all((0..4).map(|i| {
            let w = &w;
            async move {
                tokio::time::sleep(Duration::from_micros(150 * i)).await;
                w.resume(&format!("a{i}")).await
            }
        }));
        let digest = a();
        let (resumed, answer) = tokio::join!(resumes, revoke(&w, &digest, false));
        let answer = answer.unwrap();
        let listed: Vec<&str> = answer.running.iter().map(|a| a.name.as_str()).collect();
        for (i, result) in resumed.into_iter().enumerate() {
            let name = format!("a{i}");
            match result {
                Ok(_) => assert!(listed.contains(&name.as_str()), "round {round}: {name} runs and is not listed"),
                Err(e) => assert_eq!(e.reason, Reason::AssetRevoked, "round {round}: {e}"),
            }
        }
        unrevoke(&w, &a()).await.unwrap();
        for i in 0..4 {
            w.suspend(&format!("a{i}")).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_used_is_not_deleted_and_its_users_are_named() {
    let w = World::ready(options(), 2).await;
    suspended(&w, "a", "counter").await;
    w.create("b").await.unwrap();
    w.resume("b").await.unwrap();
    let e = w.delete("SandboxConfig", "gvisor-default").await.unwrap_err();
    assert_eq!(e.reason, Reason::InUse);
    for word in
        ["1 pool, 1 running actor, 1 golden snapshot, 1 suspended actor", "workerpool/default/pool", "actor/default/a"]
    {
        assert!(e.message.contains(word), "{word} is not in {e}");
    }
    assert!(e.hint.contains("--force"), "{}", e.hint);
    let e = w.delete("Asset", &a()).await.unwrap_err();
    assert_eq!(e.reason, Reason::InUse);
    assert!(e.message.contains("gvisor-default@1 names it") && e.message.contains("actor/default/b"), "{e}");
    assert_eq!(w.resume("a").await.unwrap().status(), Phase::Running, "it was not taken out of use by the attempt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_force_it_is_revoked_and_stays_until_nothing_needs_it() {
    let w = World::ready(options(), 2).await;
    suspended(&w, "a", "counter").await;
    w.delete_with("SandboxConfig", "gvisor-default", true).await.unwrap();
    condition_becomes(&w, "SandboxConfig", "gvisor-default", "Revoked", "True", "AssetRevoked").await;
    let e = w.resume("a").await.unwrap_err();
    assert_eq!(e.reason, Reason::AssetRevoked);
    assert!(e.message.contains("deleted with --force"), "{e}");
    revoke(&w, &a(), false).await.unwrap();
    w.delete_with("SandboxConfig", "gvisor-default", true).await.unwrap();
    assert_eq!(revoked(&w).await[0].reason, "CVE-2026-1", "what is revoked already keeps its reason");
    // Nobody needs it any more.
    w.remove("a").await.unwrap();
    w.delete("ActorTemplate", "counter").await.unwrap();
    w.delete("WorkerPool", "pool").await.unwrap();
    eventually("the pool is gone", async || w.get("WorkerPool", "pool").await.is_err()).await;
    w.delete("SandboxConfig", "gvisor-default").await.unwrap();
    assert_eq!(revoked(&w).await.len(), 1, "a binary stays revoked whoever named it");
    w.apply(sandbox_config("again", 'a', true)).await.unwrap();
    condition_becomes(&w, "SandboxConfig", "again", "Ready", "False", "AssetRevoked").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn force_spares_binaries_of_other_configurations() {
    let w = World::ready(options(), 1).await;
    w.apply(sandbox_config("twin", 'a', false)).await.unwrap();
    let e = w.delete_with("SandboxConfig", "gvisor-default", true).await.unwrap_err();
    assert_eq!(e.reason, Reason::InUse);
    assert!(e.hint.contains("ate sandbox revoke"), "{}", e.hint);
    assert!(revoked(&w).await.is_empty());
    // Of an asset it is asked for with everything that follows.
    w.delete_with("Asset", &a(), true).await.unwrap();
    assert_eq!(revoked(&w).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asset_nobody_names_is_deleted_from_the_node() {
    let w = World::ready(options(), 1).await;
    let stray = Digest::of(b"stray");
    let report = AssetReport {
        sha256: stray.clone(),
        phase: AssetPhase::Verified,
        size: 5,
        total: Some(5),
        media_type: "application/octet-stream".into(),
        message: String::new(),
    };
    w.node.with(|s| s.assets.push(report));
    w.delete("Asset", stray.as_str()).await.unwrap();
    assert!(w.node.with(|s| s.assets.is_empty()));
    assert_eq!(w.delete("Asset", stray.as_str()).await.unwrap_err().reason, Reason::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_refused() {
    let w = World::ready(options(), 1).await;
    for (digest, reason) in
        [("ab", "CVE"), (a().as_str(), " "), (a().as_str(), "a\u{1b}[2J"), (a().as_str(), &"x".repeat(257))]
    {
        let request = RevokeRequest { digest: digest.into(), reason: reason.into(), stop: false };
        let answer = RevocationsClient::new(w.face.clone()).revoke(request).await;
        assert_eq!(Error::from(&answer.unwrap_err()).reason, Reason::Invalid, "{digest} {reason:?}");
    }
    assert!(revoked(&w).await.is_empty());
    let e = w.delete_with("WorkerPool", "pool", true).await.unwrap_err();
    assert_eq!(e.reason, Reason::Invalid);
    w.apply(pool("pool", 1)).await.unwrap();
}
