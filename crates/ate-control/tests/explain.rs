//! `explain`: the facts it gives are those by which an actor then really starts.

mod support;

use ate_api::{
    Reason,
    resource::{
        Rule,
        explanation::{Explanation, Origin},
    },
};
use support::{
    node::Fault,
    world::{World, eventually, of_class, options, pool, sandbox_config, template},
};

fn reasons(e: &Explanation) -> Vec<&str> {
    e.obstacles.iter().map(|o| o.reason.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_is_pinned_by_its_snapshot_and_the_way_out_is_named() {
    let w = World::ready(options(), 2).await;
    w.create("a").await.unwrap();
    let e = w.explain("Actor", "a").await.unwrap();
    assert_eq!((e.object.as_str(), e.template.as_deref()), ("actor/default/a", Some("default/counter")));
    assert_eq!((e.class.name.as_str(), e.class.rule), ("gvisor", Rule::BuiltIn));
    assert_eq!(e.starts_from.origin, Origin::Golden);
    let config = e.config.unwrap();
    assert_eq!((config.name.as_str(), config.rule), ("gvisor-default@1", Rule::Snapshot));
    assert!(config.why.contains("golden") && config.at.is_some(), "{config:?}");
    assert!(e.obstacles.is_empty() && e.changes.is_empty(), "{:?} {:?}", e.obstacles, e.changes);
    let next = e.next.expect("a worker is free");

    assert_eq!(w.resume("a").await.unwrap().worker_pool_name, next.pool.trim_start_matches("default/"));
    let running = w.explain("Actor", "a").await.unwrap();
    let seat = running.runs_on.expect("it runs");
    assert_eq!((seat.pool.as_str(), seat.config.as_str()), ("default/pool", "gvisor-default@1"));
    w.suspend("a").await.unwrap();

    w.apply(sandbox_config("gvisor-default", 'b', true)).await.unwrap();
    w.pool_runs("gvisor-default@2").await;
    let e = w.explain("Actor", "a").await.unwrap();
    assert_eq!(e.starts_from.origin, Origin::Snapshot);
    let facts = e.starts_from.snapshot.unwrap();
    assert_eq!((facts.generation, facts.arch.as_str(), facts.cpu_features), (1, "amd64", 2));
    assert_eq!(e.config.unwrap().name, "gvisor-default@1");
    assert_eq!(e.binaries.len(), 1);
    assert_eq!((e.binaries[0].sha256.as_str(), e.binaries[0].admitted_by.len()), ("a".repeat(64).as_str(), 1));
    let mut change = None;
    eventually("the way to the new revision is named", async || {
        change = w.explain("Actor", "a").await.unwrap().changes.pop();
        change.is_some()
    })
    .await;
    let change = change.unwrap();
    assert!(change.then.contains("gvisor-default@2"), "{change:?}");
    assert_eq!(change.command, "ate resume actor a -a default --boot");
    // And so it is.
    w.resume_in("default", "a", true).await.unwrap();
    let e = w.explain("Actor", "a").await.unwrap();
    let config = e.config.unwrap();
    assert_eq!((config.name.as_str(), config.rule), ("gvisor-default@2", Rule::Pool));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pool_is_listed_with_why_it_does_not_fit() {
    let w = World::ready(options(), 1).await;
    w.apply(of_class(sandbox_config("other-default", 'b', true), "other")).await.unwrap();
    w.apply(of_class(pool("vms", 1), "other")).await.unwrap();
    w.create("a").await.unwrap();
    w.create("b").await.unwrap();
    let mut pools = Vec::new();
    eventually("both pools are known", async || {
        pools = w.explain("Actor", "a").await.unwrap().pools;
        pools.len() == 2
    })
    .await;
    assert_eq!((pools[0].pool.as_str(), pools[0].fits, pools[0].free), ("default/pool", true, 1));
    assert!(!pools[1].fits && pools[1].why.contains("its sandbox class is other"), "{pools:?}");

    w.resume("b").await.unwrap();
    let e = w.explain("Actor", "a").await.unwrap();
    assert_eq!((reasons(&e), &e.next), (vec!["NO_FREE_WORKER"], &None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_in_the_way_is_named_before_anybody_waits_for_it() {
    let w = World::empty(options()).await;
    w.apply(template("early")).await.unwrap();
    let e = w.explain("ActorTemplate", "early").await.unwrap();
    assert_eq!((&e.starts_from.origin, &e.config), (&Origin::Image, &None));
    assert_eq!(reasons(&e), ["TEMPLATE_NOT_READY", "NO_SUITABLE_WORKER"]);
    assert!(e.obstacles[1].message.contains("no worker pool of class gvisor"), "{:?}", e.obstacles);

    w.apply(pool("pool", 1)).await.unwrap();
    eventually("the missing configuration is named", async || {
        let e = w.explain("ActorTemplate", "early").await.unwrap();
        e.obstacles.iter().any(|o| o.message.contains("there is no SandboxConfig of class gvisor"))
    })
    .await;
    for _ in 0..50 {
        w.node.fault("probe", Fault::Fail(Reason::AssetDigestMismatch));
    }
    w.apply(sandbox_config("gvisor-default", 'a', true)).await.unwrap();
    eventually("the binaries that do not work are named", async || {
        let e = w.explain("ActorTemplate", "early").await.unwrap();
        e.obstacles.iter().any(|o| o.message.contains("ASSET_DIGEST_MISMATCH"))
    })
    .await;
    w.node.with(|s| s.faults.clear());
    w.template_ready("early").await;
    let e = w.explain("ActorTemplate", "early").await.unwrap();
    assert!(e.obstacles.is_empty(), "{:?}", e.obstacles);
    assert_eq!((e.phase.as_str(), e.starts_from.origin), ("Ready", Origin::Golden));
    assert_eq!(e.binaries[0].name, "runsc");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_has_a_sandbox_can_be_explained() {
    let w = World::ready(options(), 1).await;
    assert_eq!(w.explain("Actor", "nobody").await.unwrap_err().reason, Reason::NotFound);
    assert_eq!(w.explain("ActorTemplate", "nothing").await.unwrap_err().reason, Reason::NotFound);
    assert_eq!(w.explain("WorkerPool", "pool").await.unwrap_err().reason, Reason::Invalid);
}
