//! Who may write: one process at a time, and never one that another has replaced. Over a real server.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use ate_store::{Expect, OpenError, PostgresStore, Store, StoreError, Transaction};
use futures::{StreamExt, future::join_all};
use postgres_harness::{Proxy, Server, Tuning};

/// Longest any wait of these tests may take: a lease that runs out, and some.
const PATIENCE: Duration = Duration::from_secs(30);

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(Tuning::Test))
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it hangs")
}

async fn connect(url: &str) -> PostgresStore {
    PostgresStore::connect(url).await.expect("the database opens")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_lead_reads_and_writes_nothing() {
    let url = server().database();
    let (leader, _lease) = connect(&url).await.lead("leader").await.unwrap();
    let follower = connect(&url).await;
    let version = leader.commit(Transaction::new().put("k", "1")).await.unwrap();
    assert_eq!(follower.get("k").await.unwrap().unwrap().version, version);
    assert_eq!(follower.list("", None, 10).await.unwrap().len(), 1);
    let refused = follower.commit(Transaction::new().put("k", "2")).await;
    assert!(matches!(refused, Err(StoreError::NotLeader)), "{refused:?}");
    let told = within(follower.watch("").next()).await;
    assert!(matches!(told, Some(Err(StoreError::NotLeader))), "a watcher there would see nothing: {told:?}");
    assert_eq!(leader.get("k").await.unwrap().unwrap().value, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_steps_down_is_replaced_at_once_by_one_of_those_who_wait() {
    let url = server().database();
    let (first, lease) = connect(&url).await.lead("first").await.unwrap();
    let first = Arc::new(first);
    let mut watched = first.watch("");
    let mut waiting: Vec<_> = Vec::new();
    for name in ["second", "third", "fourth"] {
        waiting.push(tokio::spawn(connect(&url).await.lead(name)));
    }
    let version = first.commit(Transaction::new().put("k", "first")).await.unwrap();
    assert!(waiting.iter().all(|w| !w.is_finished()), "two lead");
    let stepped = Instant::now();
    within(lease.step_down()).await;
    let refused = first.commit(Transaction::new().put("k", "late")).await;
    assert!(matches!(refused, Err(StoreError::NotLeader)), "{refused:?}");
    assert_eq!(within(watched.next()).await.unwrap().unwrap().version, version);
    assert!(within(watched.next()).await.is_none(), "the feed of a former leader ends");

    let (won, _, waiting) = within(futures::future::select_all(waiting)).await;
    assert!(stepped.elapsed() < Duration::from_secs(3), "{:?}", stepped.elapsed());
    let (store, _lease) = won.unwrap().unwrap();
    assert_eq!(store.get("k").await.unwrap().unwrap().value, "first");
    assert!(store.commit(Transaction::new().put("k", "second")).await.unwrap() > version, "versions go on growing");
    assert!(waiting.iter().all(|w| !w.is_finished()), "two lead");
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stands_still_is_replaced_and_what_it_sent_is_not_written() {
    let url = server().database();
    let proxy = Proxy::to(server().port());
    let (stalled, lease) = connect(&server().through(&url, &proxy)).await.lead("stalled").await.unwrap();
    let stalled = Arc::new(stalled);
    stalled.commit(Transaction::new().put("k", "1").put("other", "1")).await.unwrap();
    let next = tokio::spawn(connect(&url).await.lead("next"));
    let lost = tokio::spawn(async move {
        lease.lost().await;
        (Instant::now(), lease)
    });

    proxy.stall();
    // On its way, and it will arrive.
    let late = tokio::spawn({
        let stalled = stalled.clone();
        async move { stalled.commit(Transaction::new().put("k", "late")).await }
    });
    let held = Instant::now();
    let (next, _lease) = within(next).await.unwrap().unwrap();
    let took = held.elapsed();
    assert!(took < Duration::from_secs(13), "{took:?}");
    let (lost, _former) = within(lost).await.unwrap();
    assert!(lost < held + took, "it noticed after it was replaced");
    let mine = next.commit(Transaction::new().put("k", "2")).await.unwrap();
    proxy.release();
    let late = within(late).await.unwrap();
    assert!(matches!(late, Err(StoreError::Unavailable(_) | StoreError::NotLeader)), "{late:?}");
    let again = stalled.commit(Transaction::new().put("k", "later")).await;
    assert!(matches!(again, Err(StoreError::NotLeader)), "{again:?}");
    // Another commit, so that whatever arrived has been decided.
    next.commit(Transaction::new().put("other", "2")).await.unwrap();
    assert_eq!(next.get("k").await.unwrap().unwrap().version, mine);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_replaced_and_does_not_know_it_yet_decides_nothing() {
    let url = server().database();
    let (former, lease) = connect(&url).await.lead("former").await.unwrap();
    let version = former.commit(Transaction::new().put("k", "1")).await.unwrap();
    // What another leader does, between two renewals.
    let next = "UPDATE ate_state SET epoch = epoch + 1; DELETE FROM ate_record";
    server().sql(url.rsplit_once('/').unwrap().1, next);
    let decided = former.commit(Transaction::new().check("k", Expect::Version(version))).await;
    assert!(matches!(decided, Err(StoreError::NotLeader)), "it remembered: {decided:?}");
    within(lease.lost()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_reach_the_database_any_more_learns_that_it_does_not_lead() {
    let url = server().database();
    let proxy = Proxy::to(server().port());
    let (alone, lease) = connect(&server().through(&url, &proxy)).await.lead("alone").await.unwrap();
    proxy.down();
    let unanswered = tokio::spawn(async move { alone.commit(Transaction::new().put("k", "1")).await });
    within(lease.lost()).await;
    let unanswered = within(unanswered).await.unwrap();
    assert!(matches!(unanswered, Err(StoreError::NotLeader | StoreError::Unavailable(_))), "{unanswered:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_programs_begin_with_an_empty_database_at_once() {
    let url = server().database();
    for opened in join_all((0..8).map(|_| PostgresStore::connect(&url))).await {
        assert_eq!(opened.unwrap().list("", None, 1).await.unwrap(), []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_a_newer_program_is_left_alone() {
    let url = server().database();
    let waiting = connect(&url).await;
    let (name, known) = (url.rsplit_once('/').unwrap().1, 1);
    server().sql(name, "UPDATE ate_schema SET version = 99");
    match PostgresStore::connect(&url).await {
        Err(e @ OpenError::Schema { found: 99, .. }) => assert!(e.to_string().contains(&known.to_string()), "{e}"),
        Err(e) => panic!("another error: {e}"),
        Ok(_) => panic!("it was opened"),
    }
    // Nor does one lead that was there before.
    let refused = within(waiting.lead("old")).await.err();
    assert!(matches!(refused, Some(StoreError::Unavailable(_))), "{refused:?}");
}
