//! The template's author has the bucket in hand: everything in it can be replaced, removed, and put back.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{Range, Stopped, Table, payload};

pub(super) const ATTACKS: Table = &[
    ("a forged manifest in the bucket names the attacker's binary", forged_manifest),
    ("the manifest and files of another actor in the place of this one's", other_actor),
    ("an earlier generation put back over the current one", earlier_generation),
    ("a snapshot file in the bucket with other bytes of the same size", changed_file),
    ("a snapshot file of another actor under the name of this one's", file_of_another),
    ("a symlink in the bucket to a file of the node", symlinked_file),
    ("the node's own copy of a snapshot file swapped for another actor's", swapped_local_copy),
];

fn forged_manifest(range: &mut Range) -> Stopped {
    range.sleeper("forged");
    let manifest = range.snapshot_dir("forged").join("manifest.json");
    let evil = range.evil();
    let mut forged: serde_json::Value =
        serde_json::from_slice(&fs::read(&manifest).expect("a manifest")).expect("JSON");
    let asset = &mut forged["sandbox"]["assets"][0];
    asset["sha256"] = payload::digest(&evil).into();
    asset["urls"] = serde_json::json!([format!("file://{}", evil.display())]);
    range.forget(&range.snapshot_of("forged"));
    replace(&manifest, forged.to_string().as_bytes());
    range.refuses("forged", "MANIFEST_DIGEST_MISMATCH", 5)
}

fn other_actor(range: &mut Range) -> Stopped {
    range.sleeper("robbed");
    range.sleeper("thief");
    let (from, to) = (range.snapshot_dir("robbed"), range.snapshot_dir("thief"));
    range.forget(&range.snapshot_of("thief"));
    copy_over(&from, &to);
    range.refuses("thief", "MANIFEST_DIGEST_MISMATCH", 5)
}

fn earlier_generation(range: &mut Range) -> Stopped {
    range.sleeper("rolled-back");
    let kept = range.dir().join("generation-1");
    fs::create_dir(&kept).expect("a directory");
    copy_over(&range.snapshot_dir("rolled-back"), &kept);
    assert_eq!(range.count("rolled-back"), 2);
    range.ate(&["suspend", "actor", "rolled-back"]).ok();
    range.forget(&range.snapshot_of("rolled-back"));
    copy_over(&kept, &range.snapshot_dir("rolled-back"));
    range.refuses("rolled-back", "MANIFEST_DIGEST_MISMATCH", 5)
}

fn changed_file(range: &mut Range) -> Stopped {
    range.sleeper("changed");
    let file = largest(&range.snapshot_dir("changed"));
    range.forget(&range.snapshot_of("changed"));
    let mut bytes = fs::read(&file).expect("a snapshot file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    replace(&file, &bytes);
    range.refuses("changed", "SNAPSHOT_CORRUPT", 5)
}

fn file_of_another(range: &mut Range) -> Stopped {
    for actor in ["mine", "theirs"] {
        range.sleeper(actor);
    }
    let (mine, theirs) = (largest(&range.snapshot_dir("mine")), largest(&range.snapshot_dir("theirs")));
    range.forget(&range.snapshot_of("mine"));
    replace(&mine, &fs::read(theirs).expect("another's file"));
    range.refuses("mine", "SNAPSHOT_CORRUPT", 5)
}

fn symlinked_file(range: &mut Range) -> Stopped {
    range.sleeper("linked");
    let file = largest(&range.snapshot_dir("linked"));
    range.forget(&range.snapshot_of("linked"));
    let same = range.dir().join("the same bytes");
    fs::rename(&file, &same).expect("move the file");
    symlink(&same, &file).expect("a symlink");
    range.refuses("linked", "SNAPSHOT_CORRUPT", 5)
}

/// The bucket still has the right one.
fn swapped_local_copy(range: &mut Range) -> Stopped {
    range.sleeper("kept");
    range.sleeper("copied");
    assert_eq!((range.count("copied"), range.count("copied")), (2, 3));
    range.ate(&["suspend", "actor", "copied"]).ok();
    let files = |actor: &str| range.data().join("node/snapshots").join(range.snapshot_of(actor)).join("files");
    let (mine, theirs) = (largest(&files("kept")), largest(&files("copied")));
    replace(&mine, &fs::read(theirs).expect("another's file"));
    assert_eq!(range.count("kept"), 2, "its own memory");
    range.ate(&["delete", "actor", "kept"]).ok();
    Stopped::Harmless
}

/// Another file under the name: the inode may be shared with the node's own copy.
pub(super) fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).expect("write the attacker's file");
    fs::rename(&new, path).expect("put it in place");
}

fn copy_over(from: &Path, to: &Path) {
    for file in fs::read_dir(to).expect("a directory").flatten() {
        fs::remove_file(file.path()).expect("remove");
    }
    for file in fs::read_dir(from).expect("a directory").flatten() {
        fs::copy(file.path(), to.join(file.file_name())).expect("copy");
    }
}

/// The largest file is the memory.
pub(super) fn largest(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir).expect("a directory").flatten().map(|e| e.path());
    let files = files.filter(|f| f.file_name().is_some_and(|n| n != "manifest.json"));
    files.max_by_key(|f| fs::metadata(f).map_or(0, |m| m.len())).expect("a file")
}
