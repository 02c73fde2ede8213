//! Finds the herders: programs named `ateom-CLASS` in one directory, by default that of this program.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use ate_api::{Error, Reason};
use ate_sandbox::ClassDescriptor;

use crate::failure::{Outcome, Trying as _};

pub(crate) const PREFIX: &str = "ateom-";

/// One herder program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Herder {
    pub class: String,
    pub program: PathBuf,
}

/// Where this program is; the herders are installed beside it.
pub(crate) fn default_dir() -> PathBuf {
    let own = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    own.unwrap_or_else(|| "/usr/local/bin".into())
}

/// Every herder in a directory, by class.
pub(crate) fn find(directory: &Path) -> Vec<Herder> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(class) = name.to_str().and_then(|n| n.strip_prefix(PREFIX)) else { continue };
        // Also leaves out ateom-gvisor.d and the like, which a build puts beside the program.
        let is_label =
            !class.is_empty() && class.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if is_label && let Some(program) = executable(&entry.path()) {
            found.push(Herder { class: class.to_owned(), program });
        }
    }
    found.sort_by(|a, b| a.class.cmp(&b.class));
    found
}

impl Herder {
    /// What the herder says of its class.
    pub(crate) fn describe(&self) -> Outcome<ClassDescriptor> {
        let what = || format!("cannot use the herder {}", self.program.display());
        let output = Command::new(&self.program).arg("describe").output().trying(what)?;
        let descriptor: ClassDescriptor = serde_json::from_slice(&output.stdout)
            .map_err(|e| {
                let said = String::from_utf8_lossy(&output.stderr);
                Error::new(Reason::Invalid, format!("it does not describe itself: {e}: {}", said.trim()))
            })
            .trying(what)?;
        if descriptor.name != self.class {
            let says = format!("it says that its class is {}", descriptor.name);
            return Err(Error::new(Reason::Invalid, says).hint("name the program ateom-CLASS")).trying(what);
        }
        Ok(descriptor)
    }
}

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
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_executables_named_after_a_class_are_herders() {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode) in
            [("ateom-microvm", 0o755), ("ateom-gvisor", 0o755), ("ateom-gvisor.d", 0o755), ("ateom-plain", 0o644)]
        {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let classes: Vec<String> = find(dir.path()).into_iter().map(|h| h.class).collect();
        assert_eq!(classes, ["gvisor", "microvm"]);
        assert!(find(Path::new("/no/such/dir")).is_empty());
    }
}
