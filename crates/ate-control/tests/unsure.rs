//! Answers that were lost: of the store, which may have written, and of the node, which may have told. Nobody takes the
//! worst or the best for granted.

mod support;

use std::time::{Duration, Instant};

use ate_api::{
    Error, Reason,
    ateapi::actor::Status as Phase,
    id::{Digest, WorkerId},
    v1::{self, revocations_client::RevocationsClient},
};
use support::{
    node::{Fault, Script},
    store::Trouble,
    world::{PATIENCE, World, atespace, eventually, name, options, pool, sandbox_config, template},
};

const ACTOR: &str = "actor/default/a";
/// Only a flip writes one.
const FLIP: &str = "snapshot/";

async fn generation(w: &World) -> Option<u64> {
    w.actor("a").await.unwrap().latest_snapshot_info.map(|s| s.generation)
}

async fn current(w: &World) -> Digest {
    let info = w.actor("a").await.unwrap().latest_snapshot_info.unwrap();
    Digest::parse(&info.manifest_digest).unwrap()
}

async fn lost(w: &World) -> serde_json::Value {
    w.get("Actor", "a").await.unwrap()["status"]["lostActivations"].clone()
}

fn is_kept(node: &Script, manifest: &Digest) -> bool {
    node.with(|s| s.snapshots.contains(manifest))
}

/// Actor `a` runs, and has one snapshot.
async fn running() -> World {
    let w = World::ready(options(), 2).await;
    w.create("a").await.unwrap();
    w.resume("a").await.unwrap();
    w.suspend("a").await.unwrap();
    let claimed = w.resume("a").await.unwrap().version;
    eventually("that it runs is written", async || w.actor("a").await.unwrap().version > claimed).await;
    w
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_may_be_committed_is_not_deleted() {
    let w = running().await;
    let before = current(&w).await;
    w.troubles.add(Trouble::Unheard(FLIP));
    // It is looked for twice.
    w.troubles.add(Trouble::Unreadable(ACTOR));
    w.troubles.add(Trouble::Unreadable(ACTOR));
    assert!(w.suspend("a").await.is_err());
    w.phase_becomes("a", Phase::Suspended).await;
    assert!(w.troubles.are_over());
    assert_eq!(generation(&w).await, Some(2), "it was committed");
    let committed = current(&w).await;
    let w = w.restart().await;
    eventually("the one before it is deleted", async || !is_kept(&w.node, &before)).await;
    assert!(is_kept(&w.node, &committed));
    assert_eq!(w.resume("a").await.unwrap().status(), Phase::Running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_was_not_committed_is_deleted_though_nobody_knew_at_once() {
    let w = running().await;
    let kept = current(&w).await;
    for _ in 0..4 {
        w.troubles.add(Trouble::Lost(ACTOR));
    }
    w.troubles.add(Trouble::Unreadable(ACTOR));
    let e = w.suspend("a").await.unwrap_err();
    assert_eq!(e.reason, Reason::Unavailable, "{e}");
    w.phase_becomes("a", Phase::Suspended).await;
    let golden = 1;
    eventually("what nobody needs is gone", async || w.node.with(|s| s.snapshots.len()) == golden + 1).await;
    assert_eq!((current(&w).await, lost(&w).await), (kept.clone(), 1.into()));
    assert!(is_kept(&w.node, &kept));
    assert_eq!(w.node.count("thaw"), 0, "what may still be committed is not given up");
    w.all_workers_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_whose_snapshot_is_refused_by_the_store_runs_on() {
    let w = running().await;
    for _ in 0..3 {
        w.troubles.add(Trouble::Lost(FLIP));
    }
    assert_eq!(w.suspend("a").await.unwrap_err().reason, Reason::Unavailable);
    let actor = w.actor("a").await.unwrap();
    assert_eq!((actor.status(), actor.activation), (Phase::Running, 2));
    assert_eq!(w.node.count("thaw"), 1);
    assert_eq!(w.suspend("a").await.unwrap().latest_snapshot_info.unwrap().generation, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_commit_made_garbage_is_deleted_though_its_answer_was_lost() {
    let w = running().await;
    let before = current(&w).await;
    w.troubles.add(Trouble::Unheard(FLIP));
    assert_eq!(w.suspend("a").await.unwrap().latest_snapshot_info.unwrap().generation, 2);
    eventually("the one before it is deleted", async || !is_kept(&w.node, &before)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_runs_on_when_the_store_does_not_take_note_that_it_runs() {
    let w = World::ready(options(), 1).await;
    w.create("a").await.unwrap();
    w.troubles.add(Trouble::LostAlone(ACTOR));
    assert_eq!(w.resume("a").await.unwrap().status(), Phase::Running);
    eventually("the write has failed", async || w.troubles.are_over()).await;
    let suspended = w.suspend("a").await.unwrap();
    assert_eq!((suspended.activation, suspended.latest_snapshot_info.unwrap().generation), (1, 1));
    assert_eq!(lost(&w).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activation_that_is_lost_while_the_store_knows_only_of_its_claim_counts_as_lost() {
    let w = World::ready(options(), 1).await;
    w.create("a").await.unwrap();
    // The write that fails, and the one by which it is put in order.
    w.troubles.add(Trouble::LostAlone(ACTOR));
    w.troubles.add(Trouble::LostAlone(ACTOR));
    let running = w.resume("a").await.unwrap();
    eventually("the writes have failed", async || w.troubles.are_over()).await;
    w.node.lose(&WorkerId(running.ateom_pod_name));
    w.phase_becomes("a", Phase::Suspended).await;
    assert_eq!(lost(&w).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_is_gone_holds_no_worker_though_nobody_heard_that_it_is_gone() {
    let w = running().await;
    w.troubles.add(Trouble::Unheard(ACTOR));
    assert_eq!(w.remove("a").await.unwrap_err().reason, Reason::Unavailable);
    w.all_workers_free().await;
    assert_eq!(w.actor("a").await.unwrap_err().reason, Reason::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_reach_the_new_actor_of_a_name_though_nobody_heard_that_the_old_one_is_gone() {
    let w = running().await;
    w.troubles.add(Trouble::Unheard(ACTOR));
    // So that what is left of it is found a moment later.
    w.troubles.add(Trouble::Unreadable(ACTOR));
    assert_eq!(w.remove("a").await.unwrap_err().reason, Reason::Unavailable);
    eventually("it was looked for once", async || w.troubles.are_over()).await;
    let new = w.create("a").await.unwrap();
    let reached = w.control.resume(&name("a"), false, Instant::now() + PATIENCE).await.unwrap();
    assert_eq!((reached.uid.to_string(), reached.activation.0), (new.uid, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_made_while_an_earlier_one_of_its_name_is_going_is_deleted_when_asked() {
    let w = running().await;
    w.node.fault("release", Fault::Slow(Duration::from_millis(200)));
    let again = async {
        eventually("it is gone", async || w.actor("a").await.is_err()).await;
        w.create("a").await.unwrap();
        w.remove("a").await.unwrap();
    };
    let (first, ()) = tokio::join!(w.remove("a"), again);
    first.unwrap();
    assert_eq!(w.actor("a").await.unwrap_err().reason, Reason::NotFound);
    w.all_workers_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_whose_deletion_was_cut_short_starts_actors_again() {
    let w = World::ready(options(), 1).await;
    let status = w.get("ActorTemplate", "counter").await.unwrap()["status"].clone();
    let golden = Digest::parse(status["goldenManifest"].as_str().unwrap()).unwrap();
    w.troubles.add(Trouble::Unheard("actor/ate-golden/"));
    assert_eq!(w.delete("ActorTemplate", "counter").await.unwrap_err().reason, Reason::Unavailable);
    eventually("its golden snapshot is deleted", async || !is_kept(&w.node, &golden)).await;
    w.create("a").await.unwrap();
    eventually("an actor of it starts", async || w.resume("a").await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_unheard_of_can_be_made_anew() {
    let w = World::empty(options()).await;
    let config = sandbox_config("spare", 'a', false);
    w.apply(config.clone()).await.unwrap();
    eventually("it is tried", async || {
        let status = &w.get("SandboxConfig", "spare").await.unwrap()["status"];
        status["conditions"].to_string().contains("\"True\"")
    })
    .await;
    w.troubles.add(Trouble::Unheard("config/"));
    assert_eq!(w.delete("SandboxConfig", "spare").await.unwrap_err().reason, Reason::Unavailable);
    assert_eq!(w.delete("SandboxConfig", "spare").await.unwrap_err().reason, Reason::NotFound);
    w.apply(config).await.unwrap();
    assert_eq!(w.get("SandboxConfig", "spare").await.unwrap()["status"]["revision"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_went_while_nobody_listened_is_missed() {
    let w = running().await;
    let worker = w.actor("a").await.unwrap().ateom_pod_name;
    w.node.lose_unheard(&WorkerId(worker.clone()));
    w.phase_becomes("a", Phase::Suspended).await;
    assert!(w.list("Worker").await.iter().all(|o| o["metadata"]["name"] != worker.as_str()));
    assert_eq!(lost(&w).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_golden_actor_that_could_not_be_captured_is_made_anew() {
    let w = World::empty(options()).await;
    w.node.fault("capture", Fault::Fail(Reason::DiskFull));
    for object in [sandbox_config("gvisor-default", 'a', true), pool("pool", 1), atespace("default")] {
        w.apply(object).await.unwrap();
    }
    w.apply(template("counter")).await.unwrap();
    w.template_ready("counter").await;
    w.all_workers_free().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_works_though_nobody_heard_that_it_was_stored() {
    let w = World::empty(options()).await;
    w.troubles.add(Trouble::Unheard("config/"));
    let config = sandbox_config("gvisor-default", 'a', true);
    assert_eq!(w.apply(config.clone()).await.unwrap_err().reason, Reason::Unavailable);
    for object in [config, pool("pool", 1), atespace("default"), template("counter")] {
        w.apply(object).await.unwrap();
    }
    w.template_ready("counter").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_failed_and_is_not_used_any_more_keeps_nobody_busy() {
    let w = World::empty(options()).await;
    w.node.fault("probe", Fault::Fail(Reason::AssetUnavailable));
    w.apply(sandbox_config("gvisor-default", 'a', true)).await.unwrap();
    eventually("the first is tried", async || w.node.count("probe gvisor-default@1") == 1).await;
    w.apply(sandbox_config("gvisor-default", 'b', true)).await.unwrap();
    eventually("the second is tried", async || w.node.count("probe gvisor-default@2") == 1).await;
    // The first would have been tried again a second after it failed.
    let before = w.troubles.lists();
    let busy = eventually("the store is asked all the time", async || w.troubles.lists() > before + 100);
    assert!(tokio::time::timeout(Duration::from_secs(2), busy).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_works_though_nobody_heard_that_its_probe_was_recorded() {
    let w = World::empty(options()).await;
    w.troubles.add(Trouble::UnheardAlone("config-revision/"));
    for object in
        [sandbox_config("gvisor-default", 'a', true), pool("pool", 1), atespace("default"), template("counter")]
    {
        w.apply(object).await.unwrap();
    }
    w.template_ready("counter").await;
    assert!(w.troubles.are_over());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_nobody_heard_of_can_be_taken_back_and_its_template_comes_to_be_ready() {
    let w = World::ready(options(), 1).await;
    let mut api = RevocationsClient::new(w.face.clone());
    let digest = "a".repeat(64);
    let revoke = v1::RevokeRequest { digest: digest.clone(), reason: "a drill".into(), stop: false };
    w.troubles.add(Trouble::Unheard("revocations"));
    assert_eq!(Error::from(&api.revoke(revoke.clone()).await.unwrap_err()).reason, Reason::Unavailable);
    api.unrevoke(v1::UnrevokeRequest { digest: digest.clone() }).await.unwrap();
    let e = Error::from(&api.unrevoke(v1::UnrevokeRequest { digest: digest.clone() }).await.unwrap_err());
    assert_eq!(e.reason, Reason::NotFound);

    api.revoke(revoke).await.unwrap();
    w.apply(template("later")).await.unwrap();
    eventually("the template says why", async || {
        w.get("ActorTemplate", "later").await.unwrap()["status"]["conditions"].to_string().contains("revoked")
    })
    .await;
    api.unrevoke(v1::UnrevokeRequest { digest }).await.unwrap();
    w.template_ready("later").await;
}
