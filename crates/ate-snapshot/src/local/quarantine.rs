//! Damaged snapshots, kept aside so that somebody can find out what happened to them.

use std::{fs, io, path::Path};

use ate_api::id::{Digest, Uid};

use crate::{
    Error,
    files::{self, absent_is_fine},
};

const QUARANTINE: &str = ".quarantine";
/// Enough to see a pattern, few enough not to fill the disk.
const KEEP: usize = 4;

/// Moves a snapshot out of sight and removes the oldest beyond [`KEEP`]. False if it was gone already.
pub(super) fn put_aside(root: &Path, dir: &Path, digest: &Digest) -> Result<bool, Error> {
    let quarantine = root.join(QUARANTINE);
    files::create_dir_all(&quarantine)?;
    // The id sorts by time.
    let target = quarantine.join(format!("{}-{digest}", Uid::generate()));
    match fs::rename(dir, &target) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::io("put aside", dir, &e)),
    }
    let mut names = files::entries(&quarantine)?;
    names.sort_unstable();
    for name in names.iter().take(names.len().saturating_sub(KEEP)) {
        let old = quarantine.join(name);
        absent_is_fine(fs::remove_dir_all(&old)).map_err(|e| Error::io("remove", &old, &e))?;
    }
    Ok(true)
}
