//! Finds the herders: programs named `ateom-CLASS`, beside this one or on the PATH.

use std::{
    collections::BTreeMap,
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

/// Every herder there is, one for each class: those beside this program come first, then the PATH in its order.
pub(crate) fn find() -> Vec<Herder> {
    let own = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    find_in(own.into_iter().chain(path_dirs()))
}

fn find_in(directories: impl Iterator<Item = PathBuf>) -> Vec<Herder> {
    let mut found = BTreeMap::new();
    for directory in directories {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(class) = name.to_str().and_then(|n| n.strip_prefix(PREFIX)) else { continue };
            // Also leaves out ateom-gvisor.d and the like, which a build puts beside the program.
            let is_label =
                !class.is_empty() && class.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            if is_label && let Some(program) = executable(&entry.path()) {
                found.entry(class.to_owned()).or_insert(program);
            }
        }
    }
    found.into_iter().map(|(class, program)| Herder { class, program }).collect()
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
    fn the_first_executable_of_a_class_is_taken_and_other_files_are_not() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let program = |dir: &tempfile::TempDir, name: &str, mode: u32| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let gvisor = program(&first, "ateom-gvisor", 0o755);
        program(&first, "ateom-gvisor.d", 0o755);
        program(&first, "ateom-plain", 0o644);
        program(&second, "ateom-gvisor", 0o755);
        let microvm = program(&second, "ateom-microvm", 0o755);
        let found = find_in([first.path().to_owned(), second.path().to_owned(), "/no/such/dir".into()].into_iter());
        let expected = [("gvisor", gvisor), ("microvm", microvm)];
        assert_eq!(found, expected.map(|(class, program)| Herder { class: class.into(), program }));
    }
}
