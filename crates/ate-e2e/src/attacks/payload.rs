//! The attacker's program and the alarm that it sets off.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::trailer::TRAILER;
use crate::binary;

/// A program that leaves a mark below `marks` when it runs. Another `name`, another digest.
pub(super) fn make(dir: &Path, name: &str, marks: &Path) -> PathBuf {
    let path = dir.join(name);
    fs::copy(binary("ate-e2e-payload"), &path).expect("copy the payload");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    let mut file = fs::File::options().append(true).open(&path).expect("open the payload");
    write!(file, "{name}{TRAILER}{}", marks.display()).expect("write the trailer");
    path
}

/// Of a file, in hex.
pub(super) fn digest(path: &Path) -> String {
    hex::encode(Sha256::digest(fs::read(path).expect("a file to hash")))
}
