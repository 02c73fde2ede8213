//! The VMM's files, what it says of itself, and who executes its guests here.

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use ate_api::{Error, Reason};
use ate_sandbox::capability;
use ateom::{Probed, config, driver::Sandbox, process::Processes};

use crate::{
    accelerator::{self, Chosen},
    config::Config,
    describe::{KERNEL, VMM},
    error::{blocking, failed},
    trial::Trial,
    vmm::{self, Access, Files},
};

const ANSWER: Duration = Duration::from_secs(20);
const ANSWER_CAP: usize = 64 * 1024;
/// From this version on the VMM maps a file it opened for reading only, and lets the guest write to its own copy.
const READ_ONLY_MEMORY: u32 = 9;
const MAX_VERSION: usize = 128;
/// Of a kernel file that is searched for its version.
const MAX_KERNEL: u64 = 512 << 20;

/// A VMM that has been asked.
#[derive(Debug)]
pub(crate) struct Binary {
    pub(crate) version: String,
    pub(crate) accelerator: Chosen,
    pub(crate) files: Files,
    kernel_version: Option<String>,
}

impl Binary {
    /// Asks the VMM of a sandbox. May try whether a guest runs under KVM: once for a set of assets is enough.
    pub(crate) async fn ask(processes: &Processes, sandbox: &Sandbox) -> Result<Self, Error> {
        let (bundle, _) = config::asset(sandbox, VMM)?;
        let (kernel, _) = config::asset(sandbox, KERNEL)?;
        check_kernel(&kernel)?;
        let config: Config = config::of(sandbox)?;
        let [loader, rest @ ..] = vmm::program(&bundle);
        let mut command = Command::new(loader);
        command.args(rest).arg("--version").env_clear();
        let said = processes.output(&mut command, ANSWER, ANSWER_CAP).await;
        let said = said.map_err(|e| failed(format!("the VMM cannot be started: {e}")))?;
        let version = said.stdout.lines().next().and_then(|l| l.strip_prefix("QEMU emulator version "));
        let version = version.filter(|v| v.len() <= MAX_VERSION).map(|v| v.trim().to_owned());
        let Some(version) = version.filter(|_| said.exit.success()) else {
            let words: String = said.stderr.trim().chars().take(300).collect();
            return Err(failed(format!("the VMM does not answer as QEMU does ({}): {words}", said.exit))
                .hint("the asset is not a QEMU that works on this machine; make it with `ate sandbox import --from`"));
        };
        let access = if major(&version) < READ_ONLY_MEMORY { Access::Write } else { Access::Read };
        let trial = Trial { vmm: &bundle, kernel: &kernel, cpu: &config.cpu };
        let accelerator = accelerator::choose(config.accelerator, processes, &trial).await?;
        let kernel_version = blocking(move || Ok(kernel_version(&kernel))).await?;
        Ok(Binary { version, accelerator, files: Files { bundle, access }, kernel_version })
    }

    pub(crate) fn probed(&self) -> Probed {
        let mut capabilities: Vec<String> = [
            capability::CHECKPOINT_LEAVE_RUNNING,
            capability::PREPARE,
            capability::SNAPSHOT_BASE,
            capability::SNAPSHOT_DATA,
            capability::SNAPSHOT_FULL,
            capability::SNAPSHOT_MULTI_CONTAINER,
            capability::STANDBY,
        ]
        .map(String::from)
        .to_vec();
        capabilities.sort_unstable();
        let mut versions = BTreeMap::from([(VMM.to_owned(), self.version.clone())]);
        versions.extend(self.kernel_version.iter().map(|version| (KERNEL.to_owned(), version.clone())));
        Probed { capabilities, versions }
    }
}

fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|v| v.parse().ok()).unwrap_or_default()
}

/// What the kernel will say its release is: it is in the file as `Linux version RELEASE (`.
fn kernel_version(path: &Path) -> Option<String> {
    const MARK: &[u8] = b"Linux version ";
    if std::fs::metadata(path).ok()?.len() > MAX_KERNEL {
        return None;
    }
    let bytes = std::fs::read(path).ok()?;
    // There is a format string of the same beginning before the text itself.
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(MARK.len()).position(|w| w == MARK) {
        at += found + MARK.len();
        let end = bytes[at..].iter().take(MAX_VERSION).position(|&b| b == b' ')?;
        let release = std::str::from_utf8(&bytes[at..at + end]).ok()?;
        if release.starts_with(|c: char| c.is_ascii_digit()) {
            return Some(release.to_owned());
        }
    }
    None
}

/// Refuses a kernel that the VMM could not start, before anything is started.
fn check_kernel(path: &Path) -> Result<(), Error> {
    use std::io::Read;
    let mut magic = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    if read.is_ok() && &magic == b"\x7fELF" {
        return Ok(());
    }
    Err(Error::new(Reason::SandboxFailed, format!("{} is not an uncompressed kernel (ELF)", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_found_behind_the_format_string() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinux");
        std::fs::write(&path, b"\0Linux version %s (%s)\0..Linux version 6.1.0-50-cloud-amd64 (debian)\0").unwrap();
        assert_eq!(kernel_version(&path).as_deref(), Some("6.1.0-50-cloud-amd64"));
        std::fs::write(&path, b"nothing").unwrap();
        assert_eq!(kernel_version(&path), None);
    }

    #[test]
    fn versions_are_compared_by_their_first_number() {
        assert_eq!((major("7.2.22 (Debian)"), major("10.0.2"), major("x")), (7, 10, 0));
    }
}
