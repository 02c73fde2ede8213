//! The embedded store against the conformance suite, and what only it promises.

use std::sync::Arc;

use ate_store::{EmbeddedStore, OpenError, Store, Transaction, conformance::Backend};

struct Directory(tempfile::TempDir);

impl Directory {
    fn fresh() -> Self {
        Directory(tempfile::tempdir().expect("a temporary directory"))
    }
}

impl Backend for Directory {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(EmbeddedStore::open(self.0.path()).expect("the store opens"))
    }
}

ate_store::conformance_tests!(Directory::fresh());

#[tokio::test]
async fn a_directory_is_opened_by_one_store_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    match EmbeddedStore::open(directory.path()) {
        Err(e @ OpenError::InUse { .. }) => assert!(e.to_string().contains("in use"), "{e}"),
        Err(e) => panic!("another error: {e}"),
        Ok(_) => panic!("opened twice"),
    }
    store.commit(Transaction::new().put("k", "still works")).await.unwrap();
    drop(store);
    EmbeddedStore::open(directory.path()).expect("free again");
}

#[test]
fn a_store_that_is_not_ours_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("version"), b"something else").unwrap();
    let refused = EmbeddedStore::open(directory.path());
    assert!(matches!(refused, Err(OpenError::Damaged { .. })));
    assert_eq!(std::fs::read(directory.path().join("version")).unwrap(), b"something else");
}

#[tokio::test]
async fn closing_waits_for_commits_already_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(directory.path()).unwrap());
    let commits: Vec<_> = (0..100)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(Transaction::new().put(format!("k/{i}"), "x")).await })
        })
        .collect();
    drop(store);
    for commit in commits {
        commit.await.unwrap().expect("a commit with a handle on the store is served");
    }
    // The last task's handle is gone with its answer, at the latest when the runtime has dropped the task.
    let store = loop {
        match EmbeddedStore::open(directory.path()) {
            Ok(store) => break store,
            Err(OpenError::InUse { .. }) => tokio::task::yield_now().await,
            Err(e) => panic!("{e}"),
        }
    };
    assert_eq!(store.list("k/", None, 1000).await.unwrap().len(), 100);
}
