//! Somebody has changed what lies in the node's own asset cache, after it was verified.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use super::{Range, Stopped, Table, range::SETTLED};
use crate::eventually;

pub(super) const ATTACKS: Table = &[
    ("a binary in the asset cache and in its source swapped before a start", swapped_for_good),
    ("a binary in the asset cache swapped before a start", swapped),
    ("a symlink to the attacker's program in the place of a binary", symlinked),
    ("a binary swapped while an actor runs under it", swapped_under_an_actor),
    ("the directory of the binaries swapped for a symlink to the attacker's", swapped_directory),
];

/// The binary's places in the cache, and another link to the right bytes to put them back.
struct Cache {
    places: [PathBuf; 2],
    kept: PathBuf,
}

impl Cache {
    fn of(range: &Range) -> Self {
        let file = range.runsc();
        let name = file.file_name().expect("a name");
        let imported = range.data().join("node/assets/imported").join(name);
        let kept = range.dir().join("kept");
        let _ = fs::remove_file(&kept);
        fs::hard_link(&file, &kept).expect("a link");
        Cache { places: [file, imported], kept }
    }

    fn file(&self) -> &Path {
        &self.places[0]
    }

    fn swap(&self, place: &Path, evil: &Path) {
        let new = self.kept.with_extension("new");
        fs::copy(evil, &new).expect("copy the payload");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o555)).expect("its mode");
        fs::rename(&new, place).expect("put it in place");
    }

    /// Puts the binary back, and waits until the node has it: a fetch that began before may still read what lay there
    /// then, and whoever asks meanwhile gets its answer.
    fn mend(&self, range: &Range, actor: &str) {
        let link = self.kept.with_extension("link");
        for place in &self.places {
            fs::hard_link(&self.kept, &link).expect("a link");
            fs::rename(&link, place).expect("put the binary back");
            // Nothing is renamed where both are the same file already.
            let _ = fs::remove_file(&link);
        }
        eventually("the binary to be found again", SETTLED, || range.ate(&["resume", "actor", actor]).code == 0);
    }
}

fn swapped_for_good(range: &mut Range) -> Stopped {
    range.sleeper("nothing-left");
    let (cache, evil) = (Cache::of(range), range.evil());
    for place in &cache.places {
        cache.swap(place, &evil);
    }
    let stopped = range.refuses("nothing-left", "ASSET_DIGEST_MISMATCH", 5);
    cache.mend(range, "nothing-left");
    went_on(range, "nothing-left", 2);
    stopped
}

fn swapped(range: &mut Range) -> Stopped {
    range.sleeper("swapped");
    let cache = Cache::of(range);
    cache.swap(cache.file(), &range.evil());
    went_on(range, "swapped", 2)
}

fn symlinked(range: &mut Range) -> Stopped {
    range.sleeper("symlinked");
    let cache = Cache::of(range);
    fs::remove_file(cache.file()).expect("remove the binary");
    symlink(range.evil(), cache.file()).expect("a symlink");
    let stopped = went_on(range, "symlinked", 2);
    assert!(fs::symlink_metadata(cache.file()).expect("the binary").is_file());
    stopped
}

/// A herder calls its binary to save an actor and to end it, long after anybody looked at the file.
fn swapped_under_an_actor(range: &mut Range) -> Stopped {
    range.actor("running", "prey");
    assert_eq!(range.count("running"), 1);
    let (cache, evil) = (Cache::of(range), range.evil());
    for place in &cache.places {
        cache.swap(place, &evil);
    }
    range.ate(&["suspend", "actor", "running"]).ok();
    cache.mend(range, "running");
    went_on(range, "running", 2)
}

fn swapped_directory(range: &mut Range) -> Stopped {
    range.sleeper("moved");
    let (cache, evil) = (Cache::of(range), range.evil());
    let files = cache.file().parent().expect("a directory").to_owned();
    let (away, theirs) = (range.dir().join("away"), range.dir().join("theirs"));
    fs::create_dir(&theirs).expect("the attacker's directory");
    fs::rename(&files, &away).expect("move the directory");
    symlink(&theirs, &files).expect("a symlink");
    cache.swap(&theirs.join(cache.file().file_name().expect("a name")), &evil);
    let stopped = range.refuses("moved", "ASSET_UNAVAILABLE", 6);
    fs::remove_file(&files).expect("remove the symlink");
    fs::rename(&away, &files).expect("put the directory back");
    went_on(range, "moved", 2);
    stopped
}

/// The actor wakes up as it was, and leaves.
#[track_caller]
fn went_on(range: &mut Range, actor: &str, count: u64) -> Stopped {
    assert_eq!(range.count(actor), count, "{actor}");
    range.ate(&["delete", "actor", actor]).ok();
    Stopped::Harmless
}
