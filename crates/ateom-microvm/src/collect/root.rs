//! A directory as if it were `/`: symbolic links in it, absolute ones too, never lead out of it.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

use super::problem::{Problem, io};

/// Of one directory; a kernel's largest holds some hundred modules, /usr/lib of a full machine some thousand files.
const MAX_ENTRIES: usize = 100_000;

pub(super) struct Root {
    path: PathBuf,
    dir: OwnedFd,
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Root, Problem> {
        let dir = openat(CWD, path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let dir = dir.map_err(|e| io(path.display())(e.into()))?;
        Ok(Root { path: path.to_owned(), dir })
    }

    /// How a path in it is called in messages.
    pub(super) fn shown(&self, path: &str) -> String {
        self.path.join(path.trim_start_matches('/')).display().to_string()
    }

    /// The bytes of a file; none if there is no such file.
    pub(super) fn read(&self, path: &str, cap: u64) -> Result<Option<Vec<u8>>, Problem> {
        let shown = || self.shown(path);
        // NONBLOCK: a pipe must not make it wait.
        let Some(fd) = self.resolve(path, OFlags::NONBLOCK)? else { return Ok(None) };
        let file = File::from(fd);
        if !file.metadata().map_err(io(shown()))?.is_file() {
            return Err(Problem::Unusable { path: shown(), why: "it is not a file".to_owned() });
        }
        let mut bytes = Vec::new();
        file.take(cap + 1).read_to_end(&mut bytes).map_err(io(shown()))?;
        match bytes.len() as u64 <= cap {
            true => Ok(Some(bytes)),
            false => Err(Problem::TooLarge { path: shown(), cap }),
        }
    }

    /// Names and kinds in a directory, sorted; nothing if it is not there.
    pub(super) fn list(&self, path: &str) -> Result<Vec<(String, FileType)>, Problem> {
        let failed = |e: Errno| io(self.shown(path))(e.into());
        let Some(fd) = self.resolve(path, OFlags::DIRECTORY)? else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        for entry in Dir::read_from(fd).map_err(failed)?.take(MAX_ENTRIES) {
            let entry = entry.map_err(failed)?;
            // A name that is not UTF-8 is none we look for.
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => entries.push((name.to_owned(), entry.file_type())),
            }
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    fn resolve(&self, path: &str, flags: OFlags) -> Result<Option<OwnedFd>, Problem> {
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match openat2(&self.dir, path, flags, Mode::empty(), inside) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(io(self.shown(path))(io::Error::from(e))),
        }
    }
}
