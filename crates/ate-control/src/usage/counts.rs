//! How many entries the usage indexes have per revision, in memory, so that nobody has to count a million of them.
//!
//! The store is the truth: every commit that touches an index passes here and changes the counts when it is durable.
//! After a start, and whenever it is unknown whether a commit happened, the entries are counted anew in the background,
//! page by page. Commits go on meanwhile: they hold the gate as readers, a page is read with the gate closed, so a commit
//! is either in the pages already read, and then counted by itself, or in those to come.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ate_api::{Error, Reason};
use ate_store::{StoreError, Transaction};
use tokio::sync::{Notify, RwLock, RwLockReadGuard, watch};

use crate::{
    core::Core,
    db::SCAN_PAGE,
    records::{ConfigKey, keys},
};

/// Both indexes, in the order in which they are counted.
const INDEXES: [&str; 2] = [keys::BY_CONFIG, keys::NEEDED_BY];
/// Pause before counting again when the store does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// Entries of one revision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) snapshots: u64,
    /// Actors whose current snapshot was made under it.
    pub(crate) actors: u64,
}

#[derive(Debug)]
pub(crate) struct Counts {
    state: Mutex<State>,
    gate: RwLock<()>,
    /// What is in `state` may be wrong.
    doubt: Notify,
    complete: watch::Sender<bool>,
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            state: Mutex::default(),
            gate: RwLock::default(),
            doubt: Notify::new(),
            complete: watch::Sender::new(false),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<ConfigKey, Count>,
    /// Entries up to here are counted, and none beyond it.
    read: Read,
    /// The count that is under way will not do.
    doubted: bool,
}

#[derive(Debug, Default)]
enum Read {
    #[default]
    Nothing,
    /// Place of the index in [`INDEXES`], and the key.
    UpTo(usize, String),
    /// Up to the end of this index.
    Whole(usize),
}

/// One write to an index.
#[derive(Debug)]
struct Step {
    index: usize,
    key: String,
    revision: ConfigKey,
    added: bool,
}

/// A commit under way. Dropped before its end, it leaves a doubt.
pub(crate) struct Pending<'a> {
    counts: &'a Counts,
    steps: Vec<Step>,
    /// Nobody reads a page before the steps are taken.
    _gate: Option<RwLockReadGuard<'a, ()>>,
}

impl Counts {
    /// Before a commit. Most touch no index, and pay nothing.
    pub(crate) async fn begin(&self, tx: &Transaction) -> Pending<'_> {
        let steps: Vec<Step> = tx.writes.iter().filter_map(|(key, value)| step(key, value.is_some())).collect();
        let gate = if steps.is_empty() { None } else { Some(self.gate.read().await) };
        Pending { counts: self, steps, _gate: gate }
    }

    /// The counts, once they are complete.
    pub(crate) async fn all(&self, patience: Duration) -> Result<BTreeMap<ConfigKey, Count>, Error> {
        let mut complete = self.complete.subscribe();
        let counted = tokio::time::timeout(patience, complete.wait_for(|complete| *complete)).await;
        if counted.is_err() {
            return Err(
                Error::new(Reason::Unavailable, "what is in use is still being counted").hint("try again in a moment")
            );
        }
        Ok(self.state().counts.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn doubt(&self) {
        let mut state = self.state();
        state.doubted = true;
        self.complete.send_replace(false);
        drop(state);
        self.doubt.notify_one();
    }
}

impl Pending<'_> {
    /// After the commit, with its error if it failed.
    pub(crate) fn end(mut self, error: Option<&StoreError>) {
        let steps = std::mem::take(&mut self.steps);
        match error {
            None => {
                let mut state = self.counts.state();
                steps.iter().for_each(|step| state.take(step));
            }
            Some(StoreError::Unavailable(_)) if !steps.is_empty() => self.counts.doubt(),
            // Nothing was written.
            Some(_) => {}
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.steps.is_empty() {
            self.counts.doubt();
        }
    }
}

impl State {
    /// Index entries are written once and deleted once: nobody writes one that is there or deletes one that is not.
    fn take(&mut self, step: &Step) {
        let counted = match &self.read {
            Read::Nothing => false,
            Read::UpTo(index, key) => (step.index, &step.key) <= (*index, key),
            Read::Whole(index) => step.index <= *index,
        };
        if counted {
            self.add(step.index, &step.revision, step.added);
        }
    }

    fn add(&mut self, index: usize, revision: &ConfigKey, added: bool) {
        let count = self.counts.entry(revision.clone()).or_default();
        let n = if index == 0 { &mut count.snapshots } else { &mut count.actors };
        *n = if added { *n + 1 } else { n.saturating_sub(1) };
        if *count == Count::default() {
            self.counts.remove(revision);
        }
    }
}

fn step(key: &str, added: bool) -> Option<Step> {
    let index = INDEXES.iter().position(|index| key.starts_with(index))?;
    Some(Step { index, key: key.to_owned(), revision: keys::revision_of(INDEXES[index], key)?, added })
}

/// Counts at the start and after every doubt.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        let counts = &core.db.counts;
        if let Err(e) = count_all(&core).await {
            tracing::warn!(error = %e, "what is in use could not be counted yet");
            counts.doubt.notify_one();
            tokio::select! {
                () = core.stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = counts.doubt.notified() => {}
        }
    }
}

async fn count_all(core: &Core) -> Result<(), Error> {
    let counts = &core.db.counts;
    {
        let _closed = counts.gate.write().await;
        *counts.state() = State::default();
    }
    for (index, prefix) in INDEXES.into_iter().enumerate() {
        let mut after: Option<String> = None;
        loop {
            let _closed = counts.gate.write().await;
            let page = core.db.page(prefix, after.as_deref(), SCAN_PAGE).await?;
            let full = page.len() == SCAN_PAGE;
            let mut state = counts.state();
            for (key, _) in &page {
                match keys::revision_of(prefix, key) {
                    Some(revision) => state.add(index, &revision, true),
                    None => tracing::error!(key, "unreadable entry in an index"),
                }
            }
            match page.into_iter().next_back() {
                Some((last, _)) if full => {
                    state.read = Read::UpTo(index, last.clone());
                    after = Some(last);
                }
                _ => {
                    state.read = Read::Whole(index);
                    break;
                }
            }
        }
    }
    // Under the lock, so that a doubt comes before it or after it.
    let state = counts.state();
    if !state.doubted {
        counts.complete.send_replace(true);
    }
    drop(state);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(name: &str, added: bool) -> Step {
        step(&format!("by-config/c/0000000001/{name}"), added).unwrap()
    }

    fn of(state: &State) -> (u64, u64) {
        let count = state.counts.values().next().copied().unwrap_or_default();
        (count.snapshots, count.actors)
    }

    #[test]
    fn a_commit_during_a_count_is_counted_by_itself_or_with_its_page_and_never_twice() {
        let mut state = State::default();
        state.take(&snapshot("b", true));
        assert_eq!(of(&state), (0, 0), "a page to come has it");
        // That page, and then one commit before its end and one beyond.
        let b = snapshot("b", true);
        state.add(b.index, &b.revision, true);
        state.read = Read::UpTo(b.index, b.key);
        state.take(&snapshot("a", true));
        state.take(&snapshot("c", true));
        state.take(&snapshot("b", false));
        assert_eq!(of(&state), (1, 0));
        let actor = step("needed-by/c/0000000001/default/x", true).unwrap();
        state.read = Read::Whole(0);
        state.take(&actor);
        state.take(&snapshot("d", true));
        assert_eq!(of(&state), (2, 0), "the other index is still to come");
        state.read = Read::Whole(1);
        state.take(&actor);
        assert_eq!(of(&state), (2, 1));
    }

    #[tokio::test]
    async fn a_commit_of_which_nobody_knows_leaves_a_doubt() {
        let counts = Counts::default();
        let tx = || Transaction::new().put("by-config/c/0000000001/a", &b""[..]).delete("actor/default/x");
        counts.complete.send_replace(true);
        counts.begin(&Transaction::new().put("actor/default/x", &b""[..])).await.end(None);
        counts.begin(&tx()).await.end(Some(&StoreError::Full));
        assert!(*counts.complete.borrow());
        drop(counts.begin(&tx()).await);
        assert!(!*counts.complete.borrow(), "the caller went away in the middle");
        counts.complete.send_replace(true);
        counts.begin(&tx()).await.end(Some(&StoreError::Unavailable(String::new())));
        assert!(!*counts.complete.borrow());
        let e = counts.all(Duration::ZERO).await.unwrap_err();
        assert_eq!(e.reason, Reason::Unavailable);
    }
}
