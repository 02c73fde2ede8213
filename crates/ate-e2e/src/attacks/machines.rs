//! Class `microvm`: its VMM is an archive that the node has unpacked, so there is a whole tree to tamper with.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use super::{Range, Stopped, Table, payload};

/// Executed first of all by whoever starts the VMM.
pub(super) const LOADER: &str = "lib/ld-linux-x86-64.so.2";

pub(super) const ATTACKS: Table = &[
    ("a program in the unpacked tree of a machine's binaries swapped before a start", |r| {
        in_the_tree(r, "swapped-tree", |loader, evil| {
            fs::remove_file(loader).expect("remove the loader");
            fs::copy(evil, loader).expect("copy the payload");
            fs::set_permissions(loader, fs::Permissions::from_mode(0o555)).expect("its mode");
        })
    }),
    ("a symlink to the attacker's program in the unpacked tree", |r| {
        in_the_tree(r, "linked-tree", |loader, evil| {
            fs::remove_file(loader).expect("remove the loader");
            symlink(evil, loader).expect("a symlink");
        })
    }),
    ("a directory of the unpacked tree swapped for another", |r| {
        in_the_tree(r, "moved-tree", |loader, evil| {
            let lib = loader.parent().expect("a directory");
            fs::rename(lib, lib.with_file_name("away")).expect("move the directory");
            fs::create_dir(lib).expect("another directory");
            fs::copy(evil, loader).expect("copy the payload");
        })
    }),
];

/// The node finds the change and unpacks the archive again, which it has verified.
fn in_the_tree(range: &mut Range, actor: &str, change: fn(&Path, &Path)) -> Stopped {
    range.sleeper(actor);
    let loader = loader(range);
    let before = payload::digest(&loader);
    // Nobody starts a machine ahead meanwhile.
    range.warm();
    change(&loader, &range.evil());
    assert_eq!(range.count(actor), 2);
    assert_eq!(payload::digest(&loader), before, "unpacked again");
    range.ate(&["delete", "actor", actor]).ok();
    Stopped::Harmless
}

/// That of the configuration in force.
fn loader(range: &Range) -> PathBuf {
    let config = range.get("sandboxconfig", "microvm");
    let assets = config["spec"]["assets"].as_object().expect("assets").values();
    let vmm = assets.filter_map(|a| a["vmm"]["sha256"].as_str()).next().expect("a VMM");
    range.data().join(format!("node/assets/trees/sha256-{vmm}")).join(LOADER)
}
