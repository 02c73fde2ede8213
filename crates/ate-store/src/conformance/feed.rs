//! The change feed: complete, in order, durable, bounded.

use futures::StreamExt;
use tokio::task::JoinSet;

use super::{Backend, read, within};
use crate::{Expect, Store, StoreError, Transaction};

pub async fn a_watcher_sees_every_later_change_once_and_in_order(backend: &impl Backend) {
    const TASKS: u64 = 16;
    const COMMITS: u64 = 100;
    let store = backend.open().await;
    store.commit(Transaction::new().put("w/early", "x")).await.unwrap();
    let mut changes = store.watch("w/");
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut mine = Vec::new();
            for i in 0..COMMITS {
                let (a, b) = (format!("w/{task}/a"), format!("w/{task}/{i}"));
                let tx = match i % 3 {
                    2 => Transaction::new().delete(&a).put(&b, i.to_string()),
                    _ => Transaction::new().put(&a, i.to_string()).put(&b, "x"),
                };
                let version = store.commit(tx).await.unwrap();
                mine.extend([(version, a), (version, b)]);
            }
            mine
        });
    }
    let mut expected = within(tasks.join_all()).await.concat();
    expected.sort();
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let change = within(changes.next()).await.expect("the feed goes on").expect("no lag");
        seen.push((change.version, change.key));
    }
    assert!(seen.windows(2).all(|w| w[0].0 <= w[1].0), "not in commit order");
    seen.sort();
    assert_eq!(seen, expected);
    // Nothing came twice: the next change is the next commit.
    let version = store.commit(Transaction::new().put("w/end", "x")).await.unwrap();
    assert_eq!(within(changes.next()).await.unwrap().unwrap().version, version);
}

pub async fn a_watcher_sees_only_its_prefix(backend: &impl Backend) {
    let store = backend.open().await;
    let (mut some, mut all) = (store.watch("actor/"), store.watch(""));
    store.commit(Transaction::new().put("actor", "x").put("actors/a", "x").put("actor/a", "1")).await.unwrap();
    store.commit(Transaction::new().delete("actor/a")).await.unwrap();
    let first = within(some.next()).await.unwrap().unwrap();
    assert_eq!((first.key.as_str(), first.value.as_deref()), ("actor/a", Some(&b"1"[..])));
    let second = within(some.next()).await.unwrap().unwrap();
    assert_eq!((second.key.as_str(), second.value), ("actor/a", None));
    for _ in 0..4 {
        within(all.next()).await.unwrap().unwrap();
    }
}

pub async fn a_watcher_sees_only_what_was_committed(backend: &impl Backend) {
    let store = backend.open().await;
    let mut changes = store.watch("k");
    let refused = store.commit(Transaction::new().check("k", Expect::Present).put("k", "refused")).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })));
    store.commit(Transaction::new().check("k", Expect::Absent)).await.unwrap();
    store.commit(Transaction::new().put("k", "taken")).await.unwrap();
    assert_eq!(within(changes.next()).await.unwrap().unwrap().value.unwrap(), "taken");
}

pub async fn a_change_is_readable_when_it_is_delivered(backend: &impl Backend) {
    let store = backend.open().await;
    let mut changes = store.watch("r/");
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for i in 0..200 {
                store.commit(Transaction::new().put(format!("r/{i}"), "x")).await.unwrap();
            }
        }
    });
    for _ in 0..200 {
        let change = within(changes.next()).await.unwrap().unwrap();
        assert_eq!(read(&*store, &change.key).await.expect("delivered but not there").version, change.version);
    }
    writer.await.unwrap();
}

pub async fn a_slow_watcher_is_told_that_it_lags(backend: &impl Backend) {
    /// More than any implementation may buffer for one watcher.
    const MANY: usize = 1 << 17;
    const PER_COMMIT: usize = 128;
    let store = backend.open().await;
    let (mut slow, mut other) = (store.watch("many/"), store.watch("other/"));
    let writers = futures::future::join_all((0..8).map(|writer| {
        let store: &dyn Store = &*store;
        async move {
            for round in 0..MANY / PER_COMMIT / 8 {
                let tx = (0..PER_COMMIT)
                    .fold(Transaction::new(), |tx, i| tx.put(format!("many/{writer}/{i}"), round.to_string()));
                store.commit(tx).await.unwrap();
            }
        }
    }));
    within(writers).await;
    let mut last = 0;
    let mut delivered = 0;
    let ended = loop {
        match within(slow.next()).await.expect("a lagging feed does not end in silence") {
            Ok(change) => {
                assert!(change.version >= last);
                last = change.version;
                delivered += 1;
                assert!(delivered < MANY, "nothing was dropped: the buffer has no bound");
            }
            Err(e) => break e,
        }
    };
    assert!(matches!(ended, StoreError::Lagged), "{ended}");
    assert!(within(slow.next()).await.is_none(), "a lagging feed ends");
    // Who keeps up, and who starts again, is not concerned.
    let mut again = store.watch("many/");
    store.commit(Transaction::new().put("other/x", "1").put("many/x", "1")).await.unwrap();
    assert_eq!(within(other.next()).await.unwrap().unwrap().key, "other/x");
    assert_eq!(within(again.next()).await.unwrap().unwrap().key, "many/x");
}
