//! Snapshots on this node: where a driver writes one, and from where it restores one.
//!
//! ```text
//! ROOT/{manifest digest}/manifest.json   the stored bytes, as their digest names them
//!                        stamps.json     what each file looked like when it was last hashed
//!                        files/          exactly the files of the manifest, given to the driver as they are
//! ROOT/.staging/{id}/files/              being written; gone after a crash
//! ROOT/.trash/{id}                       being removed
//! ROOT/.quarantine/{id}-{digest}         failed verification; kept for people to look at, a few at most
//! ```
//!
//! A snapshot appears under its digest by one rename, after all of it is durable, and disappears by one rename.
//! The directory has one owner, the node agent; nobody else writes below it.

mod quarantine;
mod single_flight;
mod snapshot;
mod staging;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use ate_api::id::{Digest, Uid};
use ate_failpoint::step_now;

use self::{single_flight::Fetches, snapshot::Problem};
pub use self::{
    snapshot::LocalSnapshot,
    staging::{DriverFile, Staging},
};
use crate::{
    Error, Manifest, blocking,
    files::{self, absent_is_fine},
};

const STAGING: &str = ".staging";
const TRASH: &str = ".trash";

/// The snapshots below one directory. Clones are the same.
#[derive(Clone, Debug)]
pub struct LocalSnapshots {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    fetches: Fetches,
}

/// One snapshot that is there, not verified by looking at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalEntry {
    pub digest: Digest,
    /// Since it was written, fetched or last hashed.
    pub age: Duration,
}

impl LocalSnapshots {
    /// Takes possession of a directory: creates it if need be and clears what a crash left half-written.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let root: PathBuf = root.into();
        blocking::run(move || {
            let root = std::path::absolute(&root).map_err(|e| Error::io("find", &root, &e))?;
            files::create_root(&root)?;
            for name in [STAGING, TRASH] {
                let dir = root.join(name);
                absent_is_fine(fs::remove_dir_all(&dir)).map_err(|e| Error::io("clear", &dir, &e))?;
                files::create_dir_all(&dir)?;
            }
            Ok(LocalSnapshots { inner: Arc::new(Inner { root, fetches: Fetches::default() }) })
        })
        .await
    }

    /// An empty directory for a driver to write a snapshot into.
    pub async fn staging(&self) -> Result<Staging, Error> {
        let dir = self.inner.root.join(STAGING).join(Uid::generate().as_str());
        blocking::run(move || Staging::create(dir)).await
    }

    /// Makes a sealed staging directory the snapshot its manifest describes. When this returns, the snapshot is
    /// durable on this node. Adopting the same snapshot twice is fine.
    pub async fn adopt(&self, staging: Staging, manifest: &Manifest) -> Result<LocalSnapshot, Error> {
        manifest.check()?;
        let snapshot = self.put_in_place(staging, manifest.clone(), manifest.to_bytes()).await?;
        blocking::run(move || {
            // All at the end, so that one commit of the file system's journal serves them all. A crash in between
            // leaves what verification finds damaged; nobody was told of it.
            step_now!("local.durable", snapshot.make_durable())?;
            Ok(snapshot)
        })
        .await
    }

    /// The same for a manifest that was fetched: its bytes are kept as they are. A copy that a crash may take is good
    /// enough, because there is another; on the way to a resume there is no time to wait for the disk.
    pub(crate) async fn adopt_fetched(
        &self,
        staging: Staging,
        manifest: Manifest,
        bytes: Vec<u8>,
    ) -> Result<LocalSnapshot, Error> {
        self.put_in_place(staging, manifest, bytes).await
    }

    async fn put_in_place(
        &self,
        mut staging: Staging,
        manifest: Manifest,
        bytes: Vec<u8>,
    ) -> Result<LocalSnapshot, Error> {
        staging.matches(&manifest)?;
        let digest = Digest::of(&bytes);
        let snapshot = LocalSnapshot::new(self.dir_of(&digest), digest.clone(), manifest, bytes);
        loop {
            let (dir, candidate) = (self.dir_of(&digest), snapshot.clone());
            let taken;
            (staging, taken) = blocking::run(move || {
                staging.complete(candidate.manifest_bytes())?;
                match step_now!("local.place", staging.rename_to(&dir)) {
                    Ok(()) => Ok((staging, false)),
                    Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok((staging, true)),
                    Err(e) => Err(Error::io("put in place", &dir, &e)),
                }
            })
            .await?;
            if !taken {
                return Ok(snapshot);
            }
            // What is there already is as good, unless it is damaged; then `get` has put it out of the way.
            match self.get(&digest).await {
                Err(Error::NotFound(_) | Error::Corrupt { .. }) => {}
                found => return found,
            }
        }
    }

    /// The snapshot with this manifest digest, verified. Files that look as they did when they were last hashed
    /// are not hashed again. A damaged snapshot is put aside and reported once as damaged, then as not there.
    pub async fn get(&self, digest: &Digest) -> Result<LocalSnapshot, Error> {
        let dir = self.dir_of(digest);
        match snapshot::verify(dir.clone(), digest.clone()).await {
            Ok(snapshot) => Ok(snapshot),
            Err(Problem::Failed(e)) => Err(e),
            Err(Problem::Damaged(problem)) => {
                let (root, snapshot) = (self.inner.root.clone(), digest.clone());
                tracing::warn!(%snapshot, problem, "snapshot is damaged, putting it aside");
                blocking::run(move || {
                    // What is gone by now was removed while we looked, or put aside by another caller.
                    match quarantine::put_aside(&root, &dir, &snapshot)? {
                        true => Err(Error::Corrupt { snapshot, problem }),
                        false => Err(Error::NotFound(format!("no copy of {snapshot} on this node"))),
                    }
                })
                .await
            }
        }
    }

    /// Removes a snapshot. Absent is fine.
    pub async fn remove(&self, digest: &Digest) -> Result<(), Error> {
        let (dir, trash) = (self.dir_of(digest), self.inner.root.join(TRASH).join(Uid::generate().as_str()));
        blocking::run(move || {
            let renamed = step_now!("local.trash", fs::rename(&dir, &trash));
            let removed = renamed.and_then(|()| fs::remove_dir_all(&trash));
            absent_is_fine(removed).map_err(|e| Error::io("remove", &dir, &e))
        })
        .await
    }

    /// Every snapshot on the node.
    pub async fn list(&self) -> Result<Vec<LocalEntry>, Error> {
        let root = self.inner.root.clone();
        blocking::run(move || {
            let names = files::entries(&root)?;
            Ok(names
                .iter()
                .filter_map(|name| Some((Digest::parse(name)?, age_of(&root.join(name))?)))
                .map(entry)
                .collect())
        })
        .await
    }

    /// Removes what nobody references, if it is at least this old: a snapshot is here before it is referenced.
    pub async fn collect(&self, live: &HashSet<Digest>, min_age: Duration) -> Result<Vec<Digest>, Error> {
        let mut removed = Vec::new();
        for LocalEntry { digest, age } in self.list().await? {
            if age >= min_age && !live.contains(&digest) {
                self.remove(&digest).await?;
                removed.push(digest);
            }
        }
        Ok(removed)
    }

    /// Lets many callers share one fetch of a snapshot; see [`Fetches`].
    pub(crate) async fn share_fetch<F>(&self, digest: &Digest, fetch: F) -> Result<LocalSnapshot, Error>
    where
        F: Future<Output = Result<LocalSnapshot, Error>> + Send + 'static,
    {
        self.inner.fetches.share(digest, fetch).await
    }

    fn dir_of(&self, digest: &Digest) -> PathBuf {
        self.inner.root.join(digest.as_str())
    }
}

fn entry((digest, age): (Digest, Duration)) -> LocalEntry {
    LocalEntry { digest, age }
}

/// A clock that was set back makes a file look new, which is the safe side.
fn age_of(path: &Path) -> Option<Duration> {
    let modified = fs::symlink_metadata(path).and_then(|m| m.modified()).ok()?;
    Some(SystemTime::now().duration_since(modified).unwrap_or_default())
}
