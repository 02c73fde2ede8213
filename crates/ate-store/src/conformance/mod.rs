//! The suite every [`Store`] must pass: each promise of the trait's documentation, and each limit, as a test.
//!
//! An implementation gives a [`Backend`] and invokes [`conformance_tests!`](crate::conformance_tests) in a test file.

mod feed;
mod limits;
mod lists;
mod transactions;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{Result, Store, StoreError, Versioned};

pub use feed::*;
pub use limits::*;
pub use lists::*;
pub use transactions::*;

/// One place where a store lives. Each test gets a fresh one.
pub trait Backend: Send + Sync {
    /// Opens the store; called again after the last handle is gone, it finds what was committed.
    fn open(&self) -> impl Future<Output = Arc<dyn Store>> + Send;
}

/// Longest any single wait of the suite may take before it counts as a hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes one test of each promise. The argument is an expression that makes a fresh [`Backend`].
#[macro_export]
macro_rules! conformance_tests {
    ($backend:expr) => {
        $crate::conformance_tests!(@each $backend;
            a_transaction_happens_as_a_whole
            a_failed_check_writes_nothing
            checks_see_absent_present_and_exact_versions
            exactly_one_of_many_concurrent_writers_wins
            concurrent_increments_lose_nothing
            transfers_between_records_keep_their_sum
            versions_grow_and_are_given_to_every_key_of_the_commit
            an_empty_transaction_only_checks
            deleting_what_is_absent_is_no_error
            a_commit_is_read_by_whoever_asks_after_it
            who_has_read_one_write_of_a_commit_reads_the_others
            a_dropped_commit_happens_whole_or_not_at_all
            everything_is_there_after_reopening
            versions_are_not_used_again_after_reopening
            lists_are_in_byte_order
            lists_keep_to_their_prefix
            pages_cover_a_list_without_gap_or_repeat
            a_list_shows_each_transaction_as_a_whole
            keys_and_values_up_to_the_limit_are_kept
            what_is_over_the_limit_is_refused_and_writes_nothing
            malformed_transactions_are_refused
            a_watcher_sees_every_later_change_once_and_in_order
            a_watcher_sees_only_its_prefix
            a_watcher_sees_only_what_was_committed
            a_change_is_readable_when_it_is_delivered
            a_slow_watcher_is_told_that_it_lags
        );
    };
    (@each $backend:expr; $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                $crate::conformance::$promise(&$backend).await;
            }
        )*
    };
}

async fn read(store: &dyn Store, key: &str) -> Option<Versioned> {
    store.get(key).await.expect("get")
}

async fn value(store: &dyn Store, key: &str) -> Option<Bytes> {
    read(store, key).await.map(|found| found.value)
}

/// A number kept in a record.
async fn number(store: &dyn Store, key: &str) -> (u64, u64) {
    let found = read(store, key).await.expect("the record exists");
    (found.version, std::str::from_utf8(&found.value).expect("text").parse().expect("a number"))
}

fn is_conflict_on<T>(result: &Result<T>, expected: &str) -> bool {
    matches!(result, Err(StoreError::Conflict { key }) if key == expected)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("the store hangs")
}
