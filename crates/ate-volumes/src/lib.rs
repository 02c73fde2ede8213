//! Durable directories as one tar archive, written and read wherever they are: beside a herder, or inside a machine.
//!
//! The archive's top-level directories are the volumes' names. An archive comes back as outside data: sizes and
//! counts are capped, only volumes that the workload has are accepted, and nothing lands outside of them.
#![forbid(unsafe_code)]

mod rationed;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Component, Path, PathBuf},
};

use tar::{Archive, Builder, EntryType, HeaderMode};

pub use rationed::{Allowance, Rationed};

/// An archive unpacks to at most this many bytes: a small one may otherwise fill the disk.
pub const MAX_BYTES: u64 = 64 << 30;
pub const MAX_ENTRIES: u64 = 4_000_000;
/// Headers of one entry, which are read into memory. The map of a sparse file takes most: this is enough for a million holes.
const MAX_HEADERS: u64 = 64 << 20;
/// Headers of all directories, which are kept in memory to the end: a million of them.
const MAX_DIRECTORIES: u64 = 512 << 20;
/// Where attributes are in a pax header; the form of GNU tar and star.
const PAX_XATTR: &str = "SCHILY.xattr.";

#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("cannot pack {path}: {cause}")]
    Pack { path: PathBuf, cause: io::Error },
    #[error("cannot unpack the archive of durable directories: {0}")]
    Unpack(io::Error),
    #[error("the archive of durable directories is refused: {0}")]
    Refused(String),
}

impl DataError {
    pub fn is_disk_full(&self) -> bool {
        let (DataError::Pack { cause, .. } | DataError::Unpack(cause)) = self else { return false };
        matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Writes `volumes` (name → directory); gives the writer back, unflushed. Blocks.
pub fn pack<W: io::Write>(volumes: &BTreeMap<String, PathBuf>, to: W) -> Result<W, DataError> {
    let mut tar = Builder::new(to);
    tar.follow_symlinks(false);
    tar.mode(HeaderMode::Complete);
    tar.sparse(true);
    for (name, dir) in volumes {
        pack_tree(&mut tar, dir, Path::new(name))?;
    }
    tar.into_inner().map_err(|cause| DataError::Pack { path: PathBuf::from("the archive's end"), cause })
}

fn pack_tree(tar: &mut Builder<impl io::Write>, path: &Path, name: &Path) -> Result<(), DataError> {
    let wrap = |cause| DataError::Pack { path: path.to_owned(), cause };
    let meta = path.symlink_metadata().map_err(wrap)?;
    if !(meta.is_file() || meta.is_dir() || meta.is_symlink()) {
        return Ok(()); // sockets and pipes mean nothing without their processes; devices are not ours to make
    }
    if !meta.is_symlink() {
        let attributes = attributes(path).map_err(wrap)?;
        if !attributes.is_empty() {
            let pairs = attributes.iter().map(|(k, v)| (k.as_str(), v.as_slice()));
            tar.append_pax_extensions(pairs).map_err(wrap)?;
        }
    }
    tar.append_path_with_name(path, name).map_err(wrap)?;
    if meta.is_dir() {
        let entries = fs::read_dir(path).map_err(wrap)?;
        for entry in entries {
            let entry = entry.map_err(wrap)?;
            pack_tree(tar, &entry.path(), &name.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn attributes(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(e) if e.kind() == io::ErrorKind::Unsupported => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for name in names {
        if let (Some(key), Some(value)) = (name.to_str(), xattr::get(path, &name)?) {
            found.push((format!("{PAX_XATTR}{key}"), value));
        }
    }
    Ok(found)
}

/// Unpacks into `volumes`, which exist and are empty. Blocks.
pub fn unpack(from: impl io::Read, volumes: &BTreeMap<String, PathBuf>) -> Result<(), DataError> {
    let refuse = |why: String| Err(DataError::Refused(why));
    let (from, allowance) = Rationed::new(from);
    let mut tar = Archive::new(from);
    tar.set_preserve_permissions(true);
    tar.set_preserve_ownerships(true);
    tar.set_preserve_mtime(true);
    tar.set_unpack_xattrs(true);
    let (mut bytes, mut entries) = (0u64, 0u64);
    // Directories last, deepest first: writing into them would change their times, or be forbidden.
    let (mut directories, mut kept) = (Vec::new(), 0);
    let mut all = tar.entries().map_err(DataError::Unpack)?;
    loop {
        allowance.at_most(MAX_HEADERS);
        let Some(entry) = all.next() else { break };
        let headers = MAX_HEADERS - allowance.everything();
        let mut entry = entry.map_err(DataError::Unpack)?;
        entries += 1;
        bytes = bytes.saturating_add(entry.size());
        if entries > MAX_ENTRIES || bytes > MAX_BYTES {
            return refuse(format!("more than {MAX_BYTES} bytes or {MAX_ENTRIES} entries"));
        }
        let path = entry.path().map_err(DataError::Unpack)?.into_owned();
        let mut components = path.components();
        let Some(Component::Normal(volume)) = components.next() else {
            return refuse(format!("entry `{}` is not in a volume", path.display()));
        };
        let Some(dir) = volume.to_str().and_then(|v| volumes.get(v)) else {
            return refuse(format!("volume `{}` is not one of this workload", volume.to_string_lossy()));
        };
        let root = dir.parent().unwrap_or(dir);
        if dir.file_name() != Some(volume) {
            return refuse(format!("volume `{}` lies in a directory of another name", volume.to_string_lossy()));
        }
        match entry.header().entry_type() {
            EntryType::Directory => {
                kept += headers;
                if kept > MAX_DIRECTORIES {
                    return refuse(format!("more than {MAX_DIRECTORIES} bytes of headers of directories"));
                }
                directories.push(entry);
            }
            EntryType::Regular
            | EntryType::Continuous
            | EntryType::Link
            | EntryType::Symlink
            | EntryType::GNUSparse => {
                if !entry.unpack_in(root).map_err(DataError::Unpack)? {
                    return refuse(format!("entry `{}` leads outside", path.display()));
                }
            }
            other => return refuse(format!("entry `{}` is of kind {other:?}", path.display())),
        }
    }
    directories.sort_by_key(|d| std::cmp::Reverse(d.path().map(|p| p.components().count()).unwrap_or_default()));
    for mut directory in directories {
        let root = volumes.values().next().and_then(|d| d.parent()).unwrap_or(Path::new("/nonexistent"));
        directory.unpack_in(root).map_err(DataError::Unpack)?;
    }
    Ok(())
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    fn volume(root: &Path, name: &str) -> BTreeMap<String, PathBuf> {
        let dir = root.join(name);
        fs::create_dir_all(&dir).unwrap();
        BTreeMap::from([(name.to_owned(), dir)])
    }

    #[test]
    fn what_was_packed_comes_back_with_modes_links_and_attributes() {
        let temp = tempfile::tempdir().unwrap();
        let from = volume(&temp.path().join("a"), "data");
        let dir = &from["data"];
        fs::create_dir(dir.join("sub")).unwrap();
        fs::write(dir.join("sub/file"), "hello").unwrap();
        fs::set_permissions(dir.join("sub/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::set_permissions(dir.join("sub"), fs::Permissions::from_mode(0o500)).unwrap();
        symlink("/etc/passwd", dir.join("link")).unwrap();
        xattr::set(dir.join("sub/file"), "user.colour", b"green").unwrap();
        fs::File::create(dir.join("hole")).unwrap().set_len(1 << 30).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, dir.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();

        let archive = pack(&from, Vec::new()).unwrap();
        assert!(archive.len() < 1 << 20, "holes are not packed");
        let to = volume(&temp.path().join("b"), "data");
        unpack(&archive[..], &to).unwrap();
        let dir = &to["data"];
        assert_eq!(fs::read_to_string(dir.join("sub/file")).unwrap(), "hello");
        assert_eq!(dir.join("sub/file").metadata().unwrap().permissions().mode() & 0o7777, 0o4751);
        assert_eq!(dir.join("sub").metadata().unwrap().permissions().mode() & 0o7777, 0o500);
        assert_eq!(fs::read_link(dir.join("link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(xattr::get(dir.join("sub/file"), "user.colour").unwrap().unwrap(), b"green");
        assert_eq!(dir.join("hole").metadata().unwrap().len(), 1 << 30);
        assert!(!dir.join("pipe").exists());
    }

    fn hostile(temp: &Path, write: impl FnOnce(&mut Builder<Vec<u8>>)) -> Result<(), DataError> {
        let mut tar = Builder::new(Vec::new());
        write(&mut tar);
        unpack(&tar.into_inner().unwrap()[..], &volume(&temp.join("to"), "data"))
    }

    fn header(kind: EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(size);
        header
    }

    #[test]
    fn nothing_lands_outside_of_the_volumes() {
        let temp = tempfile::tempdir().unwrap();
        let outside = temp.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let through_link = hostile(temp.path(), |tar| {
            tar.append_link(&mut header(EntryType::Symlink, 0), "data/link", &outside).unwrap();
            tar.append_data(&mut header(EntryType::Regular, 1), "data/link/file", &b"x"[..]).unwrap();
        });
        assert!(through_link.is_err());
        let other_volume = hostile(temp.path(), |tar| {
            tar.append_data(&mut header(EntryType::Regular, 1), "other/file", &b"x"[..]).unwrap();
        });
        assert!(matches!(other_volume, Err(DataError::Refused(_))));
        let device = hostile(temp.path(), |tar| {
            tar.append_data(&mut header(EntryType::Char, 0), "data/null", &b""[..]).unwrap();
        });
        assert!(matches!(device, Err(DataError::Refused(_))));
        let dots = hostile(temp.path(), |tar| {
            let mut header = header(EntryType::Regular, 1);
            header.as_gnu_mut().unwrap().name[..18].copy_from_slice(b"data/../../outside");
            header.set_cksum();
            tar.append(&header, &b"x"[..]).unwrap();
        });
        assert!(dots.is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(hostile(temp.path(), |_| ()).is_ok(), "an empty archive is fine");
    }

    #[test]
    fn a_name_without_end_cannot_eat_the_memory() {
        let temp = tempfile::tempdir().unwrap();
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            let mut header = header(kind, 1 << 39);
            header.set_path("data/x").unwrap();
            header.set_cksum();
            let endless = io::Read::chain(header.as_bytes().as_slice(), io::repeat(b'n'));
            let refused = unpack(endless, &volume(&temp.path().join("to"), "data")).unwrap_err();
            assert!(refused.to_string().contains("extension header"), "{kind:?}: {refused}");
        }
    }

    #[test]
    fn an_archive_that_unpacks_to_too_much_is_refused_before_it_does() {
        let temp = tempfile::tempdir().unwrap();
        let bomb = hostile(temp.path(), |tar| {
            let mut header = header(EntryType::Regular, MAX_BYTES + 1);
            header.set_path("data/bomb").unwrap();
            header.set_cksum();
            tar.get_mut().write_all(header.as_bytes()).unwrap();
        });
        assert!(matches!(bomb, Err(DataError::Refused(_))), "{bomb:?}");
    }
}
