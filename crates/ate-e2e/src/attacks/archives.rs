//! Asset archives that try to leave their directory, or to fill the disk.

use std::fs;

use super::{Range, Stopped, Table, tar::Tar};

pub(super) const ATTACKS: Table = &[
    ("an asset archive with a name that leads out", |r| {
        let way_out = up_to(r);
        import(r, Tar::default().file(&way_out, b"escaped"))
    }),
    ("an asset archive that writes through a symlink", |r| {
        let marks = r.marks_dir().display().to_string();
        import(r, Tar::default().symlink("door", &marks).file("door/escaped", b"escaped"))
    }),
    ("an asset archive with a hard link to a file of the node", |r| {
        let secret = format!("../../../../../../../..{}/lock", r.data().display());
        import(r, Tar::default().hard_link("secret", &secret))
    }),
    ("an asset archive that is a bomb", |r| import(r, Tar::default().sparse("bomb", BOMB))),
];

/// More than an asset may unpack to.
const BOMB: u64 = 1 << 40;

/// The path of a mark, by way of the root.
pub(super) fn up_to(range: &Range) -> String {
    format!("../../../../../../../../../..{}/escaped", range.marks_dir().display())
}

/// Class `microvm` takes an archive; it need not be able to run here.
fn import(range: &mut Range, tar: Tar) -> Stopped {
    let path = range.dir().join("hostile.tar");
    fs::write(&path, tar.bytes()).expect("write the archive");
    let asset = format!("vmm={}", path.display());
    let out = range.ate(&["sandbox", "import", "--class", "microvm", "--name", "hostile", &asset]);
    let stopped = range.refused(out, "ARCHIVE_INVALID", 2);
    assert!(range.list("sandboxconfigs").iter().all(|c| c["metadata"]["name"] != "hostile"));
    stopped
}
