//! Snapshots whose forged manifest has the digest that is recorded ([`super::forge`]): it is matched with the machine, with
//! what the record says of the sandbox, and with the actor, and it never decides what may run or where a file goes.

use std::fs;

use super::{
    Range, Stopped, Table,
    forge::{Forged, Forgery},
    tar::Tar,
};

pub(super) const ATTACKS: Table = &[
    ("a manifest of another sandbox class", |r| r.refuses("wrong-class", "CLASS_MISMATCH", 4)),
    ("a manifest of another architecture", |r| r.refuses("wrong-arch", "ARCH_MISMATCH", 4)),
    ("a manifest of an unknown format version", |r| r.refuses("version-2", "MANIFEST_VERSION_UNKNOWN", 4)),
    ("a manifest that names another revision's configuration", |r| r.refuses("downgraded", "MANIFEST_INVALID", 2)),
    ("a manifest that names another binary than recorded", |r| r.refuses("other-binary", "MANIFEST_INVALID", 2)),
    ("a manifest of another actor, recorded as this one's", |r| r.refuses("stranger", "MANIFEST_INVALID", 2)),
    ("a file name in a manifest that leads out of the snapshot", |r| r.refuses("traversal", "MANIFEST_INVALID", 2)),
    ("a compressed snapshot file that never ends", |r| r.refuses("endless", "SNAPSHOT_CORRUPT", 5)),
    ("an archive of durable directories with a name that leads out", |r| refused_by_herder(r, "data-name")),
    ("an archive of durable directories that writes through a symlink", |r| refused_by_herder(r, "data-link")),
    ("an archive of durable directories that is a bomb", |r| refused_by_herder(r, "data-bomb")),
];

/// Larger than any file of these snapshots, in a few kilobytes.
const ENDLESS: u64 = 1 << 30;
/// More than durable directories may have.
const BOMB: u64 = 1 << 40;

pub(super) const FORGERIES: &[Forgery] = &[
    memory("wrong-class", |f| f.manifest["sandbox"]["class"] = "microvm".into()),
    memory("wrong-arch", |f| {
        let other = if f.manifest["platform"]["arch"] == "amd64" { "arm64" } else { "amd64" };
        f.manifest["platform"]["arch"] = other.into();
    }),
    memory("version-2", |f| f.manifest["formatVersion"] = 2.into()),
    memory("downgraded", |f| f.manifest["sandbox"]["config"]["digest"] = "1".repeat(64).into()),
    memory("other-binary", |f| f.manifest["sandbox"]["assets"][0]["sha256"] = "2".repeat(64).into()),
    memory("stranger", |f| f.manifest["actor"]["uid"] = "0190a6f4-7e3c-7c3e-8a55-3f1f3a3c5b11".into()),
    memory("traversal", |f| f.manifest["files"][0]["name"] = "../../../../escaped".into()),
    memory("endless", endless),
    files("data-name", |f| {
        let way_out = format!("data/../../../../../../../../..{}/escaped", f.marks.display());
        f.replace_file(&Tar::default().file(&way_out, b"escaped").zstd());
    }),
    files("data-link", |f| {
        let tar = Tar::default().symlink("data/door", &f.marks.display().to_string());
        f.replace_file(&tar.file("data/door/escaped", b"escaped").zstd());
    }),
    files("data-bomb", |f| f.replace_file(&Tar::default().sparse("data/bomb", BOMB).zstd())),
];

const fn memory(actor: &'static str, change: fn(&mut Forged)) -> Forgery {
    Forgery { actor, template: "prey", change }
}

const fn files(actor: &'static str, change: fn(&mut Forged)) -> Forgery {
    Forgery { actor, template: "disk", change }
}

/// The herder unpacks the archive before the actor's first instruction.
fn refused_by_herder(range: &mut Range, actor: &str) -> Stopped {
    range.refuses_late(actor, "ARCHIVE_INVALID", 2)
}

/// The manifest says that its largest file is stored compressed.
fn endless(forged: &mut Forged) {
    let files = forged.manifest["files"].as_array_mut().expect("files");
    let file = files.iter_mut().max_by_key(|f| f["size"].as_u64()).expect("a file");
    file["encoding"] = "zstd".into();
    let path = forged.dir.join(format!("{}.zst", file["sha256"].as_str().expect("a digest")));
    let zeros = std::io::Read::take(std::io::repeat(0), ENDLESS);
    zstd::stream::copy_encode(zeros, fs::File::create(path).expect("an object"), 1).expect("compress");
}
