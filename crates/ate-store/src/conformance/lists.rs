//! Order, prefixes, pages.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{Backend, within};
use crate::{Store, Transaction};

async fn keys(store: &dyn Store, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    store.list(prefix, after, limit).await.expect("list").into_iter().map(|(key, _)| key).collect()
}

async fn fill(store: &dyn Store, keys: &[&str]) {
    store.commit(keys.iter().fold(Transaction::new(), |tx, key| tx.put(*key, key.to_string()))).await.expect("fill");
}

pub async fn lists_are_in_byte_order(backend: &impl Backend) {
    let store = backend.open().await;
    let mut all = ["b", "a/b", "a", "a-b", "A", "a/", "a0", "ä", "a/b/c", "z", "\u{10ffff}", "aa"];
    fill(&*store, &all).await;
    all.sort_unstable_by_key(|key| key.as_bytes());
    assert_eq!(keys(&*store, "", None, 100).await, all);
    for (key, found) in store.list("", None, 100).await.unwrap() {
        assert_eq!(key, std::str::from_utf8(&found.value).unwrap());
    }
}

pub async fn lists_keep_to_their_prefix(backend: &impl Backend) {
    let store = backend.open().await;
    fill(&*store, &["actor/a", "actor/b", "actor", "actor0", "actors/c", "actor/", "b"]).await;
    assert_eq!(keys(&*store, "actor/", None, 100).await, ["actor/", "actor/a", "actor/b"]);
    assert_eq!(keys(&*store, "actor", None, 100).await.len(), 6);
    assert_eq!(keys(&*store, "nothing", None, 100).await.len(), 0);
    assert_eq!(keys(&*store, "actor/", None, 0).await.len(), 0);
    // A place to go on from that is before, outside or behind the prefix.
    assert_eq!(keys(&*store, "actor/", Some("a"), 100).await, ["actor/", "actor/a", "actor/b"]);
    assert_eq!(keys(&*store, "actor/", Some("actor/"), 100).await, ["actor/a", "actor/b"]);
    assert_eq!(keys(&*store, "actor/", Some("actor/a"), 1).await, ["actor/b"]);
    assert_eq!(keys(&*store, "actor/", Some("actor/aa"), 100).await, ["actor/b"]);
    assert_eq!(keys(&*store, "actor/", Some("actor/b"), 100).await.len(), 0);
    assert_eq!(keys(&*store, "actor/", Some("actor0"), 100).await.len(), 0);
    assert_eq!(keys(&*store, "actor/", Some("zzz"), 100).await.len(), 0);
    store.commit(Transaction::new().delete("actor/a")).await.unwrap();
    assert_eq!(keys(&*store, "actor/", None, 2).await, ["actor/", "actor/b"]);
}

pub async fn pages_cover_a_list_without_gap_or_repeat(backend: &impl Backend) {
    let store = backend.open().await;
    let expected: Vec<String> = (0..1000).map(|i| format!("page/{i:05}")).collect();
    for chunk in expected.chunks(100) {
        fill(&*store, &chunk.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    for size in [1, 7, 100, 999, 1000, 1001] {
        let mut found: Vec<String> = Vec::new();
        loop {
            let page = keys(&*store, "page/", found.last().map(String::as_str), size).await;
            assert!(page.len() <= size);
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        assert_eq!(found, expected, "pages of {size}");
    }
}

pub async fn a_list_shows_each_transaction_as_a_whole(backend: &impl Backend) {
    const KEYS: usize = 100;
    let store = backend.open().await;
    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (store, done) = (store.clone(), done.clone());
        async move {
            for round in 0..200 {
                let all = (0..KEYS).fold(Transaction::new(), |tx, i| tx.put(format!("all/{i:03}"), round.to_string()));
                store.commit(all).await.unwrap();
            }
            done.store(true, Ordering::Release);
        }
    });
    within(async {
        while !done.load(Ordering::Acquire) {
            let listed = store.list("all/", None, 1000).await.unwrap();
            assert!(listed.is_empty() || listed.len() == KEYS);
            assert!(listed.windows(2).all(|w| w[0].1.version == w[1].1.version), "half of a transaction is listed");
            tokio::task::yield_now().await;
        }
        writer.await.unwrap();
    })
    .await;
}
