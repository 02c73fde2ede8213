//! A program as a herder holds it: opened once, its bytes compared with their digest, and from then on executed through
//! the open file. A herder calls it for as long as an actor lives; what lies at its path by then is never executed.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Seek, SeekFrom},
    os::{
        fd::AsRawFd,
        unix::{
            fs::{MetadataExt, OpenOptionsExt},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use ate_api::{Error, Reason, id::Digest};
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

const BUFFER: usize = 1 << 20;

/// An open file with the bytes of a digest.
#[derive(Debug)]
pub struct Program {
    file: File,
    path: PathBuf,
    digest: Digest,
    /// What the file looked like when its bytes were last hashed.
    seen: Mutex<Look>,
}

/// What a file looks like. Every write changes the time of change, which nobody can set, and every replacement the inode.
/// So does a link that is made or removed change the time, which is harmless: then the bytes are hashed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    device: u64,
    inode: u64,
    size: u64,
    mode: u32,
    owner: u32,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Look {
    /// Of the name itself: a symlink in the place of a file looks otherwise.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Look::of(&fs::symlink_metadata(path)?))
    }

    fn of(m: &Metadata) -> Self {
        Look {
            device: m.dev(),
            inode: m.ino(),
            size: m.size(),
            mode: m.mode(),
            owner: m.uid(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
        }
    }
}

impl Program {
    /// Opens a program whose digest is known, and hashes it. Blocks.
    ///
    /// # Errors
    /// `ASSET_DIGEST_MISMATCH` if it has other bytes than the digest names.
    pub fn pinned(path: &Path, digest: &str) -> Result<Self, Error> {
        let digest = Digest::parse(digest)
            .ok_or_else(|| Error::new(Reason::Invalid, format!("`{digest}` is no digest of {}", path.display())))?;
        Program::opened(path, Some(digest))
    }

    /// Opens a program of which nothing is known but where it is: for a person who names it. Blocks.
    pub fn at(path: &Path) -> Result<Self, Error> {
        Program::opened(path, None)
    }

    fn opened(path: &Path, expected: Option<Digest>) -> Result<Self, Error> {
        let failed = |e: io::Error| {
            Error::new(Reason::AssetUnavailable, format!("cannot open the program {}: {e}", path.display()))
        };
        let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC).bits().cast_signed();
        let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        let (found, look) = hash(&file).map_err(failed)?;
        let digest = expected.unwrap_or_else(|| found.clone());
        let program = Program { file, path: path.to_owned(), digest, seen: Mutex::new(look) };
        if found == program.digest { Ok(program) } else { Err(program.changed(&found)) }
    }

    /// Where it was opened; for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A command that executes the open file, `name` being what the process calls itself. Costs one `fstat`, unless the
    /// file looks otherwise than before.
    ///
    /// # Errors
    /// `ASSET_DIGEST_MISMATCH` if its bytes were changed since.
    pub fn command(&self, name: &str) -> Result<Command, Error> {
        self.check()?;
        // Looked up by the child, which has the descriptor until it becomes the program.
        let mut command = Command::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        command.arg0(name);
        Ok(command)
    }

    fn check(&self) -> Result<(), Error> {
        let failed = |e: io::Error| {
            Error::new(Reason::AssetUnavailable, format!("cannot look at the program {}: {e}", self.path.display()))
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if Look::of(&self.file.metadata().map_err(failed)?) == *seen {
            return Ok(());
        }
        let (found, look) = hash(&self.file).map_err(failed)?;
        if found != self.digest {
            return Err(self.changed(&found));
        }
        *seen = look;
        Ok(())
    }

    fn changed(&self, found: &Digest) -> Error {
        let Program { path, digest, .. } = self;
        let message =
            format!("{} is not what was pinned: expected sha256:{digest}, got sha256:{found}", path.display());
        Error::new(Reason::AssetDigestMismatch, message)
            .hint("the file was changed on the node after it was verified: find out by whom")
    }
}

/// Digest of a whole file, and what it looked like all the while.
fn hash(file: &File) -> io::Result<(Digest, Look)> {
    let before = Look::of(&file.metadata()?);
    let mut reader = file;
    reader.seek(SeekFrom::Start(0))?;
    let (mut state, mut buffer) = (Sha256::new(), vec![0; BUFFER]);
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => state.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    if Look::of(&file.metadata()?) != before {
        return Err(io::Error::other("it changed while it was read"));
    }
    Ok((Digest::from_bytes(state.finalize().into()), before))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A copy of a real program, which says what it is called with.
    fn echo(dir: &Path) -> (PathBuf, String) {
        let path = dir.join("program");
        fs::copy("/bin/echo", &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let digest = Digest::of(&fs::read(&path).unwrap());
        (path, digest.to_string())
    }

    fn said(program: &Program) -> String {
        let out = program.command("echo").unwrap().arg("hello").output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    }

    #[test]
    fn what_was_opened_is_executed_whatever_lies_at_its_path_later() {
        let dir = tempfile::tempdir().unwrap();
        let (path, digest) = echo(dir.path());
        let program = Program::pinned(&path, &digest).unwrap();
        assert_eq!(said(&program), "hello\n");
        fs::remove_file(&path).unwrap();
        fs::copy("/bin/false", &path).unwrap();
        assert_eq!(said(&program), "hello\n", "the program that was opened");
        assert_eq!(Program::pinned(&path, &digest).unwrap_err().reason, Reason::AssetDigestMismatch);
    }

    #[test]
    fn bytes_that_change_in_place_are_noticed_and_a_further_link_is_harmless() {
        let dir = tempfile::tempdir().unwrap();
        let (path, digest) = echo(dir.path());
        let program = Program::pinned(&path, &digest).unwrap();
        fs::hard_link(&path, dir.path().join("link")).unwrap();
        assert_eq!(said(&program), "hello\n");
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(program.command("echo").unwrap_err().reason, Reason::AssetDigestMismatch);
    }

    #[test]
    fn only_a_regular_file_is_a_program() {
        assert_eq!(Program::at(Path::new("/dev/null")).unwrap_err().reason, Reason::AssetUnavailable);
        assert_eq!(Program::pinned(Path::new("/bin/echo"), "echo").unwrap_err().reason, Reason::Invalid);
    }
}
