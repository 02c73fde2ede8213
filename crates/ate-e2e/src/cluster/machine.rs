//! A machine of the cluster, as far as pods see it: a directory in which what one mounts others see.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::user::run;

/// A node, and its directory.
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) data_dir: PathBuf,
}

/// The mount at the directory of a machine. Dropped: nothing is mounted there.
pub(super) struct Shared(PathBuf);

impl Machine {
    /// Where the pods of the system have that directory on a real machine.
    pub(super) const PATH: &str = "/var/lib/ate";

    /// Below `dir`. Its directory of objects is the same on all machines, as with a network file system.
    pub(super) fn new(dir: &Path, n: usize) -> (Machine, Shared) {
        let data_dir = dir.join(format!("n{n}"));
        let (objects, of_all) = (data_dir.join("objects"), dir.join("objects"));
        fs::create_dir_all(&data_dir).unwrap();
        fs::create_dir_all(&of_all).unwrap();
        mount(&[&data_dir, &data_dir]);
        let shared = Shared(data_dir.clone());
        run(Command::new("mount").arg("--make-shared").arg(&data_dir), "").ok();
        fs::create_dir_all(&objects).unwrap();
        mount(&[&of_all, &objects]);
        (Machine { name: format!("node-{n}"), data_dir }, shared)
    }
}

fn mount(paths: &[&Path]) {
    run(Command::new("mount").arg("--bind").args(paths), "").ok();
}

impl Drop for Shared {
    fn drop(&mut self) {
        // With whatever is mounted below, and though somebody may still be in there.
        let _ = Command::new("umount").args(["--recursive", "--lazy"]).arg(&self.0).status();
    }
}
