//! What actors go through when nothing goes wrong, and what callers may rely on.

mod support;

use std::time::Duration;

use ate_api::{Reason, ateapi::actor::Status as Phase};
use support::{
    store::Trouble,
    world::{PATIENCE, World, atespace, eventually, name, of_class, options, pool, sandbox_config, template},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_is_created_resumed_suspended_and_resumed() {
    let w = World::ready(options(), 1).await;
    let created = w.create("a").await.unwrap();
    assert_eq!(created.status(), Phase::Suspended);
    let running = w.resume("a").await.unwrap();
    assert_eq!((running.status(), running.activation), (Phase::Running, 1));
    assert!(!running.ateom_pod_ip.is_empty());
    let suspended = w.suspend("a").await.unwrap();
    assert_eq!(suspended.status(), Phase::Suspended);
    let snapshot = suspended.latest_snapshot_info.unwrap();
    assert_eq!(snapshot.generation, 1);
    assert_eq!(w.resume("a").await.unwrap().activation, 2);
    let last = w.node.with(|s| s.calls.iter().rfind(|c| c.starts_with("activate")).cloned()).unwrap();
    assert!(last.contains(&snapshot.manifest_digest), "{last}");
    w.suspend("a").await.unwrap();
    w.all_workers_free().await;
    eventually("the old generation is deleted", async || {
        w.node.with(|s| s.deleted.iter().any(|d| d.as_str() == snapshot.manifest_digest))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_resumes_at_once_are_one_activation() {
    let w = World::ready(options(), 2).await;
    w.create("a").await.unwrap();
    let before = w.node.count("activate");
    let all = futures::future::join_all((0..32).map(|_| w.resume("a"))).await;
    assert!(all.iter().all(|r| r.as_ref().unwrap().activation == 1));
    assert_eq!(w.node.count("activate") - before, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_actors_than_workers_take_turns_by_themselves() {
    let w = World::ready(options(), 2).await;
    for i in 0..6 {
        w.create(&format!("a{i}")).await.unwrap();
    }
    for round in 0..3 {
        for i in 0..6 {
            let actor = w.resume(&format!("a{i}")).await.unwrap();
            assert_eq!(actor.status(), Phase::Running, "round {round}");
        }
    }
    assert_eq!(w.node.with(|s| s.doubles), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_without_requests_is_suspended_by_itself() {
    let w = World::ready(options(), 1).await;
    let mut quick = template("quick");
    quick["spec"]["idleTimeout"] = "60ms".into();
    w.apply(quick).await.unwrap();
    w.template_ready("quick").await;
    w.create_from("default", "a", "quick").await.unwrap();
    w.resume("a").await.unwrap();
    w.phase_becomes("a", Phase::Suspended).await;
    w.all_workers_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_free_worker_a_request_waits_until_its_deadline() {
    let w = World::ready(support_no_eviction(), 1).await;
    w.create("a").await.unwrap();
    w.create("b").await.unwrap();
    w.resume("a").await.unwrap();
    let e = w.resume_within("b", Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(e.reason, Reason::NoFreeWorker, "{e}");
    // One that still waits gets the worker as soon as it is free.
    let (resumed, _) = tokio::join!(w.resume("b"), async {
        eventually("b waits", async || true).await;
        w.suspend("a").await.unwrap()
    });
    assert_eq!(resumed.unwrap().status(), Phase::Running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_worker_there_is_none_of_keeps_nobody_else_from_getting_one() {
    let w = World::ready(options(), 1).await;
    let config = of_class(sandbox_config("machines", 'b', true), "other");
    for object in [config, of_class(pool("machines", 1), "other"), of_class(template("machine"), "other")] {
        w.apply(object).await.unwrap();
    }
    w.template_ready("machine").await;
    w.create_from("default", "m", "machine").await.unwrap();
    w.create("a").await.unwrap();
    w.create("b").await.unwrap();
    let only = w.node.with(|s| s.reports.values().find(|r| r.pool.name == "machines").map(|r| r.id.clone()));
    w.node.lose(&only.unwrap());
    let (waited, ()) = tokio::join!(w.resume_within("m", Duration::from_secs(5)), async {
        // Each makes room for the next, most of the time behind the one who waits in vain.
        for _ in 0..8 {
            for name in ["a", "b"] {
                w.resume_within(name, Duration::from_secs(3)).await.unwrap();
            }
        }
    });
    assert_eq!(waited.unwrap_err().reason, Reason::NoFreeWorker);
}

fn support_no_eviction() -> ate_control::Options {
    ate_control::Options { eviction_grace: Duration::from_secs(3600), ..options() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_instead_of_growing() {
    let w = World::ready(ate_control::Options { queue_limit: 1, ..support_no_eviction() }, 1).await;
    for n in ["a", "b", "c"] {
        w.create(n).await.unwrap();
    }
    w.resume("a").await.unwrap();
    let waiting = tokio::spawn({
        let control = w.control.clone();
        // The other caller may have had the one place first.
        async move {
            loop {
                let deadline = std::time::Instant::now() + Duration::from_secs(2);
                match control.resume(&name("b"), false, deadline).await {
                    Err(e) if e.reason == Reason::QueueFull => tokio::task::yield_now().await,
                    done => return done,
                }
            }
        }
    });
    eventually("c is refused", async || {
        w.resume_within("c", Duration::from_millis(200)).await.unwrap_err().reason == Reason::QueueFull
    })
    .await;
    assert_eq!(waiting.await.unwrap().unwrap_err().reason, Reason::NoFreeWorker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_actor_stays_on_its_node_and_keeps_its_last_snapshot_in_object_storage() {
    let w = World::ready(options(), 1).await;
    w.create("a").await.unwrap();
    w.resume("a").await.unwrap();
    let suspended = w.suspend("a").await.unwrap().latest_snapshot_info.unwrap();
    w.resume("a").await.unwrap();
    let paused = w.pause("a").await.unwrap();
    assert_eq!(paused.status(), Phase::Paused);
    assert_eq!(paused.latest_snapshot_info.unwrap().generation, 2);
    assert!(w.node.with(|s| s.snapshots.iter().any(|d| d.as_str() == suspended.manifest_digest)));
    // Suspending a paused actor moves it to object storage.
    let moved = w.suspend("a").await.unwrap();
    assert_eq!(moved.status(), Phase::Suspended);
    eventually("both older ones are deleted", async || w.node.with(|s| s.deleted.len()) == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_of_one_name_in_two_atespaces_are_two_actors() {
    let w = World::ready(options(), 2).await;
    w.apply(atespace("other")).await.unwrap();
    let one = w.create("same").await.unwrap();
    let two = w.create_from("other", "same", "counter").await.unwrap();
    assert_ne!(one.uid, two.uid);
    let one = w.resume("same").await.unwrap();
    let two = w.resume_in("other", "same", false).await.unwrap();
    assert_ne!(one.ateom_pod_name, two.ateom_pod_name);
    w.remove("same").await.unwrap();
    assert_eq!(w.resume_in("other", "same", false).await.unwrap().uid, two.uid);
    assert_eq!(w.actor("same").await.unwrap_err().reason, Reason::NotFound);
    let again = w.create("same").await.unwrap();
    assert_ne!(again.uid, one.uid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_actors_belong_to_the_system() {
    let w = World::ready(options(), 1).await;
    let e = w.create_from("ate-golden", "mine", "counter").await.unwrap_err();
    assert_eq!(e.reason, Reason::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_created_before_its_template_is_ready_waits_for_it() {
    let w = World::empty(options()).await;
    w.apply(atespace("default")).await.unwrap();
    w.apply(template("counter")).await.unwrap();
    w.create("a").await.unwrap();
    let e = w.resume_within("a", Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(e.reason, Reason::TemplateNotReady, "{e}");
    let (resumed, _) = tokio::join!(w.resume("a"), async {
        w.apply(sandbox_config("gvisor-default", 'a', true)).await.unwrap();
        w.apply(pool("pool", 1)).await.unwrap();
    });
    assert_eq!(resumed.unwrap().status(), Phase::Running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_wins_over_whatever_goes_on() {
    let w = World::ready(support_no_eviction(), 1).await;
    w.create("a").await.unwrap();
    w.create("b").await.unwrap();
    w.resume("a").await.unwrap();
    // b waits for a worker; deleting it does not.
    let (resumed, removed) = tokio::join!(w.resume("b"), async {
        eventually("b waits", async || w.node.count("activate") >= 2).await;
        w.remove("b").await
    });
    removed.unwrap();
    assert!(matches!(resumed, Err(e) if matches!(e.reason, Reason::WrongState | Reason::NotFound)));
    w.remove("a").await.unwrap();
    assert_eq!(w.remove("a").await.unwrap_err().reason, Reason::NotFound);
    w.all_workers_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_resume_suspend_pause_and_delete_leak_nothing() {
    let w = World::ready(options(), 3).await;
    for round in 0..6 {
        for i in 0..4 {
            w.create(&format!("r{round}-{i}")).await.unwrap();
        }
        let names: Vec<String> = (0..4).map(|i| format!("r{round}-{i}")).collect();
        futures::future::join_all(names.iter().map(|n| async {
            let _ = tokio::join!(
                w.resume(n),
                w.suspend(n),
                w.resume(n),
                w.pause(n),
                w.suspend(n),
                w.resume(n),
                w.remove(n),
                w.resume(n)
            );
        }))
        .await;
        for n in &names {
            let _ = w.remove(n).await;
            assert_eq!(w.actor(n).await.unwrap_err().reason, Reason::NotFound);
        }
    }
    w.all_workers_free().await;
    assert_eq!(w.node.with(|s| s.doubles), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boot_starts_from_the_image_and_gives_up_memory() {
    let w = World::ready(options(), 1).await;
    w.create("a").await.unwrap();
    w.resume("a").await.unwrap();
    w.suspend("a").await.unwrap();
    w.resume_in("default", "a", true).await.unwrap();
    let last = w.node.with(|s| s.calls.iter().rfind(|c| c.starts_with("activate")).cloned()).unwrap();
    assert!(last.contains(" boot "), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_that_keeps_files_only_captures_and_starts_from_files_only() {
    let w = World::ready(options(), 1).await;
    let mut files = template("files");
    files["spec"]["snapshotsConfig"] =
        serde_json::json!({"location": "default", "onPause": "Data", "onCommit": "Data"});
    w.apply(files).await.unwrap();
    w.template_ready("files").await;
    w.create_from("default", "a", "files").await.unwrap();
    w.resume("a").await.unwrap();
    w.suspend("a").await.unwrap();
    let captures = w.node.with(|s| s.calls.iter().filter(|c| c.starts_with("capture")).cloned().collect::<Vec<_>>());
    // The golden one holds memory, the actor's own does not.
    assert!(captures[captures.len() - 2].contains("ate-golden") && captures[captures.len() - 2].contains("Full"));
    assert!(captures[captures.len() - 1].contains("default/a") && captures[captures.len() - 1].contains("Data"));
    let listed = w.list("Snapshot").await;
    let own = listed.iter().find(|s| s["spec"]["owner"] == "default/a").unwrap();
    assert_eq!((&own["spec"]["scope"], &own["status"]["current"]), (&"Data".into(), &true.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_shows_what_there_is_then_what_changes() {
    use ate_api::v1::{WatchRequest, watch_event::Type};
    let w = World::ready(options(), 1).await;
    w.create("there").await.unwrap();
    let request = WatchRequest { kind: "Actor".into(), namespace: "default".into(), name: String::new() };
    let mut events = w.resources.clone().watch(request).await.unwrap().into_inner();
    let mut next = async || {
        let event = tokio::time::timeout(PATIENCE, events.message()).await.unwrap().unwrap().unwrap();
        (event.r#type(), event.object.map(|o| o.name).unwrap_or_default())
    };
    assert_eq!(next().await, (Type::Added, "there".to_owned()));
    assert_eq!(next().await, (Type::Bookmark, String::new()));
    w.create("later").await.unwrap();
    assert_eq!(next().await, (Type::Added, "later".to_owned()));
    w.remove("there").await.unwrap();
    assert_eq!(next().await, (Type::Deleted, "there".to_owned()));
}

/// Nobody would tell of it later: the store has told of it, and memory, which gets it with the answer, tells nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_begins_between_a_commit_and_its_answer_shows_what_was_committed() {
    use ate_api::v1::{WatchRequest, watch_event::Type};
    let w = World::ready(options(), 1).await;
    w.troubles.add(Trouble::Held("atespace/late"));
    let watched = async {
        eventually("it is written", async || w.troubles.hold()).await;
        let request = WatchRequest { kind: "Atespace".into(), ..Default::default() };
        let mut events = w.resources.clone().watch(request).await.unwrap().into_inner();
        let mut names = Vec::new();
        loop {
            let event = tokio::time::timeout(PATIENCE, events.message()).await.unwrap().unwrap().unwrap();
            if event.r#type() == Type::Bookmark {
                w.troubles.let_go();
                return names;
            }
            names.push(event.object.unwrap().name);
        }
    };
    let (applied, names) = tokio::join!(w.apply(atespace("late")), watched);
    applied.unwrap();
    assert_eq!(names, ["default", "late"]);
}
