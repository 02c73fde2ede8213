//! Finds programs on the PATH.

use std::path::{Path, PathBuf};

/// A program of this name on the PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    path_dirs().find_map(|dir| executable(&dir.join(name)))
}

/// The PATH, and the places for administration that a plain user's PATH may lack.
fn path_dirs() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    dirs.into_iter()
}

fn executable(path: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_executable_files_are_programs() {
        assert!(on_path("sh").is_some());
        assert!(on_path("no-such-program-anywhere").is_none());
        assert!(executable(Path::new("/etc/passwd")).is_none() && executable(Path::new("/")).is_none());
    }
}
