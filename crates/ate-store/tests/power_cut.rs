//! What a power cut can do to the journal, done by hand: the last group has holes or ends early.

use std::path::{Path, PathBuf};

use ate_store::{EmbeddedStore, OpenError, Store, Transaction};

const COMMITS: usize = 5;
const VALUE: usize = 20_000;

/// A store with some commits, each its own group; and where each begins in the journal.
async fn written(directory: &Path) -> (PathBuf, Vec<usize>) {
    let store = EmbeddedStore::open(directory).unwrap();
    for i in 0..COMMITS {
        let tx = Transaction::new().put(format!("a/{i}"), vec![b'a' + i as u8; VALUE]);
        store.commit(tx.put(format!("b/{i}"), vec![b'a' + i as u8; VALUE])).await.unwrap();
    }
    drop(store);
    let journal = directory.join("0.jnl");
    let bytes = std::fs::read(&journal).unwrap();
    let key_of = |i: usize| format!("a/{i}").into_bytes();
    let groups = (0..COMMITS).map(|i| bytes.windows(3).position(|w| w == key_of(i)).unwrap()).collect();
    (journal, groups)
}

async fn commits_left(store: &EmbeddedStore) -> usize {
    let (a, b) = (store.list("a/", None, 100).await.unwrap(), store.list("b/", None, 100).await.unwrap());
    let versions =
        |list: Vec<(String, ate_store::Versioned)>| list.into_iter().map(|(_, v)| v.version).collect::<Vec<_>>();
    let (a, b) = (versions(a), versions(b));
    assert_eq!(a, b, "a torn transaction");
    a.len()
}

fn overwrite(journal: &Path, at: usize, with: &[u8]) {
    let mut bytes = std::fs::read(journal).unwrap();
    bytes[at..at + with.len()].copy_from_slice(with);
    std::fs::write(journal, bytes).unwrap();
}

#[tokio::test]
async fn a_last_group_with_a_hole_or_cut_short_is_dropped_and_the_rest_is_there() {
    // Offsets from the last group's first key: in its values, between them, in its end.
    for (hole, length) in [(100, 4096), (VALUE - 50, 200), (VALUE + 4096, 4096), (2 * VALUE - 10, 60), (3, 2 * VALUE)] {
        let directory = tempfile::tempdir().unwrap();
        let (journal, groups) = written(directory.path()).await;
        overwrite(&journal, groups[COMMITS - 1] + hole, &vec![0; length]);
        let store = EmbeddedStore::open(directory.path()).unwrap_or_else(|e| panic!("hole at {hole}: {e}"));
        assert_eq!(commits_left(&store).await, COMMITS - 1, "hole at {hole}");
        let version = store.commit(Transaction::new().put("a/9", "x").put("b/9", "x")).await.unwrap();
        drop(store);
        let store = EmbeddedStore::open(directory.path()).unwrap();
        assert_eq!(commits_left(&store).await, COMMITS, "what was written after the repair is there");
        assert_eq!(store.get("a/9").await.unwrap().unwrap().version, version);
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_reported_and_nothing_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, groups) = written(directory.path()).await;
    overwrite(&journal, groups[1] + 100, b"bits that rot");
    let before = std::fs::read(&journal).unwrap();
    assert!(matches!(EmbeddedStore::open(directory.path()), Err(OpenError::Damaged { .. })));
    let after = std::fs::read(&journal).unwrap();
    assert!(before == after, "a damaged store is left as it was found");
}
