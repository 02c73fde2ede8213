//! Rollout: golden snapshots first, then actors as the policy says; it can be paused, undone, and survives a crash.

mod support;

use std::time::Duration;

use ate_api::{
    Error, Reason,
    v1::{
        Rollout, RolloutRef, StartRolloutRequest,
        rollout::{Phase, Policy, template::State},
        rollouts_client::RolloutsClient,
    },
};
use ate_control::Options;
use serde_json::{Value, json};
use support::{
    node::Fault,
    world::{Face, World, eventually, options, sandbox_config, template},
};

const NEW: &str = "gvisor-default@2";
const OLD: &str = "gvisor-default@1";

fn client(w: &World) -> RolloutsClient<Face> {
    RolloutsClient::new(w.face.clone())
}

fn of() -> RolloutRef {
    RolloutRef { sandbox_class: "gvisor".into() }
}

async fn start_to(w: &World, config: &str, policy: Policy, max_unavailable: &str) -> Result<Rollout, Error> {
    let request = StartRolloutRequest {
        sandbox_class: "gvisor".into(),
        config: config.into(),
        policy: policy.into(),
        max_unavailable: max_unavailable.into(),
    };
    client(w).start_rollout(request).await.map(tonic::Response::into_inner).map_err(|s| Error::from(&s))
}

async fn start(w: &World, policy: Policy) -> Rollout {
    start_to(w, "gvisor-default", policy, "2").await.unwrap()
}

async fn status(w: &World) -> Rollout {
    client(w).get_rollout(of()).await.unwrap().into_inner()
}

async fn comes_to(w: &World, phase: Phase) -> Rollout {
    eventually(&format!("the rollout comes to {phase:?}"), async || status(w).await.phase() == phase).await;
    status(w).await
}

async fn undo(w: &World) -> Result<Rollout, Error> {
    client(w).undo_rollout(of()).await.map(tonic::Response::into_inner).map_err(|s| Error::from(&s))
}

/// The class's default configuration gets another binary: revision 2.
async fn new_revision(w: &World) {
    w.apply(sandbox_config("gvisor-default", 'b', true)).await.unwrap();
    config_ready(w, "gvisor-default", 2).await;
}

async fn config_ready(w: &World, name: &str, revision: u64) {
    eventually("the new binaries are tried", async || {
        let status = w.get("SandboxConfig", name).await.unwrap()["status"].clone();
        let ready =
            status["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        status["revision"] == revision && ready
    })
    .await;
}

/// Files only, when it is suspended.
fn data(name: &str) -> Value {
    let mut object = durable(name);
    object["spec"]["snapshotsConfig"] = json!({"location": "default", "onPause": "Data", "onCommit": "Data"});
    object
}

/// Memory, and a durable directory.
fn durable(name: &str) -> Value {
    let mut object = template(name);
    object["spec"]["volumes"] = json!([{"name": "data", "durableDir": {}}]);
    object["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    object
}

async fn suspended(w: &World, name: &str, template: &str) {
    w.create_from("default", name, template).await.unwrap();
    w.resume(name).await.unwrap();
    w.suspend(name).await.unwrap();
}

/// Template `counter` and one like it with `change`, each with an actor at rest, and a new revision.
async fn patched(options: Options, other: Value) -> World {
    let w = World::ready(options, 3).await;
    w.apply(other).await.unwrap();
    w.template_ready("other").await;
    suspended(&w, "full", "counter").await;
    suspended(&w, "other", "other").await;
    new_revision(&w).await;
    w
}

/// How the node was last asked to start the actor: `SOURCE CONFIG@REVISION`.
fn last_start(w: &World, actor: &str) -> String {
    let wanted = format!(" default/{actor} ");
    let calls = w.node.with(|s| s.calls.clone());
    let call = calls.iter().rfind(|c| c.starts_with("activate") && c.contains(&wanted));
    call.unwrap().split(' ').skip(4).collect::<Vec<_>>().join(" ")
}

fn starts(w: &World, actor: &str) -> usize {
    let wanted = format!(" default/{actor} ");
    w.node.with(|s| s.calls.iter().filter(|c| c.starts_with("activate") && c.contains(&wanted)).count())
}

async fn golden_of(w: &World, template: &str) -> Value {
    w.get("ActorTemplate", template).await.unwrap()["status"].clone()
}

async fn manifest_of(w: &World, actor: &str) -> String {
    w.get("Actor", actor).await.unwrap()["status"]["snapshot"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goldens_are_restored_once_and_then_files_move_at_the_next_resume_and_memory_stays() {
    let w = patched(options(), data("other")).await;
    let before = golden_of(&w, "counter").await["goldenManifest"].clone();
    let files = manifest_of(&w, "other").await;
    start(&w, Policy::NextResume).await;
    let moving = comes_to(&w, Phase::Moving).await;
    assert!(moving.templates.iter().all(|t| t.state() == State::Passed && t.from == OLD), "{moving:?}");
    assert_eq!((moving.templates.len(), moving.total, moving.moved, moving.at_rest), (2, 2, 0, 2));
    // Each was booted under the new revision, and restored from what that made.
    for template in ["counter", "other"] {
        let golden = golden_of(&w, template).await;
        assert_eq!(golden["sandboxConfig"], NEW);
        let actor = golden["goldenActorID"].as_str().unwrap();
        let starts: Vec<String> = w.node.with(|s| {
            let calls = s.calls.iter().filter(|c| c.starts_with("activate") && c.contains(actor));
            calls.map(|c| c.split(' ').skip(4).collect::<Vec<_>>().join(" ")).collect()
        });
        let restored = format!("{} {NEW}", golden["goldenManifest"].as_str().unwrap());
        assert_eq!(starts, [format!("boot {NEW}"), restored]);
    }
    assert_ne!(golden_of(&w, "counter").await["goldenManifest"], before);

    w.create("new").await.unwrap();
    w.resume("new").await.unwrap();
    assert!(last_start(&w, "new").ends_with(NEW), "new actors begin with it");
    w.remove("new").await.unwrap();
    let told = w.explain("Actor", "other").await.unwrap().config.unwrap();
    assert!(told.name == NEW && told.why.contains("rollout"), "{told:?}");
    w.resume("other").await.unwrap();
    assert_eq!(last_start(&w, "other"), format!("{files} {NEW}"), "the same files, the new binaries");
    w.resume("full").await.unwrap();
    assert!(last_start(&w, "full").ends_with(OLD), "memory is restored under nothing else");
    w.suspend("full").await.unwrap();
    assert_eq!(status(&w).await.moved, 1);
    w.resume_in("default", "full", true).await.unwrap();
    assert!(last_start(&w, "full").ends_with(NEW));
    let done = comes_to(&w, Phase::Done).await;
    assert_eq!((done.moved, done.total, done.running, done.at_rest), (2, 2, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_golden_snapshot_that_cannot_be_restored_stops_it_and_nothing_is_moved() {
    let w = patched(options(), data("other")).await;
    let before = golden_of(&w, "counter").await["goldenManifest"].clone();
    // Boots, and does not come up again: on none of the workers it is tried on.
    w.node.with(|s| s.calls.clear());
    w.node.with(|s| s.refuse_restore_under = Some(NEW.to_owned()));
    start(&w, Policy::Reboot).await;
    let failed = comes_to(&w, Phase::Failed).await;
    let why = failed.stopped.unwrap();
    assert_eq!((why.reason.as_str(), why.object.as_str()), ("SANDBOX_FAILED", "actortemplate/default/counter"));
    assert!(why.message.contains("could not be restored under gvisor-default@2"), "{}", why.message);
    assert_eq!(failed.templates[0].state(), State::Failed);
    assert_eq!(golden_of(&w, "counter").await["goldenManifest"], before);
    assert_eq!((starts(&w, "full"), starts(&w, "other")), (0, 0));
    w.resume("other").await.unwrap();
    assert!(last_start(&w, "other").ends_with(OLD), "nothing moves by itself either");
    w.resume("full").await.unwrap();

    // Mended, it can be started anew, and makes the golden snapshot anew where the old one is gone.
    w.node.with(|s| s.refuse_restore_under = None);
    w.suspend("full").await.unwrap();
    start(&w, Policy::NextResume).await;
    comes_to(&w, Phase::Moving).await;
    assert_eq!(golden_of(&w, "counter").await["sandboxConfig"], NEW);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_reboot_those_at_rest_are_booted_with_their_files_and_never_one_that_runs() {
    let w = patched(options(), durable("other")).await;
    suspended(&w, "busy", "other").await;
    w.resume("busy").await.unwrap();
    let (files, before) = (manifest_of(&w, "other").await, starts(&w, "busy"));
    start(&w, Policy::Reboot).await;
    let told = w.explain("Actor", "busy").await.unwrap().changes;
    assert!(told.iter().any(|c| c.then.contains(NEW) && c.command.contains("rollout status")), "{told:?}");
    eventually("those at rest have moved", async || status(&w).await.at_rest == 0).await;
    // Nobody is at rest from the moment the last one is on its way.
    let (kept, nothing_to_keep) = (format!("files:{files} {NEW}"), format!("boot {NEW}"));
    eventually("with its files", async || last_start(&w, "other") == kept).await;
    eventually("from its images", async || last_start(&w, "full") == nothing_to_keep).await;
    eventually("both are at rest again", async || status(&w).await.moved == 2).await;
    let moving = status(&w).await;
    assert_eq!((moving.phase(), moving.moved, moving.running, starts(&w, "busy")), (Phase::Moving, 2, 1, before));
    // At rest again, with memory: the next resume is a restore.
    let memory = manifest_of(&w, "other").await;
    w.resume("other").await.unwrap();
    assert_eq!(last_start(&w, "other"), format!("{memory} {NEW}"));
    w.suspend("busy").await.unwrap();
    let done = comes_to(&w, Phase::Done).await;
    assert_eq!((done.moved, done.total), (3, 3));
    assert!(last_start(&w, "busy").ends_with(NEW));
    assert_eq!(w.node.with(|s| s.doubles), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_inside_the_memory_are_saved_from_it_before_it_is_given_up() {
    let w = patched(options(), durable("other")).await;
    w.node.with(|s| s.files_in_memory = true);
    let memory = manifest_of(&w, "other").await;
    start(&w, Policy::Reboot).await;
    comes_to(&w, Phase::Done).await;
    let calls = w.node.with(|s| s.calls.clone());
    let of_actor = calls.iter().filter(|c| c.contains(" default/other "));
    let last: Vec<&String> = of_actor.rev().take(4).collect();
    assert!(last[3].contains(&memory) && last[3].ends_with(OLD), "restored once more: {last:#?}");
    assert!(last[2].starts_with("capture") && last[2].contains(" Data "), "{last:#?}");
    assert!(last[1].starts_with("activate") && last[1].ends_with(NEW), "{last:#?}");
    assert!(last[0].starts_with("capture") && last[0].contains(" Full "), "{last:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_are_on_the_way_at_once_than_it_may_be() {
    let w = World::ready(options(), 6).await;
    for i in 0..8 {
        suspended(&w, &format!("a{i}"), "counter").await;
    }
    new_revision(&w).await;
    w.node.with(|s| s.calls.clear());
    // A quarter of eight.
    start_to(&w, "gvisor-default", Policy::Reboot, "25%").await.unwrap();
    comes_to(&w, Phase::Done).await;
    let calls = w.node.with(|s| s.calls.clone());
    let (mut on_the_way, mut most) = (0_i32, 0);
    let moves = calls.iter().skip_while(|c| !c.contains(" default/a"));
    for call in moves {
        on_the_way += i32::from(call.starts_with("activate")) - i32::from(call.starts_with("release"));
        most = most.max(on_the_way);
    }
    assert!((1..=2).contains(&most), "{most} at once: {calls:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_actors_stay_and_new_ones_begin_under_the_new_revision() {
    let w = patched(options(), data("other")).await;
    start(&w, Policy::Keep).await;
    let done = comes_to(&w, Phase::Done).await;
    assert_eq!((done.moved, done.at_rest), (0, 2));
    w.resume("other").await.unwrap();
    assert!(last_start(&w, "other").ends_with(OLD));
    w.create("new").await.unwrap();
    w.resume("new").await.unwrap();
    assert!(last_start(&w, "new").ends_with(NEW));
    assert_eq!(undo(&w).await.unwrap_err().reason, Reason::WrongState);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_one_moves_nobody_until_it_goes_on() {
    let w = patched(options(), data("other")).await;
    w.node.fault("activate", Fault::Slow(Duration::from_millis(200)));
    start(&w, Policy::NextResume).await;
    let paused = client(&w).pause_rollout(of()).await.unwrap().into_inner();
    assert_eq!(paused.phase(), Phase::Paused);
    w.resume("other").await.unwrap();
    assert!(last_start(&w, "other").ends_with(OLD));
    w.suspend("other").await.unwrap();
    client(&w).resume_rollout(of()).await.unwrap();
    comes_to(&w, Phase::Moving).await;
    client(&w).pause_rollout(of()).await.unwrap();
    w.resume("other").await.unwrap();
    assert!(last_start(&w, "other").ends_with(OLD), "also when everything is ready to move");
    w.suspend("other").await.unwrap();
    client(&w).resume_rollout(of()).await.unwrap();
    comes_to(&w, Phase::Moving).await;
    w.resume("other").await.unwrap();
    assert!(last_start(&w, "other").ends_with(NEW));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undone_it_leaves_what_was_moved_and_everybody_else_is_as_before() {
    let w = patched(options(), data("other")).await;
    suspended(&w, "second", "other").await;
    let before = golden_of(&w, "counter").await["goldenManifest"].clone();
    start(&w, Policy::NextResume).await;
    comes_to(&w, Phase::Moving).await;
    w.resume("other").await.unwrap();
    w.suspend("other").await.unwrap();
    let undone = undo(&w).await.unwrap();
    assert_eq!((undone.phase(), undone.moved, undone.at_rest), (Phase::Undone, 1, 2));
    assert_eq!(golden_of(&w, "counter").await["goldenManifest"], before, "the former golden snapshot");
    w.create("new").await.unwrap();
    w.resume("new").await.unwrap();
    assert_eq!(last_start(&w, "new"), format!("{} {OLD}", before.as_str().unwrap()));
    w.remove("new").await.unwrap();
    w.resume("second").await.unwrap();
    assert!(last_start(&w, "second").ends_with(OLD));
    w.remove("second").await.unwrap();
    w.resume("other").await.unwrap();
    assert!(last_start(&w, "other").ends_with(NEW), "it had moved");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_snapshots_nobody_needs_are_collected_and_those_that_differences_rest_on_stay() {
    let options = Options { resume_timeout: Duration::from_secs(1), ..options() };
    let w = World::ready_with(options, 3, |s| {
        s.differences = true;
        s.capabilities.push("snapshot.base".into());
    })
    .await;
    let former = golden_of(&w, "counter").await["goldenManifest"].as_str().unwrap().to_owned();
    suspended(&w, "difference", "counter").await;
    new_revision(&w).await;
    start(&w, Policy::Keep).await;
    comes_to(&w, Phase::Done).await;
    let removed = |w: &World| w.node.with(|s| s.deleted.iter().any(|d| d.as_str() == former));
    eventually("the former one is no golden snapshot any more", async || {
        let snapshots = w.list("Snapshot").await;
        !snapshots.iter().any(|s| s["metadata"]["name"] == former.as_str())
    })
    .await;
    w.resume("difference").await.unwrap();
    assert!(last_start(&w, "difference").ends_with(OLD));
    assert!(!removed(&w), "an actor's snapshot rests on it");
    w.remove("difference").await.unwrap();
    // Entries of the deletion queue that had to wait are looked at again after a start, or half a minute.
    let w = w.restart().await;
    eventually("its bytes are gone", async || removed(&w)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_after_a_crash_in_the_middle_of_everything() {
    let w = patched(options(), durable("other")).await;
    w.node.fault("capture", Fault::Hang);
    start(&w, Policy::Reboot).await;
    eventually("the golden actor is being captured", async || w.node.count("capture ate-golden/") > 2).await;
    let w = w.restart().await;
    eventually("it is being tested, or further", async || status(&w).await.phase() != Phase::Building).await;
    let w = w.restart().await;
    let done = comes_to(&w, Phase::Done).await;
    assert_eq!((done.moved, done.total, done.templates.len()), (2, 2, 2));
    for actor in ["full", "other"] {
        w.resume(actor).await.unwrap();
        assert!(last_start(&w, actor).ends_with(NEW));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_cannot_be_moved_stays_as_it_was_and_the_rollout_says_so() {
    let w = patched(options(), data("other")).await;
    w.remove("other").await.unwrap();
    start(&w, Policy::NextResume).await;
    comes_to(&w, Phase::Moving).await;
    undo(&w).await.unwrap();
    w.node.with(|s| s.refuse_boot_of = Some("default/full".to_owned()));
    start(&w, Policy::Reboot).await;
    let paused = comes_to(&w, Phase::Paused).await;
    let why = paused.stopped.unwrap();
    assert!(why.object == "actor/default/full" && why.reason == "SANDBOX_FAILED", "{why:?}");
    assert!(why.hint.contains("rollout resume") && why.hint.contains("rollout undo"), "{}", why.hint);
    w.node.with(|s| s.refuse_boot_of = None);
    client(&w).resume_rollout(of()).await.unwrap();
    let done = comes_to(&w, Phase::Done).await;
    assert!(done.stopped.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_with_a_reason() {
    let w = patched(options(), data("other")).await;
    let reason = async |config: &str, max: &str| start_to(&w, config, Policy::Reboot, max).await.unwrap_err().reason;
    assert_eq!(reason("nosuch", "").await, Reason::NotFound);
    assert_eq!(reason("gvisor-default", "0%").await, Reason::Invalid);
    assert_eq!(reason("Not A Name", "").await, Reason::Invalid);
    assert_eq!(client(&w).get_rollout(of()).await.map_err(|s| Error::from(&s)).unwrap_err().reason, Reason::NotFound);
    let mut other = sandbox_config("of-other", 'c', false);
    other["spec"]["sandboxClass"] = "other".into();
    w.apply(other).await.unwrap();
    assert_eq!(reason("of-other", "").await, Reason::ClassMismatch);
    w.node.fault("probe", Fault::Fail(Reason::SandboxFailed));
    w.apply(sandbox_config("broken", 'd', false)).await.unwrap();
    assert_eq!(reason("broken", "").await, Reason::WrongState);

    start(&w, Policy::NextResume).await;
    let e = start_to(&w, "gvisor-default", Policy::Keep, "").await.unwrap_err();
    assert_eq!(e.reason, Reason::RolloutUnderWay, "{e}");
    assert!(e.message.contains(NEW) && e.hint.contains("rollout undo"), "{e:?}");
    let e = w.delete("SandboxConfig", "gvisor-default").await.unwrap_err();
    assert_eq!(e.reason, Reason::InUse);
    assert!(e.message.contains("rollout/gvisor"), "{e}");
    comes_to(&w, Phase::Moving).await;
    undo(&w).await.unwrap();
    let paused = client(&w).pause_rollout(of()).await.map_err(|s| Error::from(&s));
    assert_eq!(paused.unwrap_err().reason, Reason::WrongState);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_leads_to_a_configuration_no_pool_names_too_and_back_again() {
    let w = World::ready(options(), 3).await;
    w.apply(data("files")).await.unwrap();
    w.template_ready("files").await;
    suspended(&w, "a", "files").await;
    w.apply(sandbox_config("next", 'b', false)).await.unwrap();
    config_ready(&w, "next", 1).await;
    start_to(&w, "next", Policy::NextResume, "").await.unwrap();
    comes_to(&w, Phase::Moving).await;
    w.resume("a").await.unwrap();
    assert!(last_start(&w, "a").ends_with("next@1"));
    w.suspend("a").await.unwrap();
    comes_to(&w, Phase::Done).await;
    w.resume_in("default", "a", true).await.unwrap();
    assert!(last_start(&w, "a").ends_with("next@1"), "a boot does not lead back to what was replaced");
    w.suspend("a").await.unwrap();
    start_to(&w, "gvisor-default", Policy::NextResume, "").await.unwrap();
    comes_to(&w, Phase::Moving).await;
    w.resume("a").await.unwrap();
    assert!(last_start(&w, "a").ends_with(OLD));
    comes_to(&w, Phase::Done).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_may_change_configurations_may_roll_them_out() {
    let w = patched(options(), data("other")).await;
    let author = w.acting(&w.token("author", "template-author", &["default"]).await.unwrap());
    let denied = start_to(&author, "gvisor-default", Policy::Reboot, "").await.unwrap_err();
    assert_eq!(denied.reason, Reason::PermissionDenied);
    let looks = client(&author).list_rollouts(()).await.map_err(|s| Error::from(&s));
    assert_eq!(looks.unwrap_err().reason, Reason::PermissionDenied, "it names templates of others");
    let admin = w.acting(&w.token("admin", "sandbox-admin", &[]).await.unwrap());
    start(&admin, Policy::NextResume).await;
    comes_to(&admin, Phase::Moving).await;
    assert_eq!(undo(&author).await.unwrap_err().reason, Reason::PermissionDenied);
    undo(&admin).await.unwrap();
}
