//! A folder as object storage: files are hard links to the node-local copy where that is possible.
//!
//! Everything here blocks.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use ate_api::id::{Digest, Uid};
use ate_failpoint::step_now;

use super::{Prefix, Stored, object_name, prefix::Location, receive::receive};
use crate::{
    Error, LocalSnapshot,
    files::{self, Stamp, absent_is_fine},
    manifest::{File, MANIFEST_NAME, MAX_BYTES},
};

/// The folder of one snapshot.
pub(super) struct Place {
    base: PathBuf,
    prefix: Prefix,
}

impl Place {
    pub(super) fn new(prefix: &Prefix) -> Self {
        Place { base: folder(&prefix.location), prefix: prefix.clone() }
    }

    fn dir(&self) -> PathBuf {
        self.base.join(self.prefix.parts().join("/"))
    }

    /// Below the folder of a location everything is ours: no link leads elsewhere, nobody else can change it.
    /// False when the snapshot's folder is not there.
    fn check_dirs(&self) -> Result<bool, Error> {
        let mut dir = self.base.clone();
        for part in self.prefix.parts() {
            dir.push(part);
            let metadata = match fs::symlink_metadata(&dir) {
                Ok(metadata) => metadata,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(e) => return Err(Error::io("look at", &dir, &e)),
            };
            if !metadata.is_dir() || !is_ours(&metadata) {
                return Err(Error::Location {
                    location: self.prefix.to_string(),
                    problem: format!("{} is not a directory that only this node can change", dir.display()),
                });
            }
        }
        Ok(true)
    }

    /// From the snapshot's folder up to that of the location: any of them may be new.
    fn sync_dirs(&self) -> Result<(), Error> {
        let dir = self.dir();
        dir.ancestors().take_while(|d| d.starts_with(&self.base)).try_for_each(files::sync_dir)
    }

    /// Links or copies the files, makes them durable, and only then lets the manifest appear.
    pub(super) fn upload(&self, snapshot: &LocalSnapshot) -> Result<(), Error> {
        let dir = self.dir();
        files::create_root(&self.base)?;
        files::create_dir_all(&dir)?;
        self.check_dirs()?;
        let manifest = dir.join(MANIFEST_NAME);
        if manifest.exists() {
            return self.same_or_fenced(snapshot);
        }
        for file in &snapshot.manifest.files {
            step_now!("upload.file", put_file(snapshot, file, &dir.join(object_name(file))))?;
        }
        self.sync_dirs()?;
        match step_now!("upload.manifest", fs::hard_link(snapshot.manifest_path(), &manifest)) {
            Ok(()) => files::sync_dir(&dir)?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return self.same_or_fenced(snapshot),
            Err(e) if cannot_link(&e) => self.copy_manifest(snapshot, &manifest)?,
            Err(e) => return Err(Error::io("create", &manifest, &e)),
        }
        snapshot.renew_stamps();
        Ok(())
    }

    fn copy_manifest(&self, snapshot: &LocalSnapshot, manifest: &Path) -> Result<(), Error> {
        let new = manifest.with_file_name(temporary());
        files::write_new(&new, snapshot.manifest_bytes())?;
        let linked = fs::hard_link(&new, manifest);
        fs::remove_file(&new).map_err(|e| Error::io("remove", &new, &e))?;
        match linked {
            Ok(()) => files::sync_dir(&self.dir()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.same_or_fenced(snapshot),
            Err(e) => Err(Error::io("create", manifest, &e)),
        }
    }

    fn same_or_fenced(&self, snapshot: &LocalSnapshot) -> Result<(), Error> {
        if self.read_manifest()? == snapshot.manifest_bytes() {
            // Its writer may have stopped just short of this.
            files::sync_dir(&self.dir())?;
            snapshot.renew_stamps();
            return Ok(());
        }
        Err(Error::Fenced(self.prefix.to_string()))
    }

    pub(super) fn has_manifest(&self) -> Result<bool, Error> {
        Ok(self.check_dirs()? && self.dir().join(MANIFEST_NAME).exists())
    }

    /// The stored bytes, capped and not verified.
    pub(super) fn read_manifest(&self) -> Result<Vec<u8>, Error> {
        let path = self.dir().join(MANIFEST_NAME);
        let not_found = || Error::NotFound(format!("no manifest at {}", self.prefix));
        if !self.check_dirs()? {
            return Err(not_found());
        }
        match files::read_small(&path, MAX_BYTES) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(Error::ManifestTooLarge { limit: MAX_BYTES }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(not_found()),
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                Err(Error::Manifest(format!("{} is {e}", path.display())))
            }
            Err(e) => Err(Error::io("read", &path, &e)),
        }
    }

    /// Brings one file to `path`, by a link if nobody else can write to it, and verifies it.
    pub(super) fn fetch_file(&self, snapshot: &Digest, file: &File, path: &Path) -> Result<Stamp, Error> {
        let stored = self.dir().join(object_name(file));
        let (reader, metadata) = files::open_regular(&stored).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::InvalidInput => {
                Error::Corrupt { snapshot: snapshot.clone(), problem: format!("{}: {e}", file.name) }
            }
            _ => Error::io("read", &stored, &e),
        })?;
        let linked = file.encoding.is_none() && is_ours(&metadata) && fs::hard_link(&stored, path).is_ok();
        if !linked {
            return receive(snapshot, file, reader, path);
        }
        let (size, sha256, stamp) = files::hash_file(path).map_err(|e| Error::io("hash", path, &e))?;
        if (size, &sha256) != (file.size, &file.sha256) {
            let problem = format!("{} has {size} bytes with digest {sha256}", file.name);
            return Err(Error::Corrupt { snapshot: snapshot.clone(), problem });
        }
        Ok(stamp)
    }

    /// The manifest goes first, durably: what is half-deleted is never complete.
    pub(super) fn delete(&self) -> Result<(), Error> {
        if !self.check_dirs()? {
            return Ok(());
        }
        let dir = self.dir();
        let manifest = dir.join(MANIFEST_NAME);
        let removed = step_now!("erase.manifest", absent_is_fine(fs::remove_file(&manifest)));
        removed.map_err(|e| Error::io("remove", &manifest, &e))?;
        files::sync_dir(&dir)?;
        let removed = step_now!("erase.files", absent_is_fine(fs::remove_dir_all(&dir)));
        removed.map_err(|e| Error::io("remove", &dir, &e))?;
        // The actor's folder goes with its last snapshot; that it is not empty is the usual case.
        dir.parent().map(fs::remove_dir);
        Ok(())
    }
}

/// Every snapshot below a location.
pub(super) fn list(location: &Location) -> Result<Vec<Stored>, Error> {
    let actors = folder(location).join("actors");
    if !actors.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for actor in files::entries(&actors)? {
        let Ok(numbers) = files::entries(&actors.join(&actor)) else { continue };
        for prefix in numbers.iter().filter_map(|n| Prefix::from_parts(location, &actor, n)) {
            let place = Place::new(&prefix);
            let Ok(modified) = fs::symlink_metadata(place.dir()).and_then(|m| m.modified()) else { continue };
            let age = SystemTime::now().duration_since(modified).unwrap_or(Duration::ZERO);
            match place.has_manifest() {
                Ok(complete) => found.push(Stored { prefix, complete, age }),
                Err(error) => tracing::warn!(%error, %prefix, "passing over a snapshot that cannot be looked at"),
            }
        }
    }
    Ok(found)
}

/// Removes actors' folders that are empty for as long: whoever made or emptied one may have died over it.
pub(super) fn remove_empty(location: &Location, min_age: Duration) -> Result<(), Error> {
    let actors = folder(location).join("actors");
    for actor in if actors.exists() { files::entries(&actors)? } else { Vec::new() } {
        let dir = actors.join(&actor);
        let modified = fs::symlink_metadata(&dir).and_then(|m| m.modified());
        let old = modified.is_ok_and(|m| SystemTime::now().duration_since(m).is_ok_and(|age| age >= min_age));
        // Fails for those that are not empty, which is the usual case.
        if old && Uid::parse(&actor).is_some() {
            let _ = fs::remove_dir(&dir);
        }
    }
    Ok(())
}

fn folder(location: &Location) -> PathBuf {
    location.url().to_file_path().expect("it was checked when it was parsed")
}

fn put_file(snapshot: &LocalSnapshot, file: &File, target: &Path) -> Result<(), Error> {
    let source = snapshot.files_dir().join(&file.name);
    let fail = |e: &io::Error| Error::io("link", target, e);
    match fs::hard_link(&source, target) {
        Ok(()) => return Ok(()),
        // Left by an earlier attempt, or another file of the snapshot with the same bytes.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let here = files::open_regular(&source).map_err(|e| fail(&e))?.1;
            let there = fs::symlink_metadata(target).map_err(|e| fail(&e))?;
            if (here.dev(), here.ino()) == (there.dev(), there.ino()) {
                return Ok(());
            }
        }
        Err(e) if cannot_link(&e) => {}
        Err(e) => return Err(fail(&e)),
    }
    let new = target.with_file_name(temporary());
    let plain = File { encoding: None, ..file.clone() };
    let reader = files::open_regular(&source).map_err(|e| Error::io("read", &source, &e))?.0;
    receive(&snapshot.digest, &plain, reader, &new)?;
    fs::rename(&new, target).map_err(|e| fail(&e))
}

/// Another file system, one without hard links, or too many of them.
fn cannot_link(e: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(e.kind(), K::CrossesDevices | K::PermissionDenied | K::TooManyLinks | K::Unsupported)
}

fn is_ours(metadata: &fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}

/// Not a digest, so never taken for an object.
fn temporary() -> String {
    format!(".{}", Uid::generate())
}
