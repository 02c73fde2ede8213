//! The folders of certificates: read, and written so that nobody ever reads half a file.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::DirBuilderExt as _,
    path::Path,
};

use ate_api::{Error, Reason};

use crate::up::tls;

pub(crate) const AUTHORITY: &str = "ca.crt";
pub(super) const CERTIFICATE: &str = "tls.crt";
pub(super) const KEY: &str = "tls.key";

pub(super) const PUBLIC: u32 = 0o644;
const SECRET: u32 = 0o600;
/// A certificate with its chain is a few KiB.
const MAX_FILE: u64 = 1 << 20;

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// `None`: there is none, or a run ended before both were there.
pub(super) fn read_pair(dir: &Path) -> Result<Option<Pair>, Error> {
    match (read(&dir.join(CERTIFICATE))?, read(&dir.join(KEY))?) {
        (Some(certificate), Some(key)) => Ok(Some(Pair { certificate, key })),
        _ => Ok(None),
    }
}

/// The certificate last: without it the next run makes both anew.
pub(super) fn write_pair(dir: &Path, pair: &Pair) -> Result<(), Error> {
    make_dir(dir)?;
    match fs::remove_file(dir.join(CERTIFICATE)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(broken(e)),
        _ => {}
    }
    write(&dir.join(KEY), pair.key.as_bytes(), SECRET)?;
    write(&dir.join(CERTIFICATE), pair.certificate.as_bytes(), PUBLIC)
}

pub(super) fn make_dir(dir: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(broken)
}

pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(broken(e).on(path.display().to_string())),
    };
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|e| broken(e).on(path.display().to_string()))?;
    Ok(Some(text))
}

/// Renamed into place; a file that is the same already stays untouched.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let new = path.with_extension("new");
    let written = tls::write(&new, bytes, mode).and_then(|()| fs::rename(&new, path));
    written.map_err(|e| broken(e).on(path.display().to_string()))
}

pub(super) fn broken(e: io::Error) -> Error {
    let reason = match e.kind() {
        io::ErrorKind::PermissionDenied => Reason::PermissionDenied,
        io::ErrorKind::StorageFull => Reason::DiskFull,
        _ => Reason::Internal,
    };
    Error::new(reason, e.to_string().to_lowercase())
}
