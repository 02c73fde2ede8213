//! The classes of this installation: every program `ateom-CLASS` in the searched directories that describes itself
//! well. A further class is a further herder program and nothing more.

mod describe;
mod descriptor;

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use ate_api::{Error, Reason, name::is_label};

use crate::{ClassDescriptor, config::list};

/// What herder programs are called, before the name of their class.
pub const PREFIX: &str = "ateom-";
/// Time a herder has to describe itself. It prints a constant; only a cold disk makes that slow.
pub const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest descriptor in bytes; real ones have about 3 KiB.
pub const MAX_DESCRIPTOR: usize = 256 << 10;

/// Why a herder cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("{program} does not start: {message}")]
    Start { program: PathBuf, message: String },
    #[error("{program} did not describe itself within {} s", limit.as_secs())]
    TimedOut { program: PathBuf, limit: Duration },
    #[error("{program} printed more than {MAX_DESCRIPTOR} bytes as its description")]
    TooLong { program: PathBuf },
    #[error("{program} does not describe itself: {message}")]
    Malformed { program: PathBuf, message: String },
    #[error("{program} says that its class is {says:?}; name it {PREFIX}CLASS")]
    WrongName { program: PathBuf, says: String },
    #[error("class {class}: {}", list(problems))]
    Invalid { class: String, problems: Vec<String> },
}

/// One class and the program that drives it.
#[derive(Debug, Clone, PartialEq)]
pub struct Herder {
    pub descriptor: ClassDescriptor,
    pub program: PathBuf,
}

/// The registered classes, by name.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    herders: BTreeMap<String, Herder>,
}

impl Registry {
    /// Asks every herder in the directories, of which the earlier win. One that fails does not hide the others: it
    /// is left out and its error returned. Blocks for at most [`DESCRIBE_TIMEOUT`] per herder.
    ///
    /// `contract` is the version of the driver contract this build speaks; herders of another one are left out.
    pub fn discover(directories: &[PathBuf], contract: u32) -> (Self, Vec<RegistryError>) {
        let (mut registry, mut errors) = (Registry::default(), Vec::new());
        for (class, program) in programs(directories) {
            match describe::describe(&class, &program, DESCRIBE_TIMEOUT)
                .and_then(|descriptor| descriptor::check(&descriptor, contract).map(|()| descriptor))
            {
                Ok(descriptor) => drop(registry.herders.insert(class, Herder { descriptor, program })),
                Err(e) => errors.push(e),
            }
        }
        (registry, errors)
    }

    /// From descriptors at hand, for example in tests that run no herder.
    ///
    /// # Errors
    /// When a descriptor breaks a rule.
    pub fn of(herders: impl IntoIterator<Item = Herder>, contract: u32) -> Result<Self, RegistryError> {
        let check = |h: Herder| descriptor::check(&h.descriptor, contract).map(|()| (h.descriptor.name.clone(), h));
        Ok(Registry { herders: herders.into_iter().map(check).collect::<Result<_, _>>()? })
    }

    /// # Errors
    /// `UNKNOWN_SANDBOX_CLASS`, naming the classes there are.
    pub fn get(&self, class: &str) -> Result<&Herder, Error> {
        self.herders.get(class).ok_or_else(|| {
            let classes: Vec<_> = self.herders.keys().collect();
            let message = format!("no herder for sandbox class {class} is installed; classes here: {}", list(&classes));
            let hint = format!("install the program {PREFIX}{class} beside ate, or choose another sandboxClass");
            Error::new(Reason::UnknownSandboxClass, message).hint(hint)
        })
    }

    /// All of them, by name.
    pub fn classes(&self) -> impl Iterator<Item = &Herder> {
        self.herders.values()
    }
}

/// Where herders are looked for: the directory the user names, then that of the running program.
pub fn directories(explicit: Option<&Path>) -> Vec<PathBuf> {
    let own = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    explicit.map(Path::to_owned).into_iter().chain(own).collect()
}

/// Class → program: executable files whose name ends with a class, so that `ateom-x.d` and the like are left out.
fn programs(directories: &[PathBuf]) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for entry in directories.iter().filter_map(|dir| dir.read_dir().ok()).flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let Some(class) = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).filter(|c| is_label(c)) else { continue };
        if is_executable(&path) {
            found.entry(class.to_owned()).or_insert(path);
        }
    }
    found
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests;
