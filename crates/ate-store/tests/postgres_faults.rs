//! What happens to commits when the server restarts, connections break, and answers are lost. Over a real server.

use std::{sync::Arc, time::Duration};

use ate_store::{Expect, Lease, PostgresStore, Store, StoreError, Transaction};
use futures::StreamExt;
use postgres_harness::{Proxy, Server, Tuning};
use tokio::task::JoinSet;

/// Longest any wait of these tests may take.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it hangs")
}

async fn leader(url: &str) -> (Arc<PostgresStore>, Lease) {
    let store = PostgresStore::connect(url).await.expect("the database opens");
    let (store, lease) = within(store.lead("test")).await.expect("it leads");
    (Arc::new(store), lease)
}

/// A connection of the test's own.
async fn by_hand(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Waits until a query of an administrator says so.
async fn until(client: &tokio_postgres::Client, condition: &str) {
    within(async {
        while !client.query_one(condition, &[]).await.unwrap().get::<_, bool>(0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_and_broken_connections_lose_nothing_and_repeat_nothing() {
    // On a machine so busy that a restart takes longer than the lease, that shows nothing.
    for _ in 0..3 {
        if blows_while_writing().await {
            return;
        }
    }
    panic!("the server takes longer than a lease to start, each time");
}

/// `false`: the lease was lost.
async fn blows_while_writing() -> bool {
    const TASKS: u64 = 16;
    const BLOWS: usize = 9;
    let server = Arc::new(Server::start(Tuning::Test));
    let proxy = Arc::new(Proxy::to(server.port()));
    let url = server.through(&server.database(), &proxy);
    let (store, lease) = leader(&url).await;
    let mut changes = store.watch("");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (store, stopped) = (store.clone(), stopped.clone());
        tasks.spawn(async move {
            // Each commit rests on the one before: one that is lost or happens twice is a conflict.
            let (key, mut expect, mut versions) = (format!("count/{task:02}"), Expect::Absent, Vec::new());
            while !*stopped.borrow() {
                let n = versions.len();
                let tx = Transaction::new().check(&key, expect).put(&key, n.to_string());
                let version = match store.commit(tx.put(format!("log/{task:02}/{n:06}"), "x")).await {
                    Ok(version) => version,
                    Err(StoreError::NotLeader | StoreError::Unavailable(_)) => return None,
                    Err(e) => panic!("{e}"),
                };
                expect = Expect::Version(version);
                versions.push(version);
                match store.get(&key).await {
                    Ok(found) => assert_eq!(found.unwrap().version, version),
                    Err(_) => return None,
                }
            }
            Some(versions)
        });
    }
    let watched = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(change) = changes.next().await {
            let change = change.expect("no lag");
            if change.key == "end" {
                break;
            }
            seen.push((change.version, change.key));
        }
        seen
    });
    let (s, p) = (server.clone(), proxy.clone());
    let blows = tokio::task::spawn_blocking(move || {
        for blow in 0..BLOWS {
            // So that some work goes on between them, and another moment is hit each time.
            std::thread::sleep(Duration::from_millis(100 + 37 * blow as u64));
            match blow % 3 {
                0 => p.cut(),
                1 => s.end_connections(),
                _ => s.restart(),
            }
        }
    });
    within(blows).await.unwrap();
    stop.send_replace(true);
    let Some(counted) = within(tasks.join_all()).await.into_iter().collect::<Option<Vec<_>>>() else {
        assert!(
            futures::poll!(std::pin::pin!(lease.lost())).is_ready(),
            "somebody was not served though this one leads"
        );
        return false;
    };
    store.commit(Transaction::new().put("end", "x")).await.unwrap();

    let mut expected = Vec::new();
    let mut log = Vec::new();
    for versions in &counted {
        assert!(versions.len() > BLOWS, "nothing went on");
        expected.extend(versions.iter().flat_map(|v| [*v, *v]));
        log.extend(versions);
    }
    let logged: Vec<_> = store.list("log/", None, usize::MAX).await.unwrap().iter().map(|(_, v)| v.version).collect();
    log.sort_unstable();
    let mut sorted = logged.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, log, "what is there is what was acknowledged");
    let seen = within(watched).await.unwrap();
    assert!(seen.windows(2).all(|w| w[0].0 <= w[1].0), "not in commit order");
    let mut seen: Vec<u64> = seen.into_iter().map(|(version, _)| version).collect();
    expected.sort_unstable();
    seen.sort_unstable();
    assert_eq!(seen, expected, "a watcher missed something or saw it twice");
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_happened_while_its_answer_was_lost_is_acknowledged_and_not_repeated() {
    let server = Server::start(Tuning::Test);
    let proxy = Proxy::to(server.port());
    let url = server.database();
    let (store, _lease) = leader(&server.through(&url, &proxy)).await;
    let first = store.commit(Transaction::new().put("k", "1")).await.unwrap();
    let mut changes = store.watch("k");

    // Somebody is in the way of the commit, in the server, when its connection is cut.
    let admin = by_hand(&url).await;
    let mut in_the_way = by_hand(&url).await;
    let lock = in_the_way.transaction().await.unwrap();
    lock.execute("SELECT 1 FROM ate_state FOR UPDATE", &[]).await.unwrap();
    let commit = tokio::spawn({
        let store = store.clone();
        async move { store.commit(Transaction::new().check("k", Expect::Version(first)).put("k", "2")).await }
    });
    until(&admin, "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%fence%'")
        .await;
    proxy.cut();
    // It has come back and waits for what it sent first to be decided.
    until(
        &admin,
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%turn + 1%'",
    )
    .await;
    lock.commit().await.unwrap();

    let version = within(commit).await.unwrap().expect("it happened");
    assert_eq!(version, first + 1, "it happened twice");
    assert_eq!(store.get("k").await.unwrap().unwrap().version, version);
    assert_eq!(within(changes.next()).await.unwrap().unwrap().version, version);
    let next = store.commit(Transaction::new().put("k", "3")).await.unwrap();
    assert_eq!(within(changes.next()).await.unwrap().unwrap().version, next, "a change was seen twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_arrives_after_it_was_given_up_does_nothing() {
    let server = Server::start(Tuning::Test);
    let proxy = Proxy::to(server.port());
    let url = server.database();
    let (store, _lease) = leader(&server.through(&url, &proxy)).await;
    let first = store.commit(Transaction::new().put("k", "1")).await.unwrap();
    let admin = by_hand(&url).await;
    let pids = "SELECT coalesce(string_agg(pid::text, ','), '0') FROM pg_stat_activity WHERE application_name = 'ate'";
    let old: String = admin.query_one(pids, &[]).await.unwrap().get(0);

    proxy.hold();
    let commit = tokio::spawn({
        let store = store.clone();
        // No check: it would be written again happily.
        async move { store.commit(Transaction::new().put("k", "2")).await }
    });
    // Until what it sent is on its way, on a connection that then breaks for the sender only.
    tokio::time::timeout(Duration::from_millis(300), std::future::pending::<()>()).await.unwrap_err();
    proxy.cut_clients();
    let second = within(commit).await.unwrap().expect("it was sent again");
    assert!(second > first);
    store.commit(Transaction::new().put("k", "3")).await.unwrap();
    proxy.release();
    // The old connections end when the server has read all that was sent on them.
    until(&admin, &format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid IN ({old})")).await;
    assert_eq!(store.get("k").await.unwrap().unwrap().value, "3");
    let last = store.commit(Transaction::new().put("k", "4")).await.unwrap();
    assert_eq!(last, second + 2, "a commit happened that nobody made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_for_a_moment_is_a_pause_for_reads_and_writes() {
    let server = Server::start(Tuning::Test);
    let proxy = Proxy::to(server.port());
    let (store, _lease) = leader(&server.through(&server.database(), &proxy)).await;
    store.commit(Transaction::new().put("k", "1")).await.unwrap();
    proxy.down();
    let asked = tokio::spawn({
        let store = store.clone();
        async move { tokio::join!(store.get("k"), store.list("k", None, 1), store.commit(Transaction::new().put("l", "1"))) }
    });
    tokio::time::timeout(Duration::from_secs(1), std::future::pending::<()>()).await.unwrap_err();
    assert!(!asked.is_finished(), "something was answered without a server");
    proxy.up();
    let (got, listed, committed) = within(asked).await.unwrap();
    assert_eq!(got.unwrap().unwrap().value, "1");
    assert_eq!(listed.unwrap().len(), 1);
    assert!(committed.unwrap() > 1);
}
