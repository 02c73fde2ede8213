//! A snapshot while it is being written.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use futures::join;

use super::snapshot::{FILES, Stamps, write_stamps};
use crate::{
    Error, Manifest, blocking,
    files::{self, Stamp, absent_is_fine},
    manifest::{File, MANIFEST_NAME, check::is_plain_name},
};

/// One file a driver says it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverFile {
    pub name: String,
    pub media_type: String,
}

/// A directory being filled. It goes away when this is dropped, unless it was adopted.
#[derive(Debug)]
pub struct Staging {
    dir: PathBuf,
    files_dir: PathBuf,
    sealed: BTreeMap<String, (File, Stamp)>,
    adopted: bool,
}

impl Staging {
    pub(super) fn create(dir: PathBuf) -> Result<Self, Error> {
        let files_dir = dir.join(FILES);
        for path in [&dir, &files_dir] {
            fs::DirBuilder::new().mode(0o700).create(path).map_err(|e| Error::io("create", path, &e))?;
        }
        Ok(Staging { dir, files_dir, sealed: BTreeMap::new(), adopted: false })
    }

    /// Where the files go: empty, mode 0700.
    pub fn dir(&self) -> &Path {
        self.files_dir.as_path()
    }

    /// Hashes the files, makes them durable and read-only, and refuses a directory that holds anything else.
    /// `encoding` is how they will be stored, [`crate::Prefix::encoding`].
    pub async fn seal(&mut self, driver_files: &[DriverFile], encoding: Option<&str>) -> Result<Vec<File>, Error> {
        let dir = self.files_dir.clone();
        let found = blocking::run(move || files::entries(&dir)).await?;
        let named: BTreeSet<&str> = driver_files.iter().map(|f| f.name.as_str()).collect();
        if named.len() != driver_files.len() {
            return Err(Error::Checkpoint("it names a file twice".to_owned()));
        }
        if let Some(bad) = named.iter().find(|n| !is_plain_name(n)) {
            return Err(Error::Checkpoint(format!("{bad:?} is not a plain file name")));
        }
        let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
        if let Some(name) = found.symmetric_difference(&named).next() {
            let what =
                if named.contains(name) { "names a file that is not there" } else { "left a file it does not name" };
            return Err(Error::Checkpoint(format!("it {what}: {name:?}")));
        }
        let described = driver_files.iter().map(|f| (f.clone(), encoding.map(str::to_owned))).collect();
        let dir = self.files_dir.clone();
        let sealed = blocking::run_each(described, move |(file, encoding): (DriverFile, Option<String>)| {
            seal_file(&dir, file, encoding)
        });
        // Writing back and hashing have no need of one another.
        let paths = driver_files.iter().map(|f| self.files_dir.join(&f.name)).collect();
        let synced = blocking::run_each(paths, |path: PathBuf| files::sync_file(&path));
        let (sealed, synced) = join!(sealed, synced);
        // What is no file cannot be synced either; that it is none says more.
        let sealed = sealed?;
        synced?;
        self.sealed = sealed.iter().map(|(file, stamp)| (file.name.clone(), (file.clone(), stamp.clone()))).collect();
        Ok(sealed.into_iter().map(|(file, _)| file).collect())
    }

    /// Takes note of a file that was written, verified and made durable already.
    pub(crate) fn note(&mut self, file: File, stamp: Stamp) {
        self.sealed.insert(file.name.clone(), (file, stamp));
    }

    /// Whether the manifest describes exactly what was sealed.
    pub(super) fn matches(&self, manifest: &Manifest) -> Result<(), Error> {
        let same = manifest.files.len() == self.sealed.len()
            && manifest.files.iter().all(|f| self.sealed.get(&f.name).is_some_and(|(sealed, _)| sealed == f));
        if same { Ok(()) } else { Err(Error::Manifest("its files are not those that were sealed".to_owned())) }
    }

    /// Adds manifest and stamps. Blocks.
    pub(super) fn complete(&self, manifest: &[u8]) -> Result<(), Error> {
        let path = self.dir.join(MANIFEST_NAME);
        fs::write(&path, manifest).map_err(|e| Error::io("write", &path, &e))?;
        let stamps: Stamps = self.sealed.iter().map(|(name, (_, stamp))| (name.clone(), stamp.clone())).collect();
        write_stamps(&self.dir, &stamps)
    }

    /// Gives the directory its place among the snapshots. Blocks.
    pub(super) fn rename_to(&mut self, dir: &Path) -> io::Result<()> {
        fs::rename(&self.dir, dir)?;
        self.adopted = true;
        Ok(())
    }
}

fn seal_file(dir: &Path, file: DriverFile, encoding: Option<String>) -> Result<(File, Stamp), Error> {
    let path = dir.join(&file.name);
    let read = || {
        let (opened, _) = files::open_regular(&path)?;
        files::make_read_only(&opened)?;
        files::hash_file(&path)
    };
    let (size, sha256, stamp) = read().map_err(|e| match e.kind() {
        io::ErrorKind::InvalidInput => Error::Checkpoint(format!("{:?} is not a regular file", file.name)),
        _ => Error::io("hash", &path, &e),
    })?;
    Ok((File { name: file.name, size, sha256, media_type: file.media_type, encoding }, stamp))
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.adopted {
            return;
        }
        let dir = std::mem::take(&mut self.dir);
        let remove = move || {
            if let Err(error) = absent_is_fine(fs::remove_dir_all(&dir)) {
                tracing::warn!(%error, dir = %dir.display(), "cannot remove a staging directory");
            }
        };
        // Large files take a while to remove: not on an async thread.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}
