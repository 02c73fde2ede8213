//! Bad luck at every call of the node, and a crash at every step: nothing is lost, nothing leaks, nobody hangs.

mod support;

use std::time::Duration;

use ate_agent::NodeEvent;
use ate_api::{Reason, ateapi::actor::Status as Phase, id::WorkerId};
use ate_control::Options;
use support::{
    node::Fault,
    world::{World, eventually, options},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_on_one_worker_succeeds_on_another() {
    let w = World::ready(options(), 2).await;
    w.create("a").await.unwrap();
    for reason in [Reason::SandboxFailed, Reason::WorkerLost, Reason::Unavailable] {
        w.node.fault("activate", Fault::Fail(reason));
        assert_eq!(w.resume("a").await.unwrap().status(), Phase::Running, "{reason}");
        w.suspend("a").await.unwrap();
    }
    w.all_workers_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_everywhere_says_why_and_frees_the_workers() {
    let w = World::ready(options(), 2).await;
    w.create("a").await.unwrap();
    for _ in 0..3 {
        w.node.fault("activate", Fault::Fail(Reason::SandboxFailed));
    }
    let e = w.resume("a").await.unwrap_err();
    assert_eq!(e.reason, Reason::SandboxFailed, "{e}");
    w.all_workers_free().await;
    let actor = w.actor("a").await.unwrap();
    assert_eq!(actor.status(), Phase::Suspended);
    assert!(actor.message.contains("failed"), "{}", actor.message);
    w.node.with(|s| s.faults.clear());
    // Each attempt had a number of its own.
    assert!(w.resume("a").await.unwrap().activation >= 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_never_answers_is_given_up() {
    let w = World::ready(options(), 1).await;
    w.create("a").await.unwrap();
    w.node.fault("activate", Fault::Hang);
    let e = w.resume("a").await.unwrap_err();
    assert_eq!(e.reason, Reason::DeadlineExceeded, "{e}");
    w.all_workers_free().await;
    assert_eq!(w.resume("a").await.unwrap().status(), Phase::Running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_is_never_ready_is_not_tried_on_every_worker() {
    let w = World::ready(options(), 3).await;
    w.create("a").await.unwrap();
    let before = w.node.count("activate");
    w.node.fault("activate", Fault::Fail(Reason::NotReady));
    assert_eq!(w.resume("a").await.unwrap_err().reason, Reason::NotReady);
    assert_eq!(w.node.count("activate") - before, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_cannot_be_captured_runs_on() {
    let w = World::ready(options(), 1).await;
    w.create("a").await.unwrap();
    w.resume("a").await.unwrap();
    for fault in [Fault::Fail(Reason::DiskFull), Fault::Fail(Reason::StorageUnavailable), Fault::Hang] {
        w.node.fault("capture", fault);
        let e = w.suspend("a").await.unwrap_err();
        assert!(matches!(e.reason, Reason::DiskFull | Reason::StorageUnavailable | Reason::DeadlineExceeded), "{e}");
        // The caller may give up before the capture does.
        w.phase_becomes("a", Phase::Running).await;
        let actor = w.actor("a").await.unwrap();
        assert_eq!(actor.activation, 1);
        assert!(actor.message.contains("runs on"), "{}", actor.message);
    }
    assert_eq!(w.node.count("thaw"), 3);
    // A number means one attempt: the failed ones are never used again.
    assert_eq!(w.suspend("a").await.unwrap().latest_snapshot_info.unwrap().generation, 4);
    w.all_workers_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_dies_while_being_captured_keeps_its_last_generation() {
    let w = World::ready(options(), 1).await;
    w.create("a").await.unwrap();
    w.resume("a").await.unwrap();
    let kept = w.suspend("a").await.unwrap().latest_snapshot_info.unwrap();
    w.resume("a").await.unwrap();
    w.node.fault("capture", Fault::Fail(Reason::ActorExited));
    assert_eq!(w.suspend("a").await.unwrap_err().reason, Reason::ActorExited);
    let actor = w.actor("a").await.unwrap();
    assert_eq!(actor.status(), Phase::Suspended);
    assert_eq!(actor.latest_snapshot_info.unwrap(), kept);
    let view = w.get("Actor", "a").await.unwrap();
    assert_eq!(view["status"]["lostActivations"], 1);
    w.all_workers_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_cannot_be_cleaned_is_tried_again_and_not_used_meanwhile() {
    let w = World::ready(options(), 1).await;
    w.create("a").await.unwrap();
    w.create("b").await.unwrap();
    w.resume("a").await.unwrap();
    for _ in 0..2 {
        w.node.fault("release", Fault::Fail(Reason::Internal));
    }
    w.suspend("a").await.unwrap();
    assert_eq!(w.resume("b").await.unwrap().status(), Phase::Running);
    assert_eq!(w.node.with(|s| s.doubles), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_worker_takes_its_actor_back_to_the_last_generation_and_says_so() {
    let w = World::ready(options(), 2).await;
    w.create("a").await.unwrap();
    w.resume("a").await.unwrap();
    let kept = w.suspend("a").await.unwrap().latest_snapshot_info.unwrap();
    let running = w.resume("a").await.unwrap();
    w.node.lose(&ate_api::id::WorkerId(running.ateom_pod_name));
    w.phase_becomes("a", Phase::Suspended).await;
    let view = w.get("Actor", "a").await.unwrap();
    assert_eq!(view["status"]["lostActivations"], 1);
    assert_eq!(view["status"]["snapshot"], kept.manifest_digest.as_str());
    let told = view["status"]["events"].as_array().unwrap().last().unwrap();
    assert!(told["message"].as_str().unwrap().contains("activation 2 lost"), "{told}");
    let again = w.resume("a").await.unwrap();
    assert_eq!(again.activation, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_ends_by_itself_frees_its_worker() {
    let w = World::ready(options(), 1).await;
    w.create("a").await.unwrap();
    w.resume("a").await.unwrap();
    let (worker, seated) = w.node.seated().remove(0);
    w.node.send(NodeEvent::ActorEnded {
        worker,
        actor: seated.actor,
        activation: seated.activation,
        message: "exit status 1".into(),
    });
    w.phase_becomes("a", Phase::Suspended).await;
    w.all_workers_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_an_older_activation_changes_nothing() {
    let w = World::ready(options(), 1).await;
    w.create("a").await.unwrap();
    w.resume("a").await.unwrap();
    let (worker, seated) = w.node.seated().remove(0);
    w.suspend("a").await.unwrap();
    let running = w.resume("a").await.unwrap();
    w.node.send(NodeEvent::ActorEnded {
        worker,
        actor: seated.actor,
        activation: seated.activation,
        message: "late news".into(),
    });
    // The next suspend is served by the activation that runs.
    let suspended = w.suspend("a").await.unwrap();
    assert_eq!((suspended.activation, suspended.latest_snapshot_info.unwrap().generation), (running.activation, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_fails_verification_is_not_tried_again_and_again() {
    let w = World::ready(options(), 1).await;
    w.create("a").await.unwrap();
    w.resume("a").await.unwrap();
    w.suspend("a").await.unwrap();
    w.node.fault("activate", Fault::Fail(Reason::SnapshotCorrupt));
    assert_eq!(w.resume("a").await.unwrap_err().reason, Reason::SnapshotCorrupt);
    let tries = w.node.count("activate");
    let e = w.resume("a").await.unwrap_err();
    assert_eq!(e.reason, Reason::SnapshotCorrupt);
    assert!(e.message.contains("quarantined") && e.hint.contains("boot"), "{e:?}");
    assert_eq!(w.node.count("activate"), tries, "nothing was started from it");
    assert_eq!(w.resume_in("default", "a", true).await.unwrap().status(), Phase::Running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_actor_whose_local_snapshot_is_gone_goes_back_to_the_one_in_object_storage() {
    let w = World::ready(options(), 1).await;
    w.create("a").await.unwrap();
    w.resume("a").await.unwrap();
    let external = w.suspend("a").await.unwrap().latest_snapshot_info.unwrap();
    w.resume("a").await.unwrap();
    w.pause("a").await.unwrap();
    w.node.fault("activate", Fault::Fail(Reason::SnapshotNotFound));
    let e = w.resume("a").await.unwrap_err();
    assert_eq!(e.reason, Reason::SnapshotNotFound);
    let actor = w.actor("a").await.unwrap();
    assert_eq!(actor.status(), Phase::Suspended);
    assert_eq!(actor.latest_snapshot_info.unwrap().manifest_digest, external.manifest_digest);
    assert!(actor.message.contains("lost"), "{}", actor.message);
    assert_eq!(w.resume("a").await.unwrap().status(), Phase::Running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_does_not_stop_the_work() {
    let w = World::ready(options(), 1).await;
    w.create("a").await.unwrap();
    w.node.fault("activate", Fault::Slow(Duration::from_millis(300)));
    let e = w.resume_within("a", Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(e.reason, Reason::DeadlineExceeded), "{e}");
    w.phase_becomes("a", Phase::Running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_every_actor_is_at_its_last_committed_generation() {
    let w = World::ready(options(), 4).await;
    for name in ["never", "running", "resuming", "suspending", "paused"] {
        w.create(name).await.unwrap();
    }
    for name in ["running", "suspending", "paused"] {
        w.resume(name).await.unwrap();
        w.suspend(name).await.unwrap();
        w.resume(name).await.unwrap();
    }
    w.pause("paused").await.unwrap();
    w.node.fault("capture", Fault::Hang);
    w.node.fault("activate", Fault::Hang);
    let _ = tokio::join!(
        tokio::time::timeout(Duration::from_millis(50), w.suspend("suspending")),
        tokio::time::timeout(Duration::from_millis(50), w.resume("resuming")),
    );
    let w = w.restart().await;
    eventually("workers are back", async || w.node.with(|s| s.reports.len()) == 4).await;
    for (name, phase, generation, lost) in [
        ("never", Phase::Suspended, None, 0),
        // Nobody knows whether it served already, so it counts as lost.
        ("resuming", Phase::Suspended, None, 1),
        ("running", Phase::Suspended, Some(1), 1),
        ("suspending", Phase::Suspended, Some(1), 1),
        ("paused", Phase::Paused, Some(2), 0),
    ] {
        let actor = w.actor(name).await.unwrap();
        assert_eq!(actor.status(), phase, "{name}");
        assert_eq!(actor.latest_snapshot_info.map(|s| s.generation), generation, "{name}");
        let view = w.get("Actor", name).await.unwrap();
        assert_eq!(view["status"]["lostActivations"], lost, "{name}: {view}");
    }
    for name in ["never", "running", "resuming", "suspending"] {
        let before = w.actor(name).await.unwrap().activation;
        let resumed = w.resume(name).await.unwrap();
        assert_eq!(resumed.status(), Phase::Running, "{name}");
        assert!(resumed.activation > before, "numbers only grow");
        w.suspend(name).await.unwrap();
    }
    w.all_workers_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_back_under_its_name_keeps_its_new_actor_when_an_earlier_start_there_fails() {
    let w = World::ready(Options { activate_timeout: Duration::from_secs(2), ..options() }, 2).await;
    for name in ["a", "b", "c"] {
        w.create(name).await.unwrap();
    }
    w.resume("c").await.unwrap();
    w.node.fault("activate", Fault::Hang);
    let late = async {
        let started = w.resume("a").await.unwrap();
        assert_eq!((started.status(), started.activation), (Phase::Running, 2));
    };
    let meanwhile = async {
        eventually("its start hangs", async || w.node.seated().len() == 2).await;
        let worker = WorkerId(w.actor("a").await.unwrap().ateom_pod_name);
        w.node.restart(&worker);
        assert_eq!(w.resume("b").await.unwrap().ateom_pod_name, worker.0);
        w.suspend("c").await.unwrap();
    };
    tokio::join!(late, meanwhile);
    let phases = w.list("Worker").await.iter().map(|o| o["status"]["phase"].clone()).collect::<Vec<_>>();
    assert_eq!(phases, ["Running", "Running"]);
    let b = w.actor("b").await.unwrap();
    assert_eq!((b.status(), b.activation), (Phase::Running, 1));
    assert_eq!(w.suspend("b").await.unwrap().latest_snapshot_info.unwrap().generation, 1);
}
