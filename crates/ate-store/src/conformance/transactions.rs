//! Atomic, serializable, durable, cancel-safe.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::future::join_all;
use tokio::task::JoinSet;

use super::{Backend, is_conflict_on, number, read, value, within};
use crate::{Expect, Store, StoreError, Transaction};

pub async fn a_transaction_happens_as_a_whole(backend: &impl Backend) {
    let store = backend.open().await;
    store.commit(Transaction::new().put("a", "1").put("b", "2")).await.unwrap();
    store.commit(Transaction::new().delete("a").put("b", "3").put("c", "4")).await.unwrap();
    assert_eq!(value(&*store, "a").await, None);
    assert_eq!(value(&*store, "b").await.unwrap(), "3");
    assert_eq!(value(&*store, "c").await.unwrap(), "4");
}

pub async fn a_failed_check_writes_nothing(backend: &impl Backend) {
    let store = backend.open().await;
    store.commit(Transaction::new().put("there", "1")).await.unwrap();
    let refused = Transaction::new().check("there", Expect::Present).check("there", Expect::Absent);
    let refused = store.commit(refused.put("there", "2").put("new", "2").delete("there2")).await;
    assert!(is_conflict_on(&refused, "there"), "{refused:?}");
    assert_eq!(value(&*store, "there").await.unwrap(), "1");
    assert_eq!(value(&*store, "new").await, None);
}

pub async fn checks_see_absent_present_and_exact_versions(backend: &impl Backend) {
    let store = backend.open().await;
    let first = store.commit(Transaction::new().check("k", Expect::Absent).put("k", "1")).await.unwrap();
    let second = store.commit(Transaction::new().check("k", Expect::Version(first)).put("k", "2")).await.unwrap();
    let stale = store.commit(Transaction::new().check("k", Expect::Version(first)).put("k", "3")).await;
    assert!(is_conflict_on(&stale, "k"));
    store.commit(Transaction::new().check("k", Expect::Present).delete("k")).await.unwrap();
    for expect in [Expect::Present, Expect::Version(second)] {
        let gone = store.commit(Transaction::new().check("k", expect).put("k", "4")).await;
        assert!(is_conflict_on(&gone, "k"));
    }
    // Deleted and made anew is not unchanged.
    store.commit(Transaction::new().check("k", Expect::Absent).put("k", "2")).await.unwrap();
    let anew = store.commit(Transaction::new().check("k", Expect::Version(second)).put("k", "5")).await;
    assert!(is_conflict_on(&anew, "k"));
}

pub async fn exactly_one_of_many_concurrent_writers_wins(backend: &impl Backend) {
    let store = backend.open().await;
    for round in 0..20 {
        let key = format!("seat/{round}");
        let claims = join_all((0..32).map(|i| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move {
                let claim = Transaction::new().check(&key, Expect::Absent);
                store.commit(claim.put(&key, i.to_string()).put(format!("{key}/winner/{i}"), "yes")).await
            })
        }))
        .await;
        let results: Vec<_> = claims.into_iter().map(|claim| claim.unwrap()).collect();
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1, "round {round}");
        assert_eq!(results.iter().filter(|r| is_conflict_on(r, &key)).count(), 31);
        let winners = store.list(&format!("{key}/winner/"), None, 100).await.unwrap();
        assert_eq!(winners.len(), 1, "a loser wrote");
    }
}

pub async fn concurrent_increments_lose_nothing(backend: &impl Backend) {
    const TASKS: u64 = 32;
    const INCREMENTS: u64 = 50;
    let store = backend.open().await;
    store.commit(Transaction::new().put("counter", "0")).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut done = 0;
            while done < INCREMENTS {
                let (version, n) = number(&*store, "counter").await;
                let tx = Transaction::new().check("counter", Expect::Version(version));
                match store.commit(tx.put("counter", (n + 1).to_string())).await {
                    Ok(_) => done += 1,
                    Err(StoreError::Conflict { .. }) => {}
                    Err(e) => panic!("{e}"),
                }
            }
        });
    }
    within(tasks.join_all()).await;
    assert_eq!(number(&*store, "counter").await.1, TASKS * INCREMENTS);
}

pub async fn transfers_between_records_keep_their_sum(backend: &impl Backend) {
    const ACCOUNTS: u64 = 6;
    let store = backend.open().await;
    let all = (0..ACCOUNTS).fold(Transaction::new(), |tx, i| tx.put(format!("account/{i}"), "1000"));
    store.commit(all).await.unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..8u64 {
        let store = store.clone();
        tasks.spawn(async move {
            for step in 0..100u64 {
                let from = format!("account/{}", (task + step) % ACCOUNTS);
                let to = format!("account/{}", (task * 3 + step * 5 + 1) % ACCOUNTS);
                if from == to {
                    continue;
                }
                let ((from_version, a), (to_version, b)) = (number(&*store, &from).await, number(&*store, &to).await);
                let amount = (step % 7).min(a);
                let tx = Transaction::new()
                    .check(&from, Expect::Version(from_version))
                    .check(&to, Expect::Version(to_version))
                    .put(&from, (a - amount).to_string())
                    .put(&to, (b + amount).to_string());
                match store.commit(tx).await {
                    Ok(_) | Err(StoreError::Conflict { .. }) => {}
                    Err(e) => panic!("{e}"),
                }
            }
        });
    }
    within(tasks.join_all()).await;
    let mut sum = 0;
    for i in 0..ACCOUNTS {
        sum += number(&*store, &format!("account/{i}")).await.1;
    }
    assert_eq!(sum, ACCOUNTS * 1000);
}

pub async fn versions_grow_and_are_given_to_every_key_of_the_commit(backend: &impl Backend) {
    let store = backend.open().await;
    let mut last = 0;
    for i in 0..50 {
        let version = store.commit(Transaction::new().put("a", i.to_string()).put("b", "x")).await.unwrap();
        assert!(version > last, "{version} after {last}");
        assert_eq!(read(&*store, "a").await.unwrap().version, version);
        assert_eq!(read(&*store, "b").await.unwrap().version, version);
        last = version;
    }
}

pub async fn an_empty_transaction_only_checks(backend: &impl Backend) {
    let store = backend.open().await;
    assert_eq!(store.commit(Transaction::new()).await.unwrap(), 0);
    assert_eq!(store.commit(Transaction::new().check("k", Expect::Absent)).await.unwrap(), 0);
    assert!(is_conflict_on(&store.commit(Transaction::new().check("k", Expect::Present)).await, "k"));
}

pub async fn deleting_what_is_absent_is_no_error(backend: &impl Backend) {
    let store = backend.open().await;
    assert!(store.commit(Transaction::new().delete("nobody")).await.unwrap() > 0);
    assert_eq!(read(&*store, "nobody").await, None);
}

pub async fn a_commit_is_read_by_whoever_asks_after_it(backend: &impl Backend) {
    let store = backend.open().await;
    let mut tasks = JoinSet::new();
    for task in 0..16 {
        let store = store.clone();
        tasks.spawn(async move {
            let key = format!("mine/{task:02}");
            for i in 0..50 {
                store.commit(Transaction::new().put(&key, i.to_string())).await.unwrap();
                assert_eq!(value(&*store, &key).await.unwrap(), i.to_string());
                let listed = store.list(&key, None, 1).await.unwrap();
                assert_eq!(listed[0].1.value, i.to_string());
            }
        });
    }
    within(tasks.join_all()).await;
}

pub async fn who_has_read_one_write_of_a_commit_reads_the_others(backend: &impl Backend) {
    const KEYS: usize = 100;
    let store = backend.open().await;
    let done = Arc::new(AtomicBool::new(false));
    let round =
        |round: usize| (0..KEYS).fold(Transaction::new(), |tx, i| tx.put(format!("part/{i:03}"), round.to_string()));
    store.commit(round(0)).await.unwrap();
    let writer = tokio::spawn({
        let (store, done) = (store.clone(), done.clone());
        async move {
            for n in 1..400 {
                store.commit(round(n)).await.unwrap();
            }
            done.store(true, Ordering::Release);
        }
    });
    within(async {
        while !done.load(Ordering::Acquire) {
            let (first, _) = number(&*store, "part/000").await;
            let (last, _) = number(&*store, &format!("part/{:03}", KEYS - 1)).await;
            assert!(last >= first, "commit {first} was seen, and then {last}");
            tokio::task::yield_now().await;
        }
        writer.await.unwrap();
    })
    .await;
}

pub async fn a_dropped_commit_happens_whole_or_not_at_all(backend: &impl Backend) {
    let store = backend.open().await;
    for i in 0..200u32 {
        let tx = Transaction::new().put(format!("left/{i:03}"), "x").put(format!("right/{i:03}"), "x");
        let commit = store.commit(tx);
        // Polled a few times and then left, at another point each time.
        let _ = tokio::time::timeout(std::time::Duration::from_micros(u64::from(i) * 5), commit).await;
    }
    // One writer, one order: when this is done, whatever was under way is decided.
    store.commit(Transaction::new().put("last", "x")).await.unwrap();
    let ends = |list: Vec<(String, crate::Versioned)>| -> Vec<(String, u64)> {
        list.into_iter().map(|(key, v)| (key[key.len() - 3..].to_owned(), v.version)).collect()
    };
    let left = ends(store.list("left/", None, 1000).await.unwrap());
    let right = ends(store.list("right/", None, 1000).await.unwrap());
    assert_eq!(left, right);
}

pub async fn everything_is_there_after_reopening(backend: &impl Backend) {
    let store = backend.open().await;
    let mut expected = Vec::new();
    for i in 0..300 {
        let key = format!("kept/{i:04}");
        let version = store.commit(Transaction::new().put(&key, i.to_string())).await.unwrap();
        expected.push((key, version, i.to_string()));
    }
    store.commit(Transaction::new().put("gone", "x")).await.unwrap();
    store.commit(Transaction::new().delete("gone")).await.unwrap();
    drop(store);
    let store = backend.open().await;
    let found = store.list("kept/", None, 1000).await.unwrap();
    let found: Vec<_> =
        found.into_iter().map(|(k, v)| (k, v.version, String::from_utf8(v.value.to_vec()).unwrap())).collect();
    assert_eq!(found, expected);
    assert_eq!(read(&*store, "gone").await, None);
}

pub async fn versions_are_not_used_again_after_reopening(backend: &impl Backend) {
    let mut last = 0;
    for _ in 0..3 {
        let store: Arc<dyn Store> = backend.open().await;
        // A deletion leaves no record behind that could remember its version.
        let put = store.commit(Transaction::new().put("k", "x")).await.unwrap();
        let deleted = store.commit(Transaction::new().delete("k")).await.unwrap();
        assert!(last < put && put < deleted, "{last} {put} {deleted}");
        last = deleted;
    }
}
