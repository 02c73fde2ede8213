//! Walks the entries of a tar stream under caps and hashes the stream on the way.

use std::io::{self, Read};

use ate_api::id::Digest;
use ate_volumes::Rationed;
use sha2::{Digest as _, Sha256};

use super::{Head, Limits, UnpackError, invalid};

/// Extension headers (long names, pax records) are read into memory; honest ones are far smaller.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// Hashes and counts what passes, and fails once more than `max` bytes came.
pub(crate) struct Hashing<R> {
    inner: R,
    hash: Sha256,
    count: u64,
    max: u64,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(inner: R, max: u64) -> Self {
        Hashing { inner, hash: Sha256::new(), count: 0, max }
    }

    /// Reads what is left and returns the digest and size of everything.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((Digest::from_bytes(self.hash.finalize().into()), self.count))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.update(&buf[..n]);
        self.count += n as u64;
        if self.count > self.max {
            return Err(malformed(format!("more than {} bytes", self.max)));
        }
        Ok(n)
    }
}

fn malformed(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

/// Whatever reading an archive fails with is the archive's fault, unless the disk below says otherwise.
fn read_error(e: io::Error) -> UnpackError {
    match e.raw_os_error() {
        Some(_) => UnpackError::Io(e),
        None => invalid(e.to_string()),
    }
}

/// Calls `each` with every entry of a plain tar stream and returns the digest of the whole stream, padding and
/// all, and its size.
pub(crate) fn for_each_entry(
    stream: impl Read,
    limits: Limits,
    mut each: impl FnMut(Head, &mut dyn Read) -> Result<(), UnpackError>,
) -> Result<(Digest, u64), UnpackError> {
    let (stream, allowance) = Rationed::new(Hashing::new(stream, limits.bytes));
    let mut archive = tar::Archive::new(stream);
    let (mut entries, mut bytes) = (0u64, 0u64);
    let mut iterator = archive.entries().map_err(read_error)?;
    loop {
        allowance.at_most(MAX_EXTENSION_BYTES);
        let Some(entry) = iterator.next() else { break };
        allowance.everything();
        let mut entry = entry.map_err(read_error)?;
        entries += 1;
        // A sparse file is larger than its bytes in the stream, so both are counted.
        bytes = bytes.saturating_add(entry.size());
        if entries > limits.entries {
            return Err(invalid(format!("more than {} entries", limits.entries)));
        }
        if bytes > limits.bytes {
            return Err(invalid(format!("unpacks to more than {} bytes", limits.bytes)));
        }
        if let Some(head) = Head::read(&mut entry).map_err(|e| match e {
            UnpackError::Io(e) => read_error(e),
            e => e,
        })? {
            each(head, &mut entry)?;
        }
        // Consumed here, so that the allowance above is for headers alone.
        io::copy(&mut entry, &mut io::sink()).map_err(read_error)?;
    }
    allowance.everything();
    archive.into_inner().into_inner().finish().map_err(read_error)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tar::{EntryType, Header};

    use super::*;

    const SMALL: Limits = Limits { entries: 3, bytes: 64 << 10 };

    fn header(kind: EntryType, size: u64) -> Header {
        let mut h = Header::new_gnu();
        h.set_entry_type(kind);
        h.set_size(size);
        h.as_old_mut().name[0] = b'x';
        h.set_mode(0o644);
        h.set_uid(0);
        h.set_gid(0);
        h.set_mtime(0);
        h.set_cksum();
        h
    }

    fn walk(stream: impl Read, limits: Limits) -> Result<u64, UnpackError> {
        let mut seen = 0;
        for_each_entry(stream, limits, |_, data| {
            seen += io::copy(data, &mut io::sink())?;
            Ok(())
        })?;
        Ok(seen)
    }

    fn refused(stream: impl Read, limits: Limits) -> String {
        match walk(stream, limits) {
            Err(UnpackError::Invalid(message)) => message,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    #[test]
    fn an_archive_within_its_limits_is_read_and_hashed_whole() {
        let mut bytes = header(EntryType::Regular, 3).as_bytes().to_vec();
        bytes.extend_from_slice(b"abc");
        bytes.resize(4096, 0);
        let (digest, size) = for_each_entry(Cursor::new(&bytes), SMALL, |_, _| Ok(())).expect("a good archive");
        assert_eq!((digest, size), (Digest::of(&bytes), 4096));
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit_however_it_is_packed() {
        // A stream that never ends, after one honest header.
        let head = header(EntryType::Regular, 1 << 40);
        assert!(refused(head.as_bytes().chain(io::repeat(0)), SMALL).contains("bytes"));
        // Zeros that never end, which an archive may be followed by.
        assert!(refused(io::repeat(0), SMALL).contains("bytes"));
        let many = header(EntryType::Directory, 0).as_bytes().repeat(4);
        assert!(refused(Cursor::new(many), SMALL).contains("entries"));
        // A file of 8 GB that takes 512 bytes in the archive.
        let mut sparse = header(EntryType::GNUSparse, 0);
        let gnu = sparse.as_gnu_mut().expect("made as gnu");
        gnu.realsize.copy_from_slice(b"77777777777\0");
        gnu.sparse[0].offset.copy_from_slice(b"77777777777\0");
        gnu.sparse[0].numbytes.copy_from_slice(b"00000000000\0");
        sparse.set_cksum();
        assert!(refused(Cursor::new(sparse.as_bytes()), SMALL).contains("bytes"));
    }

    #[test]
    fn a_long_name_cannot_eat_the_memory() {
        let large = Limits { entries: 3, bytes: 1 << 40 };
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            let head = header(kind, 1 << 39);
            assert!(refused(head.as_bytes().chain(io::repeat(b'n')), large).contains("extension header"), "{kind:?}");
        }
    }
}
