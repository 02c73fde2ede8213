//! A real store, with commits and reads that fail, or are late, as the script says.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use async_trait::async_trait;
use ate_store::{Changes, Result, Store, StoreError, Transaction, Versioned};
use tokio::sync::Notify;

/// What becomes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// A commit that writes such a key is answered with an error, and nothing was written.
    Lost(&'static str),
    /// The same for one that writes nothing else.
    LostAlone(&'static str),
    /// It is answered with an error, and was written.
    Unheard(&'static str),
    /// The same for one that writes nothing else.
    UnheardAlone(&'static str),
    /// It was written, and is answered when the script says so.
    Held(&'static str),
    /// Such a key cannot be read.
    Unreadable(&'static str),
}

/// Troubles to come, each once, in whatever order they find what they wait for.
#[derive(Clone, Default)]
pub struct Troubles(Arc<Weather>);

#[derive(Default)]
struct Weather {
    to_come: Mutex<Vec<Trouble>>,
    lists: AtomicUsize,
    /// A commit was written whose answer waits for `answer`.
    holds: AtomicBool,
    answer: Notify,
}

impl Troubles {
    pub fn add(&self, trouble: Trouble) {
        self.0.to_come.lock().unwrap().push(trouble);
    }

    pub fn are_over(&self) -> bool {
        self.0.to_come.lock().unwrap().is_empty()
    }

    /// Lists there were.
    pub fn lists(&self) -> usize {
        self.0.lists.load(Relaxed)
    }

    /// Whether an answer is being held back.
    pub fn hold(&self) -> bool {
        self.0.holds.load(Relaxed)
    }

    pub fn let_go(&self) {
        self.0.answer.notify_one();
    }

    fn take(&self, which: impl Fn(&Trouble) -> bool) -> Option<Trouble> {
        let mut troubles = self.0.to_come.lock().unwrap();
        let at = troubles.iter().position(which)?;
        Some(troubles.remove(at))
    }
}

pub struct TroubledStore(pub Arc<dyn Store>, pub Troubles);

fn unavailable<T>() -> Result<T> {
    Err(StoreError::Unavailable("as the script says".into()))
}

#[async_trait]
impl Store for TroubledStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        if self.1.take(|t| matches!(t, Trouble::Unreadable(prefix) if key.starts_with(prefix))).is_some() {
            return unavailable();
        }
        self.0.get(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, Versioned)>> {
        self.1.0.lists.fetch_add(1, Relaxed);
        self.0.list(prefix, after, limit).await
    }

    async fn commit(&self, tx: Transaction) -> Result<u64> {
        let writes = |prefix: &str| tx.writes.iter().any(|(key, _)| key.starts_with(prefix));
        let alone = |prefix: &str| tx.writes.iter().all(|(key, _)| key.starts_with(prefix));
        let trouble = self.1.take(|t| match t {
            Trouble::Lost(prefix) | Trouble::Unheard(prefix) | Trouble::Held(prefix) => writes(prefix),
            Trouble::LostAlone(prefix) | Trouble::UnheardAlone(prefix) => alone(prefix),
            Trouble::Unreadable(_) => false,
        });
        match trouble {
            Some(Trouble::Lost(_) | Trouble::LostAlone(_)) => return unavailable(),
            Some(Trouble::Unheard(_) | Trouble::UnheardAlone(_)) => {
                self.0.commit(tx).await?;
                return unavailable();
            }
            Some(Trouble::Held(_)) => {
                let done = self.0.commit(tx).await;
                self.1.0.holds.store(true, Relaxed);
                self.1.0.answer.notified().await;
                self.1.0.holds.store(false, Relaxed);
                return done;
            }
            _ => {}
        }
        self.0.commit(tx).await
    }

    fn watch(&self, prefix: &str) -> Changes {
        self.0.watch(prefix)
    }
}
