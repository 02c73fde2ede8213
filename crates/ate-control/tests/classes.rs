//! Two classes side by side: nobody ever lands on a worker of the other.

mod support;

use ate_api::{Reason, ateapi::actor::Status as Phase};
use support::world::{World, of_class, options, pool, sandbox_config, template};

/// Templates `counter` and `others`, each with a pool of its class.
async fn world() -> World {
    let w = World::ready(options(), 1).await;
    w.apply(of_class(sandbox_config("other-default", 'b', true), "other")).await.unwrap();
    w.apply(of_class(pool("other-pool", 1), "other")).await.unwrap();
    w.apply(of_class(template("others"), "other")).await.unwrap();
    w.template_ready("others").await;
    w
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_runs_on_workers_of_its_class_only_however_scarce_they_are() {
    let w = world().await;
    for (name, template) in [("a", "counter"), ("b", "others"), ("c", "counter"), ("d", "others")] {
        w.create_from("default", name, template).await.unwrap();
    }
    // One worker each: whoever comes next in a class takes the place of the one before in the same class.
    for _ in 0..3 {
        for (name, pool) in [("a", "pool-"), ("b", "other-pool-"), ("c", "pool-"), ("d", "other-pool-")] {
            let running = w.resume(name).await.unwrap();
            assert_eq!(running.status(), Phase::Running);
            assert!(running.ateom_pod_name.starts_with(pool), "{name} is on {}", running.ateom_pod_name);
        }
    }
    for worker in w.list("Worker").await {
        let class = if worker["spec"]["pool"] == "pool" { "gvisor" } else { "other" };
        assert_eq!(worker["spec"]["sandboxClass"], class);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_pools_of_another_class_only_the_refusal_names_both_classes() {
    let w = world().await;
    w.create_from("default", "b", "others").await.unwrap();
    w.delete("WorkerPool", "other-pool").await.unwrap();
    support::world::eventually("the pool is gone", async || w.get("WorkerPool", "other-pool").await.is_err()).await;
    let e = w.resume("b").await.unwrap_err();
    assert_eq!(e.reason, Reason::NoSuitableWorker, "{e}");
    let expected = "default/pool: its sandbox class is gvisor, the actor's is other";
    assert!(e.message.contains(expected), "{e}");
    w.all_workers_free().await;
}
