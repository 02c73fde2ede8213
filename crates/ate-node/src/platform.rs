//! What this machine is, as a snapshot's manifest records it.

use std::io;

use ate_sandbox::host;
use ate_snapshot::manifest::Platform;

/// Reads the machine's architecture, CPU features and kernel release.
pub(crate) fn detect() -> io::Result<Platform> {
    let host = host::platform()?;
    Ok(Platform { os: host.os, arch: host.arch, cpu_features: host.cpu_features, kernel_release: host.kernel_release })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_described() {
        let platform = detect().unwrap();
        assert!(!platform.cpu_features.is_empty() && !platform.kernel_release.is_empty());
    }
}
