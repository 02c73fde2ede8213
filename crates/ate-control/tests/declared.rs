//! Declared resources: what is refused, what follows, what is protected.

mod support;

use std::time::Duration;

use ate_api::{
    Error, Reason,
    id::Uid,
    resource::{Resource, from_value},
    v1::{self, apply_response::Outcome},
};
use ate_store::Store as _;
use serde_json::json;
use support::{
    node::Fault,
    store::Trouble,
    world::{World, atespace, eventually, options, pool, sandbox_config, template},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_of_a_configuration_makes_a_revision_and_snapshots_stay_under_theirs() {
    let w = World::ready(options(), 2).await;
    w.create("old").await.unwrap();
    w.resume("old").await.unwrap();
    w.suspend("old").await.unwrap();
    let answer = w.apply(sandbox_config("gvisor-default", 'b', true)).await.unwrap();
    assert_eq!(answer.outcome(), Outcome::Configured);
    w.pool_runs("gvisor-default@2").await;
    w.apply(template("later")).await.unwrap();
    w.template_ready("later").await;
    assert_eq!(w.get("ActorTemplate", "later").await.unwrap()["status"]["sandboxConfig"], "gvisor-default@2");
    w.resume("old").await.unwrap();
    let last = w.node.with(|s| s.calls.iter().rfind(|c| c.starts_with("activate")).cloned()).unwrap();
    assert!(last.ends_with("gvisor-default@1"), "{last}");
    w.suspend("old").await.unwrap();
    assert_eq!(w.get("Actor", "old").await.unwrap()["status"]["sandboxConfig"], "gvisor-default@1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applying_the_same_again_changes_nothing() {
    let w = World::ready(options(), 1).await;
    for object in
        [sandbox_config("gvisor-default", 'a', true), pool("pool", 1), atespace("default"), template("counter")]
    {
        assert_eq!(w.apply(object.clone()).await.unwrap().outcome(), Outcome::Unchanged, "{object}");
    }
    let config = w.get("SandboxConfig", "gvisor-default").await.unwrap();
    assert_eq!(config["status"]["revision"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_default_takes_the_place_of_the_one_before() {
    let w = World::empty(options()).await;
    w.apply(sandbox_config("one", 'a', true)).await.unwrap();
    w.apply(sandbox_config("two", 'b', true)).await.unwrap();
    let one = w.get("SandboxConfig", "one").await.unwrap();
    assert!(one["spec"]["default"].is_null(), "{one}");
    assert!(one["status"]["conditions"].to_string().contains("two was applied with default: true"), "{one}");
    let all = futures::future::join_all((0..8).map(|i| {
        let w = &w;
        async move { w.apply(sandbox_config(&format!("c{i}"), 'c', true)).await.unwrap() }
    }))
    .await;
    assert_eq!(all.len(), 8);
    let mut defaults = 0;
    for name in (0..8).map(|i| format!("c{i}")).chain(["one".into(), "two".into()]) {
        defaults += usize::from(w.get("SandboxConfig", &name).await.unwrap()["spec"]["default"] == true);
    }
    assert_eq!(defaults, 1);
}

/// The loss of the default counts as a generation here, and the edit as the same one there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_elsewhere_of_a_configuration_that_has_just_lost_a_default_is_not_taken_for_the_loss() {
    let w = World::empty(options()).await;
    let side = w.control.declared_by("the test");
    let (one, two) = (Uid::generate(), Uid::generate());
    side.apply(kept(sandbox_config("one", 'a', true), &one, 1)).await.unwrap();
    side.apply(kept(sandbox_config("two", 'b', true), &two, 1)).await.unwrap();
    let lost = side.get("SandboxConfig", "", "one").unwrap();
    assert_eq!(lost.metadata().generation, 2);
    side.apply(kept(sandbox_config("one", 'c', false), &one, 2)).await.unwrap();
    let Some(Resource::SandboxConfig(now)) = side.get("SandboxConfig", "", "one") else { panic!("it is gone") };
    assert_eq!(now.status.unwrap().revision, 2, "the new binaries are in force");
    let same = side.apply(kept(sandbox_config("one", 'c', false), &one, 2)).await.unwrap();
    assert_eq!(same.metadata().generation, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_atespace_that_is_changed_while_its_deletion_is_refused_takes_actors_again() {
    let w = World::ready(options(), 1).await;
    w.create("a").await.unwrap();
    w.troubles.add(Trouble::Held("atespace/default"));
    let changed = async {
        eventually("it is marked", async || w.troubles.hold()).await;
        let mut labelled = atespace("default");
        labelled["metadata"]["labels"] = json!({"team": "a"});
        let applied = w.apply(labelled).await;
        w.troubles.let_go();
        applied
    };
    let (deleted, changed) = tokio::join!(w.delete("Atespace", "default"), changed);
    changed.unwrap();
    assert_eq!(deleted.unwrap_err().reason, Reason::InUse);
    w.create("b").await.unwrap();
    let now = w.get("Atespace", "default").await.unwrap();
    assert_eq!(now["metadata"]["labels"]["team"], "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_for_somebody_who_left_is_there_for_everybody() {
    let w = World::ready(options(), 1).await;
    w.troubles.add(Trouble::Held("atespace/late"));
    let applied = tokio::select! {
        applied = w.apply(atespace("late")) => Some(applied),
        () = eventually("it is written", async || w.troubles.hold()) => None,
    };
    assert!(applied.is_none(), "the caller has left");
    // What is asked after that on the same connection is answered after that has been seen.
    assert!(w.get("Atespace", "late").await.is_err());
    w.troubles.let_go();
    eventually("it is there", async || w.get("Atespace", "late").await.is_ok()).await;
    w.delete("Atespace", "late").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_refused_when_written() {
    let w = World::ready(options(), 1).await;
    let mut unknown_class = sandbox_config("x", 'a', false);
    unknown_class["spec"]["sandboxClass"] = json!("nosuch");
    assert_eq!(w.apply(unknown_class).await.unwrap_err().reason, Reason::UnknownSandboxClass);
    let mut bad_setting = sandbox_config("x", 'a', false);
    bad_setting["spec"]["config"] = json!({"nosuch": 1});
    assert_eq!(w.apply(bad_setting).await.unwrap_err().reason, Reason::UnknownField);
    let mut other_arch = sandbox_config("x", 'a', false);
    let assets = other_arch["spec"]["assets"].take();
    other_arch["spec"]["assets"] = json!({"s390x": assets["amd64"]});
    let e = w.apply(other_arch).await.unwrap_err();
    assert!(e.message.contains("amd64"), "{e}");
    let mut names_binary = template("x");
    names_binary["spec"]["runsc"] = json!({"url": "file:///tmp/evil"});
    assert_eq!(w.apply(names_binary).await.unwrap_err().reason, Reason::UnknownField);
    let mut changed = template("counter");
    changed["spec"]["containers"][0]["image"] = json!("oci:/images/other");
    assert_eq!(w.apply(changed).await.unwrap_err().reason, Reason::Immutable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_that_needs_more_than_the_binaries_can_is_refused_before_anything_starts() {
    let w = World::empty(options()).await;
    w.node.with(|s| s.capabilities = vec!["snapshot.full".into()]);
    w.apply(sandbox_config("gvisor-default", 'a', true)).await.unwrap();
    w.apply(pool("pool", 1)).await.unwrap();
    eventually("the configuration is tried", async || {
        w.get("SandboxConfig", "gvisor-default").await.unwrap()["status"]["capabilities"] == json!(["snapshot.full"])
    })
    .await;
    let mut two = template("two");
    two["spec"]["containers"] = json!([{"name": "a", "image": "oci:/a"}, {"name": "b", "image": "oci:/b"}]);
    let e = w.apply(two).await.unwrap_err();
    assert_eq!(e.reason, Reason::MissingCapability, "{e}");
    assert_eq!(w.node.count("activate"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_that_is_no_sandbox_is_for_those_who_name_it_and_nobody_else() {
    let w = World::empty(options()).await;
    let mut config = sandbox_config("open", 'a', true);
    config["spec"]["sandboxClass"] = json!("open");
    config["spec"]["assets"] = json!({});
    assert_eq!(w.apply(config.clone()).await.unwrap_err().reason, Reason::NotASandbox);
    let mut space = atespace("default");
    space["spec"] = json!({"defaultSandboxClass": "open"});
    assert_eq!(w.apply(space).await.unwrap_err().reason, Reason::NotASandbox);

    config["spec"]["default"] = json!(false);
    w.apply(config).await.unwrap();
    let conditions = w.get("SandboxConfig", "open").await.unwrap()["status"]["conditions"].to_string();
    assert!(conditions.contains("NotASandbox"), "{conditions}");
    let mut named = template("named");
    named["spec"]["sandboxClass"] = json!("open");
    w.apply(named).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_that_keeps_no_memory_starts_actors_from_their_directories() {
    let w = World::empty(options()).await;
    w.node.with(|s| s.capabilities = vec!["snapshot.data".into()]);
    for object in [atespace("default"), sandbox_config("gvisor-default", 'a', true), pool("pool", 1)] {
        w.apply(object).await.unwrap();
    }
    eventually("the configuration is tried", async || {
        w.get("SandboxConfig", "gvisor-default").await.unwrap()["status"]["capabilities"] == json!(["snapshot.data"])
    })
    .await;
    let e = w.apply(template("full")).await.unwrap_err();
    assert_eq!(e.reason, Reason::MissingCapability, "{e}");
    assert!(e.hint.contains("onCommit: Data"), "{e:?}");
    let mut data = template("data");
    data["spec"]["snapshotsConfig"] = json!({"location": "default", "onPause": "Data", "onCommit": "Data"});
    w.apply(data).await.unwrap();
    eventually("the template is ready", async || {
        w.get("ActorTemplate", "data").await.unwrap()["status"]["phase"] == "Ready"
    })
    .await;
    assert!(w.node.with(|s| s.calls.iter().any(|c| c.starts_with("capture") && c.contains("Data"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_need_cannot_be_deleted() {
    let w = World::ready(options(), 1).await;
    for i in 0..12 {
        w.create(&format!("a{i:02}")).await.unwrap();
    }
    for (kind, name) in [("Atespace", "default"), ("ActorTemplate", "counter"), ("SandboxConfig", "gvisor-default")] {
        let e = w.delete(kind, name).await.unwrap_err();
        assert_eq!(e.reason, Reason::InUse, "{kind}: {e}");
    }
    let e = w.delete("Atespace", "default").await.unwrap_err();
    assert!(e.message.contains("12 actors") && e.message.contains("a09") && !e.message.contains("a10"), "{e}");
    // Refused deletions leave everything usable.
    w.create("more").await.unwrap();
    for name in (0..12).map(|i| format!("a{i:02}")).chain(["more".to_owned()]) {
        w.remove(&name).await.unwrap();
    }
    w.delete("Atespace", "default").await.unwrap();
    w.delete("ActorTemplate", "counter").await.unwrap();
    w.delete("WorkerPool", "pool").await.unwrap();
    eventually("the pool is gone", async || w.get("WorkerPool", "pool").await.is_err()).await;
    w.delete("SandboxConfig", "gvisor-default").await.unwrap();
    eventually("every snapshot is deleted", async || w.node.with(|s| s.snapshots.is_empty())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_shrinks_suspends_its_actors_first() {
    let w = World::ready(options(), 3).await;
    for name in ["a", "b", "c"] {
        w.create(name).await.unwrap();
        w.resume(name).await.unwrap();
    }
    w.apply(pool("pool", 1)).await.unwrap();
    eventually("one worker is left", async || w.node.with(|s| s.reports.len()) == 1).await;
    assert_eq!(w.node.seated().len(), 1);
    for name in ["a", "b", "c"] {
        assert_eq!(w.get("Actor", name).await.unwrap()["status"]["lostActivations"], 0, "{name}");
    }
}

/// One worker is ready, and there is no template yet.
async fn with_a_ready_pool() -> World {
    let w = World::empty(options()).await;
    w.apply(sandbox_config("gvisor-default", 'a', true)).await.unwrap();
    w.apply(pool("pool", 1)).await.unwrap();
    eventually("the pool is ready", async || {
        w.get("WorkerPool", "pool").await.unwrap()["status"]["readyReplicas"] == 1
    })
    .await;
    w
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_golden_snapshot_that_fails_is_tried_again_and_then_said_to_have_failed() {
    let w = with_a_ready_pool().await;
    w.node.fault("activate", Fault::Fail(Reason::NotReady));
    w.apply(template("slow")).await.unwrap();
    w.template_ready("slow").await;
    for _ in 0..4 {
        w.node.fault("activate", Fault::Fail(Reason::NotReady));
    }
    w.apply(template("broken")).await.unwrap();
    eventually("it has failed", async || {
        w.get("ActorTemplate", "broken").await.unwrap()["status"]["phase"] == "Failed"
    })
    .await;
    w.apply(atespace("default")).await.unwrap();
    w.create_from("default", "a", "broken").await.unwrap();
    let e = w.resume("a").await.unwrap_err();
    assert_eq!(e.reason, Reason::TemplateNotReady);
    assert!(e.message.contains("NOT_READY"), "{e}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_waits_for_its_secret_without_failing_and_gets_its_golden_snapshot_when_it_is_there() {
    let w = with_a_ready_pool().await;
    for _ in 0..1000 {
        w.node.fault("activate", Fault::Fail(Reason::SecretUnavailable));
    }
    w.apply(template("needy")).await.unwrap();
    eventually("the condition says so", async || {
        let status = w.get("ActorTemplate", "needy").await.unwrap()["status"].clone();
        assert_ne!(status["phase"], "Failed");
        status["conditions"].to_string().contains("SecretUnavailable")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let tried = w.node.count("activate");
    assert!(tried < 5, "{tried} times in a second");
    // Nobody tells the control plane.
    w.node.with(|s| s.faults.clear());
    w.template_ready("needy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binary_that_does_not_match_its_digest_shows_in_the_conditions() {
    let w = World::empty(options()).await;
    w.node.fault("probe", Fault::Fail(Reason::AssetDigestMismatch));
    w.apply(sandbox_config("bad", 'a', true)).await.unwrap();
    eventually("the condition says so", async || {
        w.get("SandboxConfig", "bad").await.unwrap()["status"]["conditions"].to_string().contains("AssetDigestMismatch")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_configuration_takes_all_its_revisions_with_it() {
    let w = World::empty(options()).await;
    for i in 0..70 {
        let byte = char::from_digit(i % 16, 16).unwrap();
        w.apply(sandbox_config("edited", byte, false)).await.unwrap();
    }
    assert_eq!(w.get("SandboxConfig", "edited").await.unwrap()["status"]["revision"], 70);
    w.delete("SandboxConfig", "edited").await.unwrap();
    let w = w
        .restart_after(async |store| {
            let left = store.list("config-revision/", None, 100).await.unwrap();
            assert!(left.is_empty(), "{} are left", left.len());
        })
        .await;
    w.apply(sandbox_config("edited", 'a', false)).await.unwrap();
    assert_eq!(w.get("SandboxConfig", "edited").await.unwrap()["status"]["revision"], 71, "numbers are not reused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_actors_are_nobodys_to_delete() {
    let w = World::ready(options(), 1).await;
    let uid = w.get("ActorTemplate", "counter").await.unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let of = v1::ObjectRef { kind: "Actor".into(), namespace: "ate-golden".into(), name: uid };
    let answer = w.resources.clone().delete(v1::DeleteRequest { r#ref: Some(of), force: false }).await;
    assert_eq!(Error::from(&answer.unwrap_err()).reason, Reason::PermissionDenied);
}

/// An object as another keeper of resources has it.
fn kept(object: serde_json::Value, uid: &Uid, generation: u64) -> Resource {
    let mut resource = from_value(object).unwrap();
    resource.metadata_mut().uid = Some(uid.clone());
    resource.metadata_mut().generation = generation;
    resource
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_declared_elsewhere_keeps_who_it_is_and_is_written_there_alone() {
    let w = World::empty(options()).await;
    w.apply(atespace("default")).await.unwrap();
    let declared = w.control.declared_by("Kubernetes");
    let (config, first, second) = (Uid::generate(), Uid::generate(), Uid::generate());
    declared.apply(kept(sandbox_config("gvisor-default", 'a', true), &config, 7)).await.unwrap();
    declared.apply(kept(pool("pool", 1), &Uid::generate(), 3)).await.unwrap();
    declared.apply(kept(template("counter"), &first, 1)).await.unwrap();
    w.template_ready("counter").await;
    let shown = w.get("SandboxConfig", "gvisor-default").await.unwrap();
    assert_eq!(
        (shown["metadata"]["uid"].as_str(), &shown["metadata"]["generation"]),
        (Some(config.as_str()), &json!(7))
    );

    // One that comes late changes nothing.
    let old = declared.apply(kept(sandbox_config("gvisor-default", 'b', false), &config, 6)).await.unwrap();
    assert_eq!(old.metadata().generation, 7);
    assert_eq!(w.get("SandboxConfig", "gvisor-default").await.unwrap()["status"]["revision"], 1);

    // Here it is nobody's to write, and the refusal says where it is.
    for refused in [w.apply(template("other")).await.map(drop), w.delete("WorkerPool", "pool").await] {
        let e = refused.unwrap_err();
        assert!(e.reason == Reason::WrongState && e.message.contains("comes from Kubernetes"), "{e}");
    }
    assert_eq!(w.set_default_config("gvisor-default").await.unwrap_err().reason, Reason::WrongState);

    // Another object of the same name waits until nobody needs the one before.
    w.create("a").await.unwrap();
    let refused = declared.apply(kept(template("counter"), &second, 1)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::InUse);
    w.remove("a").await.unwrap();
    declared.apply(kept(template("counter"), &second, 1)).await.unwrap();
    w.template_ready("counter").await;
    assert_eq!(w.get("ActorTemplate", "counter").await.unwrap()["metadata"]["uid"], second.as_str());
    assert!(declared.delete("ActorTemplate", "default", "counter", Some(&first)).await.unwrap(), "that one is gone");
    assert!(declared.get("ActorTemplate", "default", "counter").is_some());
}
