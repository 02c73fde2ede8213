//! What runs where: counts and names of whoever needs a revision, after all that may happen to an actor.

mod support;

use std::collections::BTreeMap;

use ate_api::{
    Error, Reason,
    v1::{GetUsageRequest, GetUsageResponse, User, usage_client::UsageClient, user::Kind},
};
use support::{
    node::Fault,
    world::{World, eventually, options, sandbox_config, template},
};

async fn usage(w: &World, request: GetUsageRequest) -> Result<GetUsageResponse, Error> {
    let answer = UsageClient::new(w.face.clone()).get_usage(request).await;
    answer.map(tonic::Response::into_inner).map_err(|s| Error::from(&s))
}

async fn of_config(w: &World, config: &str) -> GetUsageResponse {
    usage(w, GetUsageRequest { config: config.into(), ..Default::default() }).await.unwrap()
}

/// (running, suspended, goldens, snapshots) by revision.
async fn counts(w: &World) -> BTreeMap<String, (u64, u64, u64, u64)> {
    let all = usage(w, GetUsageRequest::default()).await.unwrap().revisions.into_iter();
    all.map(|r| (format!("{}@{}", r.config, r.revision), (r.running, r.suspended, r.goldens, r.snapshots))).collect()
}

fn names(users: &[User], kind: Kind) -> Vec<&str> {
    users.iter().filter(|u| u.kind() == kind).map(|u| u.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_and_names_follow_an_actor_through_its_life() {
    let w = World::ready(options(), 2).await;
    let now = async || counts(&w).await["gvisor-default@1"];
    eventually("the golden actor has left its worker", async || now().await == (0, 0, 1, 1)).await;
    w.create("a").await.unwrap();
    assert_eq!(now().await, (0, 0, 1, 1), "without a snapshot of its own it needs what its template needs");
    w.resume("a").await.unwrap();
    assert_eq!(now().await, (1, 0, 1, 1));
    w.suspend("a").await.unwrap();
    assert_eq!(now().await, (0, 1, 1, 2));
    w.resume("a").await.unwrap();
    assert_eq!(now().await, (1, 0, 1, 2), "who runs is not at rest");
    w.pause("a").await.unwrap();
    assert_eq!(now().await, (0, 1, 1, 3), "the one in object storage is kept beside the one on the node");
    w.resume("a").await.unwrap();
    w.suspend("a").await.unwrap();
    assert_eq!(now().await, (0, 1, 1, 2));
    let users = of_config(&w, "gvisor-default").await.users;
    assert_eq!(names(&users, Kind::Golden), ["default/counter"]);
    assert_eq!(names(&users, Kind::SuspendedActor), ["default/a"]);
    assert_eq!(names(&users, Kind::Snapshot).len(), 2);
    w.remove("a").await.unwrap();
    assert_eq!(now().await, (0, 0, 1, 1));
    w.delete("ActorTemplate", "counter").await.unwrap();
    assert_eq!(now().await, (0, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_revision_counts_for_itself_and_a_digest_is_all_revisions_that_name_it() {
    let w = World::ready(options(), 2).await;
    w.create("old").await.unwrap();
    w.resume("old").await.unwrap();
    w.suspend("old").await.unwrap();
    w.apply(sandbox_config("gvisor-default", 'b', true)).await.unwrap();
    w.pool_runs("gvisor-default@2").await;
    w.apply(template("later")).await.unwrap();
    w.template_ready("later").await;
    w.create_from("default", "new", "later").await.unwrap();
    w.resume("new").await.unwrap();
    eventually("the golden actor has left its worker", async || {
        let counts = counts(&w).await;
        (counts["gvisor-default@1"], counts["gvisor-default@2"]) == ((0, 1, 1, 2), (1, 0, 1, 1))
    })
    .await;
    // Booted anew it is another revision's.
    w.resume_in("default", "old", true).await.unwrap();
    w.suspend("old").await.unwrap();
    let after = counts(&w).await;
    assert_eq!((after["gvisor-default@1"], after["gvisor-default@2"]), ((0, 0, 1, 1), (1, 1, 1, 2)));
    let by_digest = usage(&w, GetUsageRequest { digest: "a".repeat(64), ..Default::default() }).await.unwrap();
    assert_eq!(by_digest.revisions.len(), 1);
    assert_eq!((by_digest.revisions[0].revision, by_digest.revisions[0].current), (1, false));
    assert_eq!(by_digest.revisions[0].assets["runsc"], "a".repeat(64));
    let one = of_config(&w, "gvisor-default@2").await;
    assert_eq!((one.revisions.len(), names(&one.users, Kind::RunningActor)), (1, vec!["default/new"]));
    let unknown = usage(&w, GetUsageRequest { digest: "c".repeat(64), ..Default::default() }).await.unwrap();
    assert_eq!((unknown.revisions.len(), unknown.users.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_come_in_pages_and_nobody_is_left_out_or_named_twice() {
    let w = World::ready(options(), 2).await;
    for i in 0..7 {
        w.create(&format!("a{i}")).await.unwrap();
        w.resume(&format!("a{i}")).await.unwrap();
        w.suspend(&format!("a{i}")).await.unwrap();
    }
    w.resume("a3").await.unwrap();
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = usage(&w, GetUsageRequest { page_size: 2, page_token, ..Default::default() }).await.unwrap();
        assert!(page.users.len() <= 2);
        all.extend(page.users);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names(&all, Kind::RunningActor), ["default/a3"]);
    let suspended = ["a0", "a1", "a2", "a4", "a5", "a6"].map(|a| format!("default/{a}"));
    assert_eq!(names(&all, Kind::SuspendedActor), suspended);
    assert_eq!(names(&all, Kind::Golden), ["default/counter"]);
    let mut snapshots = names(&all, Kind::Snapshot);
    snapshots.dedup();
    assert_eq!(snapshots.len(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_everything_is_counted_as_it_was() {
    let w = World::ready(options(), 2).await;
    for name in ["a", "b", "c"] {
        w.create(name).await.unwrap();
        w.resume(name).await.unwrap();
        w.suspend(name).await.unwrap();
    }
    w.resume("b").await.unwrap();
    let w = w.restart().await;
    // Who held a worker is at rest again.
    assert_eq!(counts(&w).await["gvisor-default@1"], (0, 3, 1, 4));
    let users = of_config(&w, "gvisor-default@1").await.users;
    assert_eq!(names(&users, Kind::SuspendedActor), ["default/a", "default/b", "default/c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_fails_verification_does_not_confuse_the_counts() {
    let w = World::ready(options(), 2).await;
    w.create("a").await.unwrap();
    w.resume("a").await.unwrap();
    w.suspend("a").await.unwrap();
    w.resume("a").await.unwrap();
    w.pause("a").await.unwrap();
    eventually("the golden actor has left its worker", async || counts(&w).await["gvisor-default@1"] == (0, 1, 1, 3))
        .await;
    w.node.fault("activate", Fault::Fail(Reason::SnapshotCorrupt));
    assert_eq!(w.resume("a").await.unwrap_err().reason, Reason::SnapshotCorrupt);
    assert_eq!(counts(&w).await["gvisor-default@1"], (0, 1, 1, 2), "back to the one in object storage");
    w.resume("a").await.unwrap();
    w.remove("a").await.unwrap();
    assert_eq!(counts(&w).await["gvisor-default@1"], (0, 0, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_that_make_no_sense_are_refused() {
    let w = World::ready(options(), 1).await;
    let ask = |config: &str, digest: &str, page_token: &str| GetUsageRequest {
        config: config.into(),
        digest: digest.into(),
        page_token: page_token.into(),
        ..Default::default()
    };
    for (request, reason) in [
        (ask("no/such", "", ""), Reason::Invalid),
        (ask("gvisor-default@x", "", ""), Reason::Invalid),
        (ask("", "ab", ""), Reason::Invalid),
        (ask("", "", "x"), Reason::Invalid),
        (ask("nosuch", "", ""), Reason::NotFound),
        (ask("gvisor-default@9", "", ""), Reason::NotFound),
    ] {
        assert_eq!(usage(&w, request.clone()).await.unwrap_err().reason, reason, "{request:?}");
    }
}
