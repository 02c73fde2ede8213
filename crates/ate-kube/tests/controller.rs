//! What is declared in Kubernetes happens, and what came of it is told there; whoever is on a worker is moved before its pod
//! is gone.

mod support;

use std::time::Duration;

use ate_api::{ateapi::actor::Status, v1};
use ate_kube::crd::Kind::{ActorTemplate, SandboxConfig, WorkerPool};
use k8s_openapi::api::{apps::v1::Deployment, policy::v1::PodDisruptionBudget};
use kube::{Api, ResourceExt as _, api::DeleteParams};
use serde_json::json;
use support::{
    apply, eventually,
    world::{NAMESPACE, World, config, pool, template},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_declared_happens_and_what_came_of_it_is_told() {
    let Some(w) = World::ready(2).await else { return };
    let config = w.get(SandboxConfig, "gvisor-default").await.unwrap();
    assert_eq!(config["status"]["revision"], 1, "{config}");
    w.becomes(SandboxConfig, "gvisor-default", "Ready", "True", "Verified").await;
    w.becomes(WorkerPool, "pool", "Ready", "True", "Ready").await;
    eventually("the pool counts its workers", async || {
        let pool = w.get(WorkerPool, "pool").await.unwrap();
        pool["status"]["replicas"] == 2 && pool["status"]["readyReplicas"] == 2
    })
    .await;
    let template = w.get(ActorTemplate, "counter").await.unwrap();
    assert_eq!(template["status"]["phase"], "Ready");
    assert_eq!(template["status"]["sandboxClass"], "gvisor");
    assert!(template["status"]["goldenSnapshot"].as_str().is_some_and(|s| !s.is_empty()), "{template}");
    assert_eq!(template["status"]["goldenActorID"], template["metadata"]["uid"], "one object, one uid");
    let accepted = w.becomes(ActorTemplate, "counter", "Accepted", "True", "Applied").await;
    assert_eq!(accepted["observedGeneration"], template["metadata"]["generation"]);
    w.tells("counter", "GoldenSnapshotReady").await;
    // What runs on them is created through the API of the control plane, which takes nothing else.
    w.create("a").await;
    assert_eq!(w.resume("a").await.status(), Status::Running);
    let refused = v1::ApplyRequest { json: pool("other", 1).to_string().into_bytes(), dry_run: false };
    let refused = w.resources.clone().apply(refused).await.unwrap_err();
    assert!(refused.message().contains("comes from Kubernetes"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_becomes_pods_that_may_what_their_class_needs() {
    let Some(w) = World::start().await else { return };
    apply(&w.client, config("gvisor-default")).await;
    apply(&w.client, pool("pool", 1)).await;
    let deployments: Api<Deployment> = Api::namespaced(w.client.clone(), NAMESPACE);
    eventually("the Deployment", async || deployments.get_opt("pool-workers").await.unwrap().is_some()).await;
    let deployment = deployments.get("pool-workers").await.unwrap();
    let object = w.get(WorkerPool, "pool").await.unwrap();
    assert_eq!(deployment.owner_references()[0].uid, object["metadata"]["uid"].as_str().unwrap());
    let spec = serde_json::to_value(&deployment.spec).unwrap();
    assert_eq!(spec["template"]["metadata"]["labels"]["ate.dev/worker-pool"], "pool");
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["nodeSelector"], json!({"disk": "ssd"}));
    assert_eq!(pod["priorityClassName"], "high");
    assert!(pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"].is_object());
    assert_eq!(pod["tolerations"].as_array().unwrap().len(), 2, "the class's own and the given one");
    assert_eq!(pod["volumes"][0]["hostPath"]["path"], "/var/lib/ate");
    let container = &pod["containers"][0];
    assert_eq!(container["image"], object["spec"]["ateomImage"]);
    assert_eq!(container["resources"]["requests"]["cpu"], "1");
    assert_eq!(container["securityContext"]["privileged"], false);
    assert_eq!(container["securityContext"]["capabilities"]["add"], json!(["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE"]));
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(w.client.clone(), NAMESPACE);
    eventually("the budget", async || budgets.get_opt("pool-workers").await.unwrap().is_some()).await;
    // The finalizer of the template is on the pods it makes.
    eventually("a pod", async || !w.pods("pool").await.is_empty()).await;
    assert_eq!(w.pods("pool").await[0].finalizers(), ["ate.dev/drain"]);

    // What somebody adds stays, what somebody changes of ours does not.
    let change = json!({"metadata": {"annotations": {"team": "a"}}, "spec": {"replicas": 5, "minReadySeconds": 3}});
    let merge = kube::api::Patch::Merge(&change);
    deployments.patch("pool-workers", &Default::default(), &merge).await.unwrap();
    eventually("the replicas of the pool", async || {
        deployments.get("pool-workers").await.unwrap().spec.unwrap().replicas == Some(1)
    })
    .await;
    let kept = deployments.get("pool-workers").await.unwrap();
    assert_eq!(kept.annotations()["team"], "a");
    assert_eq!(kept.spec.unwrap().min_ready_seconds, Some(3));

    w.patch(WorkerPool, "pool", json!({"spec": {"ateomImage": "other:v2", "replicas": 2}})).await.unwrap();
    eventually("the new image", async || {
        let spec = deployments.get("pool-workers").await.unwrap().spec.unwrap();
        spec.template.spec.unwrap().containers[0].image.as_deref() == Some("other:v2") && spec.replicas == Some(2)
    })
    .await;

    // What the pool does not say any more goes, alone too.
    let less = json!({"spec": {"template": {"nodeSelector": null, "resources": {"limits": null}}}});
    w.patch(WorkerPool, "pool", less).await.unwrap();
    eventually("no selector and no limits", async || {
        let pod = deployments.get("pool-workers").await.unwrap().spec.unwrap().template.spec.unwrap();
        let limits = pod.containers[0].resources.as_ref().and_then(|r| r.limits.clone()).unwrap_or_default();
        pod.node_selector.unwrap_or_default().is_empty() && limits.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_the_name_of_a_pools_deployment_and_is_somebody_elses_is_left_alone_and_told_of() {
    let Some(w) = World::start().await else { return };
    let deployments: Api<Deployment> = Api::namespaced(w.client.clone(), NAMESPACE);
    let theirs = json!({
        "metadata": {"name": "web-workers"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web"}]}},
        },
    });
    let theirs = serde_json::from_value(theirs).unwrap();
    let theirs = deployments.create(&Default::default(), &theirs).await.unwrap();
    apply(&w.client, config("gvisor-default")).await;
    apply(&w.client, pool("web", 1)).await;
    let told = w.becomes(WorkerPool, "web", "Deployed", "False", "Conflict").await;
    assert!(told["message"].as_str().unwrap().contains("Deployment web-workers"), "{told}");
    w.tells("web", "Conflict").await;
    w.delete(WorkerPool, "web").await;
    w.is_gone(WorkerPool, "web").await;
    let now = deployments.get("web-workers").await.unwrap();
    assert_eq!((now.uid(), now.metadata.deletion_timestamp), (theirs.uid(), None));

    // Once the name is free the next pool of that name has it, and says no more of it.
    apply(&w.client, pool("web", 1)).await;
    w.becomes(WorkerPool, "web", "Deployed", "False", "Conflict").await;
    deployments.delete("web-workers", &DeleteParams::default()).await.unwrap();
    eventually("it is the pool's", async || {
        let found = deployments.get_opt("web-workers").await.unwrap();
        found.is_some_and(|d| d.labels().get("ate.dev/worker-pool").is_some_and(|pool| pool == "web"))
    })
    .await;
    eventually("nothing is told of it", async || w.condition(WorkerPool, "web", "Deployed").await.is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_on_a_worker_is_moved_before_its_pod_is_gone() {
    let Some(w) = World::ready(2).await else { return };
    w.create("a").await;
    let running = w.resume("a").await;
    w.node.set_slow(true); // the actor takes its time to leave
    let pods = w.pods("pool").await;
    let on = pods.iter().find(|p| is_on(&running, p)).expect("the pod of the actor");
    w.pod_api().delete(&on.name_any(), &DeleteParams::default()).await.unwrap();
    eventually("it leaves", async || w.status("a").await == Status::Suspending).await;
    tokio::time::sleep(Duration::from_secs(1)).await; // a pod that does not wait is gone by now
    let held = w.pod_api().get_opt(&on.name_any()).await.unwrap().expect("the pod waits for its actor");
    assert_eq!(held.finalizers(), ["ate.dev/drain"]);
    w.node.set_slow(false);
    eventually("the pod is gone", async || {
        let found = w.pod_api().get_opt(&on.name_any()).await.unwrap();
        found.is_none_or(|p| p.uid() != on.uid())
    })
    .await;
    assert_eq!(w.status("a").await, Status::Suspended);
    let again = w.resume("a").await;
    assert_ne!(again.ateom_pod_name, running.ateom_pod_name, "it goes on elsewhere");

    // With fewer workers those that hold nobody go.
    let mut used = Vec::new();
    w.patch(WorkerPool, "pool", json!({"spec": {"replicas": 1}})).await.unwrap();
    eventually("one pod is left", async || {
        used = w.pods("pool").await;
        used.len() == 1
    })
    .await;
    assert!(is_on(&again, &used[0]) && w.status("a").await == Status::Running);

    // And with none everybody is moved.
    w.patch(WorkerPool, "pool", json!({"spec": {"replicas": 0}})).await.unwrap();
    eventually("no pod is left", async || w.pods("pool").await.is_empty()).await;
    assert_eq!(w.status("a").await, Status::Suspended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_needed_stays_until_it_is_not() {
    let Some(w) = World::ready(1).await else { return };
    w.create("a").await;
    w.resume("a").await;
    w.delete(ActorTemplate, "counter").await;
    w.delete(SandboxConfig, "gvisor-default").await;
    let why = w.becomes(ActorTemplate, "counter", "Deleted", "False", "InUse").await;
    assert!(why["message"].as_str().unwrap().contains("space/a"), "{why}");
    let why = w.becomes(SandboxConfig, "gvisor-default", "Deleted", "False", "InUse").await;
    assert!(why["message"].as_str().unwrap().contains("workerpool/default/pool"), "{why}");
    w.tells("counter", "InUse").await;
    w.suspend("a").await;
    w.resume("a").await; // all of it is still in force

    w.delete(WorkerPool, "pool").await;
    w.is_gone(WorkerPool, "pool").await;
    assert!(w.pods("pool").await.iter().all(|p| p.finalizers().is_empty()));
    assert_eq!(w.status("a").await, Status::Suspended, "drained with its pool");
    w.remove("a").await;
    w.is_gone(ActorTemplate, "counter").await;
    w.is_gone(SandboxConfig, "gvisor-default").await;
    assert!(w.here(SandboxConfig, "gvisor-default").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_is_deleted_while_its_golden_snapshot_is_made_and_comes_again() {
    let Some(w) = World::start().await else { return };
    apply(&w.client, config("gvisor-default")).await;
    apply(&w.client, pool("pool", 1)).await;
    w.node.set_slow(true);
    let first = apply(&w.client, template("counter")).await;
    eventually("the golden actor is being captured", async || {
        w.get(ActorTemplate, "counter").await.unwrap()["status"]["phase"] == "WaitGoldenActor"
    })
    .await;
    w.delete(ActorTemplate, "counter").await;
    w.node.set_slow(false);
    w.is_gone(ActorTemplate, "counter").await;
    assert!(w.here(ActorTemplate, "counter").await.is_none());
    // The same name with other content is another object.
    let mut other = template("counter");
    other["spec"]["containers"][0]["command"] = json!(["/other"]);
    let second = apply(&w.client, other).await;
    assert_ne!(first.uid(), second.uid());
    w.template_ready("counter").await;
    let here = w.here(ActorTemplate, "counter").await.unwrap();
    assert_eq!(here["metadata"]["uid"].as_str(), second.uid().as_deref());
    assert_eq!(here["spec"]["containers"][0]["command"], json!(["/other"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_default_that_another_took_is_taken_from_the_object_too() {
    let Some(w) = World::start().await else { return };
    apply(&w.client, config("first")).await;
    w.becomes(SandboxConfig, "first", "Accepted", "True", "Applied").await;
    let mut second = config("second");
    second["metadata"]["annotations"] = json!({"ate.dev/is-default-class": "true"});
    apply(&w.client, second).await;
    w.becomes(SandboxConfig, "first", "Default", "False", "Displaced").await;
    assert_eq!(w.get(SandboxConfig, "first").await.unwrap()["spec"]["default"], false);
    assert_eq!(w.get(SandboxConfig, "second").await.unwrap()["spec"]["default"], true);
    // And back, when somebody says so.
    let back = json!({"metadata": {"annotations": {"ate.dev/is-default-class": "true"}}, "spec": {"default": true}});
    w.patch(SandboxConfig, "first", back).await.unwrap();
    w.becomes(SandboxConfig, "second", "Default", "False", "Displaced").await;
    w.becomes(SandboxConfig, "second", "DefaultClass", "False", "Displaced").await;
    let second = w.get(SandboxConfig, "second").await.unwrap();
    assert_eq!(second["spec"]["default"], false);
    assert!(second["metadata"]["annotations"]["ate.dev/is-default-class"].is_null(), "{second}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_says_why_and_is_taken_when_it_is_mended() {
    let Some(w) = World::start().await else { return };
    let mut strange = config("strange");
    strange["spec"]["sandboxClass"] = "kata".into();
    apply(&w.client, strange).await;
    let why = w.becomes(SandboxConfig, "strange", "Accepted", "False", "UnknownSandboxClass").await;
    assert!(why["message"].as_str().unwrap().contains("gvisor, microvm"), "{why}");
    w.tells("strange", "UnknownSandboxClass").await;
    w.delete(SandboxConfig, "strange").await;
    w.is_gone(SandboxConfig, "strange").await;

    apply(&w.client, config("gvisor-default")).await;
    let mut wrong = pool("pool", 1);
    wrong["spec"]["sandboxConfigName"] = "none".into();
    apply(&w.client, wrong).await;
    w.becomes(WorkerPool, "pool", "Ready", "False", "NoSandboxConfig").await;
    w.patch(WorkerPool, "pool", json!({"spec": {"sandboxConfigName": "gvisor-default"}})).await.unwrap();
    w.becomes(WorkerPool, "pool", "Ready", "True", "Ready").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wake_ups_write_nothing_to_kubernetes_and_need_no_kubernetes() {
    let Some(mut w) = World::ready(2).await else { return };
    w.create("a").await;
    w.create("b").await;
    w.becomes(WorkerPool, "pool", "Ready", "True", "Ready").await;
    quiet(&w).await;
    let (before, started) = (w.cluster.writes().await.unwrap(), w.node.activations());
    for _ in 0..20 {
        for actor in ["a", "b"] {
            w.resume(actor).await;
            w.suspend(actor).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await; // what is written off the clock is written by now
    let (writes, wake_ups) = (w.cluster.writes().await.unwrap() - before, w.node.activations() - started);
    println!("kube.api_writes_per_wakeup {} ({writes} writes, {wake_ups} wake-ups)", writes as f64 / wake_ups as f64);
    assert_eq!(wake_ups, 40);
    assert_eq!(writes, 0, "wake-ups are nobody's business but ours");

    // The API server is away: all goes on, and what was declared is still in force.
    w.resume("b").await;
    w.cluster.stop_api();
    w.resume("a").await;
    w.suspend("a").await;
    assert_eq!(w.status("b").await, Status::Running);
    w.cluster.start_api().await.unwrap();
    eventually("our kinds are served again", async || w.is_served().await).await;
    apply(&w.client, template("later")).await;
    w.template_ready("later").await;

    // So it is while no controller runs; what was declared meanwhile comes when one does.
    w.stop_controller().await;
    apply(&w.client, template("unseen")).await;
    w.patch(WorkerPool, "pool", json!({"spec": {"replicas": 3}})).await.unwrap();
    w.suspend("b").await;
    w.resume("b").await;
    w.start_controller();
    w.template_ready("unseen").await;
    eventually("three workers", async || w.pods("pool").await.len() == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_controllers_and_new_definitions_do_no_harm() {
    let Some(w) = World::ready(1).await else { return };
    let stop = tokio_util::sync::CancellationToken::new();
    let other = w.another_controller(stop.clone());
    apply(&w.client, pool("second", 1)).await;
    w.becomes(WorkerPool, "second", "Ready", "True", "Ready").await;
    // The definitions are replaced under the objects, with a field nobody knows yet.
    for kind in ate_kube::crd::Kind::ALL {
        let mut definition = kind.definition();
        let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        schema["properties"]["spec"]["properties"]["later"] = json!({"type": "string", "nullable": true});
        apply(&w.client, definition).await;
    }
    apply(&w.client, template("after")).await;
    w.template_ready("after").await;
    w.template_ready("counter").await;
    quiet(&w).await;
    stop.cancel();
    other.await.unwrap();
}

/// Nobody writes any more.
async fn quiet(w: &World) {
    let mut last = w.versions().await;
    let mut same = 0;
    eventually("nothing is written any more", async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = w.versions().await;
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same >= 20
    })
    .await;
}

fn is_on(actor: &ate_api::ateapi::Actor, pod: &k8s_openapi::api::core::v1::Pod) -> bool {
    !actor.ateom_pod_name.is_empty() && actor.ateom_pod_name.ends_with(&pod.name_any())
}
