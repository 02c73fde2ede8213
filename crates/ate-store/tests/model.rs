//! The embedded store against a map: whatever transactions come, in whatever order, with reopening in between.

use std::collections::BTreeMap;

use ate_store::{EmbeddedStore, Expect, Store, StoreError, Transaction};
use proptest::prelude::*;

/// Few keys, so that transactions meet; some are prefixes of others.
const KEYS: [&str; 5] = ["a", "a/", "a/b", "a0", "b"];

#[derive(Debug, Clone)]
enum Step {
    /// Keys are given by index.
    Commit {
        checks: Vec<(usize, Check)>,
        writes: BTreeMap<usize, Option<Vec<u8>>>,
    },
    List {
        prefix: usize,
        after: Option<usize>,
        limit: usize,
    },
    Reopen,
}

#[derive(Debug, Clone, Copy)]
enum Check {
    Absent,
    Present,
    /// The version it has, or one it does not have.
    Current,
    Wrong,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS.len();
    let check = prop_oneof![
        Just(Check::Absent),
        Just(Check::Present),
        Just(Check::Current),
        Just(Check::Current),
        Just(Check::Wrong)
    ];
    let checks = prop::collection::vec((key(), check), 0..3);
    let writes = prop::collection::btree_map(key(), prop::option::of(prop::collection::vec(any::<u8>(), 0..20)), 0..4);
    prop_oneof![
        20 => (checks, writes).prop_map(|(checks, writes)| Step::Commit { checks, writes }),
        5 => (key(), prop::option::of(key()), 0usize..7).prop_map(|(prefix, after, limit)| Step::List { prefix, after, limit }),
        1 => Just(Step::Reopen),
    ]
}

type Model = BTreeMap<&'static str, (u64, Vec<u8>)>;

async fn commit(
    store: &EmbeddedStore,
    model: &mut Model,
    last: &mut u64,
    checks: &[(usize, Check)],
    writes: &BTreeMap<usize, Option<Vec<u8>>>,
) {
    let mut tx = Transaction::new();
    let mut fails_on = None;
    for &(key, check) in checks {
        let key = KEYS[key];
        let version = model.get(key).map(|(version, _)| *version);
        let (expect, holds) = match check {
            Check::Absent => (Expect::Absent, version.is_none()),
            Check::Present => (Expect::Present, version.is_some()),
            Check::Current => (version.map_or(Expect::Absent, Expect::Version), true),
            Check::Wrong => (Expect::Version(version.unwrap_or(0) + 1), false),
        };
        if !holds && fails_on.is_none() {
            fails_on = Some(key);
        }
        tx = tx.check(key, expect);
    }
    for (&key, value) in writes {
        tx = match value {
            Some(value) => tx.put(KEYS[key], value.clone()),
            None => tx.delete(KEYS[key]),
        };
    }
    match (store.commit(tx).await, fails_on) {
        (Err(StoreError::Conflict { key }), Some(expected)) => assert_eq!(key, expected),
        (Ok(0), None) if writes.is_empty() => {}
        (Ok(version), None) => {
            assert!(version > *last);
            *last = version;
            for (&key, value) in writes {
                match value {
                    Some(value) => model.insert(KEYS[key], (version, value.clone())),
                    None => model.remove(KEYS[key]),
                };
            }
        }
        (result, expected) => panic!("{result:?}, expected a conflict on {expected:?}"),
    }
}

async fn compare_list(store: &EmbeddedStore, model: &Model, prefix: &str, after: Option<&str>, limit: usize) {
    let found = store.list(prefix, after, limit).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|(k, v)| (k, v.version, v.value.to_vec())).collect();
    let expected: Vec<_> = model
        .iter()
        .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| **key > after))
        .take(limit)
        .map(|(key, (version, value))| ((*key).to_owned(), *version, value.clone()))
        .collect();
    assert_eq!(found, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_behaves_like_a_map_with_versions(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let mut store = EmbeddedStore::open(directory.path()).unwrap();
            let (mut model, mut last) = (Model::new(), 0);
            for step in &steps {
                match step {
                    Step::Commit { checks, writes } => commit(&store, &mut model, &mut last, checks, writes).await,
                    Step::List { prefix, after, limit } => {
                        compare_list(&store, &model, KEYS[*prefix], after.map(|after| KEYS[after]), *limit).await;
                    }
                    Step::Reopen => {
                        drop(store);
                        store = EmbeddedStore::open(directory.path()).unwrap();
                    }
                }
            }
            compare_list(&store, &model, "", None, 100).await;
        });
    }
}
