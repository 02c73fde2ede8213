//! What is let in and what is not.

use bytes::Bytes;

use super::{Backend, read, value};
use crate::{Expect, MAX_KEY, MAX_OPERATIONS, MAX_VALUE, StoreError, Transaction};

pub async fn keys_and_values_up_to_the_limit_are_kept(backend: &impl Backend) {
    let store = backend.open().await;
    let key = "k".repeat(MAX_KEY);
    let large = Bytes::from(vec![7; MAX_VALUE]);
    store.commit(Transaction::new().put(&key, large.clone()).put("empty", Bytes::new())).await.unwrap();
    assert_eq!(value(&*store, &key).await.unwrap(), large);
    assert_eq!(value(&*store, "empty").await.unwrap(), Bytes::new());
    let binary = Bytes::from((0..=255).collect::<Vec<u8>>());
    store.commit(Transaction::new().put("binary", binary.clone())).await.unwrap();
    assert_eq!(value(&*store, "binary").await.unwrap(), binary);
    let many = (0..MAX_OPERATIONS)
        .fold(Transaction::new(), |tx, i| tx.check(format!("many/{i}"), Expect::Absent).put(format!("many/{i}"), "x"));
    store.commit(many).await.unwrap();
    assert_eq!(store.list("many/", None, 1000).await.unwrap().len(), MAX_OPERATIONS);
}

pub async fn what_is_over_the_limit_is_refused_and_writes_nothing(backend: &impl Backend) {
    let store = backend.open().await;
    let long = "k".repeat(MAX_KEY + 1);
    let small = || Transaction::new().put("small", "x");
    let refused = [
        small().put(&long, "x"),
        small().delete(&long),
        small().check(&long, Expect::Absent),
        small().put("k", vec![0; MAX_VALUE + 1]),
        (0..=MAX_OPERATIONS).fold(small(), |tx, i| tx.check(format!("k{i}"), Expect::Absent)),
        (0..MAX_OPERATIONS).fold(small(), |tx, i| tx.put(format!("k{i}"), "x")),
    ];
    for tx in refused {
        let result = store.commit(tx).await;
        assert!(matches!(result, Err(StoreError::TooLarge { .. })), "{result:?}");
        assert_eq!(read(&*store, "small").await, None);
    }
}

pub async fn malformed_transactions_are_refused(backend: &impl Backend) {
    let store = backend.open().await;
    let malformed = [
        Transaction::new().put("", "x"),
        Transaction::new().delete(""),
        Transaction::new().check("", Expect::Absent),
        Transaction::new().put("twice", "1").put("other", "x").put("twice", "2"),
        Transaction::new().put("twice", "1").delete("twice"),
    ];
    for tx in malformed {
        let result = store.commit(tx).await;
        assert!(matches!(result, Err(StoreError::Invalid { .. })), "{result:?}");
    }
    assert_eq!(store.list("", None, 10).await.unwrap(), []);
}
