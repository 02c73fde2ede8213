//! The store in PostgreSQL against the conformance suite, over a real server.

use std::sync::{Arc, OnceLock};

use ate_store::{Changes, Lease, PostgresStore, Result, Store, Transaction, Versioned, conformance::Backend};
use postgres_harness::{Server, Tuning};

/// One server for all tests of this file, a database for each. It ends with the process.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(Tuning::Test))
}

struct Database(String);

/// A store and the leadership it writes by, as a control plane has them.
struct Leader(PostgresStore, #[expect(dead_code, reason = "leads for as long as it is there")] Lease);

impl Backend for Database {
    async fn open(&self) -> Arc<dyn Store> {
        let store = PostgresStore::connect(&self.0).await.expect("the database opens");
        let (store, lease) = store.lead("test").await.expect("it leads");
        Arc::new(Leader(store, lease))
    }
}

#[async_trait::async_trait]
impl Store for Leader {
    async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        self.0.get(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, Versioned)>> {
        self.0.list(prefix, after, limit).await
    }

    async fn commit(&self, tx: Transaction) -> Result<u64> {
        self.0.commit(tx).await
    }

    fn watch(&self, prefix: &str) -> Changes {
        self.0.watch(prefix)
    }
}

ate_store::conformance_tests!(Database(tokio::task::block_in_place(|| server().database())));
