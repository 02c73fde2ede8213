//! What the binaries of a machine looked like when a call came, which is when the node had just looked at them. A call may
//! launch several machines and take seconds; each launch looks again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ate_api::{Error, Reason};
use ateom::program::Look;

/// Every name of a bundle, and the files beside it.
#[derive(Debug, Clone)]
pub(crate) struct Seen(Vec<(PathBuf, Look)>);

impl Seen {
    /// One `stat` a name.
    pub(crate) fn of(paths: &[&Path]) -> Result<Self, Error> {
        let mut seen = Vec::new();
        for path in paths {
            list(path, &mut seen)
                .map_err(|e| Error::new(Reason::AssetUnavailable, format!("cannot look at {}: {e}", path.display())))?;
        }
        Ok(Seen(seen))
    }

    /// Nothing was added, removed or changed since.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let changed = self.0.iter().find(|(path, look)| Look::at(path).ok().as_ref() != Some(look));
        changed.map_or(Ok(()), |(path, _)| {
            let message = format!("{} was changed on the node after it was verified", path.display());
            Err(Error::new(Reason::AssetDigestMismatch, message)
                .hint("find out by whom; the next try has it verified anew"))
        })
    }
}

fn list(path: &Path, into: &mut Vec<(PathBuf, Look)>) -> io::Result<()> {
    into.push((path.to_owned(), Look::at(path)?));
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            list(&entry?.path(), into)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_changed_added_or_replaced_is_noticed() {
        let changes: [fn(&Path); 3] = [
            |dir| fs::write(dir.join("lib/a"), "b").unwrap(),
            |dir| fs::write(dir.join("lib/added"), "").unwrap(),
            |dir| {
                fs::rename(dir.join("lib"), dir.join("away")).unwrap();
                fs::create_dir(dir.join("lib")).unwrap();
                fs::write(dir.join("lib/a"), "a").unwrap();
            },
        ];
        for change in changes {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("lib")).unwrap();
            fs::write(dir.path().join("lib/a"), "a").unwrap();
            let seen = Seen::of(&[dir.path()]).unwrap();
            seen.check().unwrap();
            change(dir.path());
            assert_eq!(seen.check().unwrap_err().reason, Reason::AssetDigestMismatch);
        }
    }
}
