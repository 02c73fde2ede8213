//! Archives of durable directories, from a guest or out of a snapshot.

use std::{collections::BTreeMap, fs};

use ate_fuzz::{Target, tar::with_checksums};

use super::*;

fn sample() -> Vec<u8> {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("sub/file"), "hello").unwrap();
    fs::write(dir.join("sub").join("n".repeat(150)), "a long name").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("link")).unwrap();
    fs::hard_link(dir.join("sub/file"), dir.join("again")).unwrap();
    xattr::set(dir.join("sub/file"), "user.colour", b"green").unwrap();
    let hole = fs::File::create(dir.join("hole")).unwrap();
    hole.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&hole, b"x", 1 << 19).unwrap();
    pack(&BTreeMap::from([("data".to_owned(), dir)]), Vec::new()).unwrap()
}

#[test]
fn archives() {
    Target::named("volumes.archive").sample("tree", sample).run(|bytes| {
        // In memory: files of this test are many, and most are gone at once.
        let temp = tempfile::tempdir_in("/dev/shm").unwrap();
        let dir = temp.path().join("data");
        fs::create_dir(&dir).unwrap();
        let unpacked = unpack(&with_checksums(bytes)[..], &BTreeMap::from([("data".to_owned(), dir.clone())]));
        let beside: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(beside, ["data"], "nothing lands beside it");
        unpacked
    });
}
