//! The node's own list of binaries that must not run any more: a small file, so that it holds over restarts and when the
//! control plane is away.
//!
//! Whoever prepares, starts or probes anything asks here, twice: when the paths of the binaries are looked up
//! ([`crate::workers::Verified`]), and in the worker's task, one step before its herder is told. So once a list is in force
//! and every worker's task has taken a turn, what has not begun never will.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use ate_api::{Error, Reason, id::Digest};
use ate_sandbox::{Revocations, SandboxRef};
use tokio::sync::watch;

use crate::disk;

const FILE: &str = "revoked.json";
/// Twice what the largest list takes.
const MAX_BYTES: u64 = 4 << 20;

#[derive(Clone)]
pub(crate) struct Revoked(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    list: watch::Sender<List>,
    /// One list at a time is written.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
enum List {
    Known(Arc<Revocations>),
    /// Then nothing runs before the control plane has told us.
    Unreadable(String),
}

impl Revoked {
    /// Reads the list below a directory; none is an empty one. Blocks, for a moment.
    pub(crate) fn open(dir: &Path) -> Self {
        let list = read(&dir.join(FILE)).map_or_else(
            |why| {
                tracing::error!(
                    "the list of revoked binaries cannot be read, nothing runs until it is sent anew: {why}"
                );
                List::Unreadable(why)
            },
            |list| List::Known(Arc::new(list)),
        );
        let writing = tokio::sync::Mutex::default();
        Revoked(Arc::new(Inner { dir: dir.to_owned(), list: watch::Sender::new(list), writing }))
    }

    /// Whether everything this sandbox runs may still run.
    pub(crate) fn check(&self, sandbox: &SandboxRef) -> Result<(), Error> {
        self.known()?.check(sandbox)
    }

    /// The same for binaries of which only the digests are known.
    pub(crate) fn check_digests(&self, digests: &[Digest]) -> Result<(), Error> {
        if !self.known()?.touches(digests) {
            return Ok(());
        }
        Err(Error::new(Reason::AssetRevoked, "a binary of this sandbox was revoked and may not run any more"))
    }

    /// Whether any of these is known to be revoked.
    pub(crate) fn touches<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) -> bool {
        match &*self.0.list.borrow() {
            List::Known(list) => list.touches(digests),
            List::Unreadable(_) => false,
        }
    }

    fn known(&self) -> Result<Arc<Revocations>, Error> {
        match &*self.0.list.borrow() {
            List::Known(list) => Ok(list.clone()),
            List::Unreadable(why) => {
                let message = format!("the node's list of revoked binaries cannot be read: {why}");
                Err(Error::new(Reason::Unavailable, message).hint("the control plane sends it anew; try again"))
            }
        }
    }

    /// Takes a list over: durable first, then in force. An older one than ours is refused.
    pub(crate) async fn set(&self, list: Revocations) -> Result<(), Error> {
        list.validate()?;
        let _turn = self.0.writing.lock().await;
        if let Ok(ours) = self.known() {
            if list == *ours {
                return Ok(());
            }
            if list.version <= ours.version {
                let message = format!("list {} of revoked binaries is not later than {}", list.version, ours.version);
                return Err(Error::new(Reason::Fenced, message));
            }
        }
        let (dir, text) = (self.0.dir.clone(), serde_json::to_vec(&list));
        let text = text.map_err(|e| Error::new(Reason::Internal, format!("the list cannot be written: {e}")))?;
        let written = tokio::task::spawn_blocking(move || disk::write_durably(&dir.join(FILE), &text, &dir)).await;
        written.map_err(std::io::Error::other).flatten().map_err(|e| {
            let reason = if disk::is_full(&e) { Reason::DiskFull } else { Reason::Unavailable };
            Error::new(reason, format!("cannot write {}: {e}", self.0.dir.join(FILE).display()))
        })?;
        self.0.list.send_replace(List::Known(Arc::new(list)));
        Ok(())
    }

    /// Wakes up when another list is in force.
    pub(crate) fn changes(&self) -> Changes {
        Changes(self.0.list.subscribe())
    }
}

pub(crate) struct Changes(watch::Receiver<List>);

impl Changes {
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

fn read(file: &Path) -> Result<Revocations, String> {
    let open = match fs::File::open(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Revocations::default()),
        opened => opened.map_err(|e| e.to_string())?,
    };
    let mut text = Vec::new();
    open.take(MAX_BYTES).read_to_end(&mut text).map_err(|e| e.to_string())?;
    let list: Revocations = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    list.validate().map_err(|e| e.message)?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ate_sandbox::Revocation;

    use super::*;

    fn list(version: u64, digests: &[&str]) -> Revocations {
        let revocation = || Revocation { reason: "CVE".into(), at: ate_api::time::now() };
        let digests: BTreeMap<_, _> = digests.iter().map(|d| (Digest::of(d.as_bytes()), revocation())).collect();
        Revocations { version, digests }
    }

    fn refused(revoked: &Revoked, name: &str) -> bool {
        revoked.check_digests(&[Digest::of(name.as_bytes())]).is_err_and(|e| e.reason == Reason::AssetRevoked)
    }

    #[tokio::test]
    async fn a_list_holds_over_a_restart_and_only_a_later_one_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let revoked = Revoked::open(dir.path());
        assert!(!refused(&revoked, "a"));
        let second = list(2, &["a"]);
        revoked.set(second.clone()).await.unwrap();
        revoked.set(second).await.unwrap();
        for older in [list(1, &[]), list(2, &[])] {
            assert_eq!(revoked.set(older).await.unwrap_err().reason, Reason::Fenced);
        }
        drop(revoked);
        let revoked = Revoked::open(dir.path());
        assert!(refused(&revoked, "a") && !refused(&revoked, "b"));
        revoked.set(list(3, &["b"])).await.unwrap();
        assert!(!refused(&revoked, "a") && refused(&revoked, "b"));
        let files = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files, 1, "nothing is left beside the list");
    }

    #[tokio::test]
    async fn with_a_list_that_cannot_be_read_nothing_runs_until_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{\"version\": 3").unwrap();
        let revoked = Revoked::open(dir.path());
        assert_eq!(revoked.check_digests(&[Digest::of(b"a")]).unwrap_err().reason, Reason::Unavailable);
        revoked.set(list(1, &[])).await.unwrap();
        assert_eq!(revoked.check_digests(&[Digest::of(b"a")]), Ok(()));
    }

    #[tokio::test]
    async fn a_list_that_cannot_be_written_is_not_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let revoked = Revoked::open(dir.path());
        fs::remove_dir(dir.path()).unwrap();
        assert_eq!(revoked.set(list(1, &["a"])).await.unwrap_err().reason, Reason::Unavailable);
        assert!(!refused(&revoked, "a"));
        fs::create_dir(dir.path()).unwrap();
        revoked.set(list(1, &["a"])).await.unwrap();
        assert!(refused(&revoked, "a"));
    }
}
