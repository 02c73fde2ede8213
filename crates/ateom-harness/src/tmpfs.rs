//! A disk that is soon full.

use std::{path::Path, process::Command};

/// A small file system that the herder sees at `path`, whose mount namespace is its own.
pub struct Tmpfs<'a>(&'a Path, u32);

impl<'a> Tmpfs<'a> {
    pub fn mount(path: &'a Path, options: &str, herder: u32) -> Self {
        nsenter(herder, &["mount", "-t", "tmpfs", "-o", options, "tmpfs", &path.to_string_lossy()]);
        Tmpfs(path, herder)
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        nsenter(self.1, &["umount", &self.0.to_string_lossy()]);
    }
}

fn nsenter(herder: u32, command: &[&str]) {
    let status = Command::new("nsenter").args(["-m", "-t", &herder.to_string()]).args(command).status().unwrap();
    assert!(status.success(), "{command:?}");
}
