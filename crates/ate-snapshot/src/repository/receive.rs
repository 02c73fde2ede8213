//! A file of a snapshot on its way in: decoded, hashed, capped, written, made durable.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
};

use ate_api::id::Digest;

use crate::{
    Error,
    files::{self, Stamp},
    manifest::{ENCODING_ZSTD, File},
};

/// 128 MiB, what zstd itself allows unasked: more is memory that a hostile object makes us take.
const MAX_WINDOW_LOG: u32 = 27;

/// Writes what the reader yields to a new file and returns its stamp. Whatever is not exactly the file the
/// manifest describes is damage: shorter, longer, other bytes, not decodable. Blocks.
pub(crate) fn receive(snapshot: &Digest, file: &File, stored: impl Read, path: &Path) -> Result<Stamp, Error> {
    let received = write_verified(snapshot, file, stored, path);
    if received.is_err() {
        fs::remove_file(path).ok();
    }
    received
}

fn write_verified(snapshot: &Digest, file: &File, stored: impl Read, path: &Path) -> Result<Stamp, Error> {
    let damaged =
        |problem: String| Error::Corrupt { snapshot: snapshot.clone(), problem: format!("{}: {problem}", file.name) };
    let mut out = files::create_new(path).map_err(|e| Error::io("create", path, &e))?;

    let mut left = file.size;
    let mut own_error = None;
    let write = |block: &[u8]| {
        let written = match left.checked_sub(block.len() as u64) {
            Some(rest) => {
                left = rest;
                out.write_all(block).map_err(|e| Error::io("write", path, &e))
            }
            None => Err(damaged(format!("it is longer than {} bytes", file.size))),
        };
        written.map_err(|e| {
            own_error = Some(e);
            io::Error::other("stopped")
        })
    };
    let hashed = match file.encoding.as_deref() {
        None => files::hash(stored, write),
        Some(ENCODING_ZSTD) => decoder(stored).and_then(|plain| files::hash(plain, write)),
        Some(other) => return Err(Error::Manifest(format!("encoding {other:?} is unknown"))),
    };
    if let Some(e) = own_error {
        return Err(e);
    }
    let (size, sha256) =
        hashed.map_err(|e| match e.get_ref().and_then(|e| e.downcast_ref::<object_store::Error>()) {
            Some(e) => Error::storage("read", &file.name, e),
            None if e.raw_os_error().is_some() => Error::io("read", Path::new(&file.name), &e),
            None => damaged(format!("it cannot be decoded: {e}")),
        })?;
    if size != file.size {
        return Err(damaged(format!("it has {size} bytes, not {}", file.size)));
    }
    if sha256 != file.sha256 {
        return Err(damaged(format!("it has digest {sha256}, not {}", file.sha256)));
    }
    let stamped = files::make_read_only(&out).and_then(|()| out.sync_all()).and_then(|()| out.metadata());
    stamped.map(|m| Stamp::of(&m)).map_err(|e| Error::io("make durable", path, &e))
}

fn decoder(stored: impl Read) -> io::Result<impl Read> {
    let mut decoder = zstd::stream::read::Decoder::new(stored)?;
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    Ok(decoder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{files::BLOCK, sample::file};

    #[test]
    fn an_object_that_never_ends_is_cut_off_at_the_size_the_manifest_names() {
        struct Endless(usize);
        impl Read for Endless {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.0 += buf.len();
                assert!(self.0 <= 2 * BLOCK, "it is read far beyond its size");
                buf.fill(0);
                Ok(buf.len())
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pages.img");
        let e = receive(&Digest::of(b""), &file("pages.img", &[0; 100]), Endless(0), &path).unwrap_err();
        assert!(matches!(&e, Error::Corrupt { problem, .. } if problem.contains("longer")), "{e}");
        assert!(!path.exists());
    }
}
