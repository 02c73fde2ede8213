//! The asset cache on disk. All calls block.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use ate_api::id::Digest;
use ate_failpoint::step_now;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use super::{
    AssetError,
    archive::{self, Listing},
    stamp::Stamp,
};
use crate::{disk, unpack::UnpackError};

/// Verified, so everybody may execute it; nobody may change it.
const PROGRAM_MODE: u32 = 0o555;
/// Not verified yet: nobody but the node, and not executable.
const UNVERIFIED_MODE: u32 = 0o600;

/// What is remembered of a verified file, beside it rather than in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) size: u64,
    pub(super) media_type: String,
    pub(super) stamp: Stamp,
}

pub(super) struct Store {
    root: PathBuf,
}

impl Store {
    pub(super) fn open(root: &Path) -> Result<Self, AssetError> {
        let failed = |e: io::Error| AssetError::io("cache", "opening the asset cache", root, e);
        disk::private_dir(root).map_err(failed)?;
        let store = Store { root: root.canonicalize().map_err(failed)? };
        store.protect()?;
        disk::clear(&store.tmp()).map_err(failed)?;
        Ok(store)
    }

    /// Whether nobody else can put anything in the place of what is here. One `stat` per directory.
    pub(super) fn is_protected(&self) -> bool {
        self.dirs().all(|dir| disk::is_private_dir(&dir))
    }

    /// Makes it so, or says which directory somebody else has in hand.
    fn protect(&self) -> Result<(), AssetError> {
        let foreign = |dir: &Path, e: &io::Error| AssetError::Foreign { dir: dir.to_owned(), message: e.to_string() };
        self.dirs().try_for_each(|dir| disk::private_dir(&dir).map_err(|e| foreign(&dir, &e)))
    }

    fn dirs(&self) -> impl Iterator<Item = PathBuf> {
        let below = ["files", "trees", "stamps", "partial", "imported", "quarantine", "tmp"];
        std::iter::once(self.root.clone()).chain(below.map(|dir| self.root.join(dir)))
    }

    fn at(&self, dir: &str, digest: &Digest) -> PathBuf {
        self.root.join(dir).join(format!("sha256-{digest}"))
    }

    pub(super) fn file(&self, digest: &Digest) -> PathBuf {
        self.at("files", digest)
    }

    pub(super) fn tree(&self, digest: &Digest) -> PathBuf {
        self.at("trees", digest)
    }

    pub(super) fn partial(&self, digest: &Digest) -> PathBuf {
        self.at("partial", digest)
    }

    /// Where an import stays, so that its url does.
    pub(super) fn imported(&self, digest: &Digest) -> PathBuf {
        self.at("imported", digest)
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn record_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("stamps").join(format!("sha256-{digest}.json"))
    }

    fn listing_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("stamps").join(format!("sha256-{digest}.tree.json"))
    }

    /// Digests that have a record.
    pub(super) fn recorded(&self) -> io::Result<Vec<Digest>> {
        let names = fs::read_dir(self.root.join("stamps"))?.map(|e| e.map(|e| e.file_name()));
        let digest =
            |name: std::ffi::OsString| Digest::parse(name.to_str()?.strip_prefix("sha256-")?.strip_suffix(".json")?);
        names.map(|n| n.map(digest)).filter_map(Result::transpose).collect()
    }

    /// An unreadable record is none: the file is then verified again.
    pub(super) fn record(&self, digest: &Digest) -> Option<Record> {
        read_json(&self.record_path(digest))
    }

    pub(super) fn listing(&self, digest: &Digest) -> Option<Listing> {
        read_json(&self.listing_path(digest))
    }

    /// Gives verified bytes their name and mode and remembers what they look like. `from` is on the same file
    /// system and was written through `file`.
    pub(super) fn publish(
        &self,
        name: &str,
        digest: &Digest,
        media_type: &str,
        from: &Path,
        file: &File,
    ) -> Result<Record, AssetError> {
        let path = self.file(digest);
        let failed = |e: io::Error| AssetError::io(name, "storing", &path, e);
        file.set_permissions(fs::Permissions::from_mode(PROGRAM_MODE)).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        step_now!("asset.publish", fs::rename(from, &path)).map_err(failed)?;
        disk::sync_dir(&self.root.join("files")).map_err(failed)?;
        self.remember(name, digest, media_type, &file.metadata().map_err(failed)?)
    }

    fn remember(
        &self,
        name: &str,
        digest: &Digest,
        media_type: &str,
        meta: &fs::Metadata,
    ) -> Result<Record, AssetError> {
        let record = Record { size: meta.len(), media_type: media_type.to_owned(), stamp: Stamp::of(meta) };
        step_now!("asset.record", self.write_json(name, &self.record_path(digest), &record))?;
        Ok(record)
    }

    /// Hashes a stored file again. `None` when it is absent or not what its name says; then it is out of the way.
    pub(super) fn verify_again(
        &self,
        name: &str,
        digest: &Digest,
        media_type: &str,
    ) -> Result<Option<Record>, AssetError> {
        self.protect()?;
        let path = self.file(digest);
        let failed = |e: io::Error| AssetError::io(name, "verifying", &path, e);
        let why = match self.open_stored(&path) {
            Ok(None) => return Ok(None),
            Ok(Some(mut file)) => {
                let before = Stamp::of(&file.metadata().map_err(failed)?);
                let (actual, _) = hash(&mut file).map_err(failed)?;
                let meta = file.metadata().map_err(failed)?;
                if actual == *digest && before == Stamp::of(&meta) {
                    file.set_permissions(fs::Permissions::from_mode(PROGRAM_MODE)).map_err(failed)?;
                    return self.remember(name, digest, media_type, &file.metadata().map_err(failed)?).map(Some);
                }
                format!("its digest is now sha256:{actual}")
            }
            Err(e) => e.to_string(),
        };
        tracing::error!(asset = name, path = %path.display(), why, "a stored asset changed on disk; quarantined");
        self.quarantine("files", digest).map_err(failed)?;
        disk::remove(&self.record_path(digest)).map_err(failed)?;
        Ok(None)
    }

    /// A regular file of ours, not a symlink to something else.
    fn open_stored(&self, path: &Path) -> io::Result<Option<File>> {
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let meta = file.metadata()?;
        let ours = meta.uid() == rustix::process::geteuid().as_raw();
        if !meta.is_file() || !ours {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a file of the node"));
        }
        Ok(Some(file))
    }

    fn quarantine(&self, dir: &str, digest: &Digest) -> io::Result<()> {
        let to = self.root.join("quarantine").join(format!("{dir}-{digest}"));
        disk::remove(&to)?;
        match fs::rename(self.at(dir, digest), to) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// The unfinished download, to append to.
    pub(super) fn open_partial(&self, digest: &Digest) -> io::Result<File> {
        let flags = OFlags::NOFOLLOW.bits() as i32;
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(UNVERIFIED_MODE).custom_flags(flags);
        options.open(self.partial(digest))
    }

    /// Unpacks a verified archive and remembers what the directory looks like.
    pub(super) fn unpack(&self, name: &str, digest: &Digest) -> Result<Listing, AssetError> {
        let tree = self.tree(digest);
        let failed = |e: io::Error| AssetError::io(name, "unpacking into", &tree, e);
        let archive = File::open(self.file(digest)).map_err(failed)?;
        let tmp = tempfile::tempdir_in(self.tmp()).map_err(failed)?;
        archive::unpack(archive, tmp.path()).map_err(|e| match e {
            UnpackError::Invalid(message) => {
                AssetError::ArchiveInvalid { name: name.to_owned(), digest: digest.clone(), message }
            }
            UnpackError::Io(e) => failed(e),
        })?;
        fs::set_permissions(tmp.path(), fs::Permissions::from_mode(0o755)).map_err(failed)?;
        if tree.exists() {
            tracing::error!(asset = name, path = %tree.display(), "an unpacked asset changed on disk; quarantined");
            self.quarantine("trees", digest).map_err(failed)?;
        }
        step_now!("asset.tree", fs::rename(tmp.path(), &tree)).map_err(failed)?;
        disk::sync_dir(&self.root.join("trees")).map_err(failed)?;
        let listing = archive::list(&tree).map_err(failed)?;
        step_now!("asset.listing", self.write_json(name, &self.listing_path(digest), &listing))?;
        Ok(listing)
    }

    fn write_json(&self, name: &str, path: &Path, value: &impl Serialize) -> Result<(), AssetError> {
        let failed = |e: io::Error| AssetError::io(name, "writing", path, e);
        let bytes = serde_json::to_vec(value).map_err(|e| failed(e.into()))?;
        disk::write_durably(path, &bytes, &self.tmp()).map_err(failed)
    }

    /// Forgets an asset and its bytes, the import included.
    pub(super) fn remove(&self, digest: &Digest) -> Result<(), AssetError> {
        let paths = [
            self.record_path(digest),
            self.listing_path(digest),
            self.file(digest),
            self.tree(digest),
            self.partial(digest),
            self.imported(digest),
        ];
        paths.iter().try_for_each(|p| disk::remove(p).map_err(|e| AssetError::io("cache", "removing", p, e)))
    }

    pub(super) fn remove_import(&self, digest: &Digest) -> Result<(), AssetError> {
        let path = self.imported(digest);
        disk::remove(&path).map_err(|e| AssetError::io("cache", "removing", &path, e))
    }

    /// Digests below a directory whose names were given at least `age` ago.
    pub(super) fn older(&self, dir: &str, age: Duration) -> io::Result<Vec<Digest>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.root.join(dir))? {
            let entry = entry?;
            let digest = entry.file_name().to_str().and_then(|n| Digest::parse(n.strip_prefix("sha256-")?));
            let old = SystemTime::now().duration_since(entry.metadata()?.modified()?).unwrap_or_default() >= age;
            found.extend(digest.filter(|_| old));
        }
        Ok(found)
    }

    /// Empties the quarantine of what is older than `age`: it is for people who want to look.
    pub(super) fn clear_quarantine(&self, age: Duration) -> io::Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        for entry in fs::read_dir(self.root.join("quarantine"))? {
            let entry = entry?;
            // The time of change, which is when it was put there.
            let since = Duration::from_secs(entry.metadata()?.ctime().max(0) as u64);
            if now.saturating_sub(since) >= age {
                disk::remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Digest and size of what is left in a file.
pub(super) fn hash(file: &mut File) -> io::Result<(Digest, u64)> {
    let (state, size) = hash_state(file)?;
    Ok((Digest::from_bytes(state.finalize().into()), size))
}

/// The same, to go on with.
pub(super) fn hash_state(file: &mut File) -> io::Result<(Sha256, u64)> {
    let (mut state, mut size, mut buf) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buf) {
            Ok(0) => return Ok((state, size)),
            Ok(n) => {
                state.update(&buf[..n]);
                size += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
