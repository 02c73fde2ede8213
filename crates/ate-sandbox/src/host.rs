//! What this machine is, as far as it decides where a snapshot can be restored.

use std::{
    collections::BTreeSet,
    io::{self, Read as _},
};

/// /proc/cpuinfo of a machine with a thousand processors is about 2 MiB.
const MAX_CPUINFO: u64 = 16 << 20;

/// Where a snapshot is made or restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// `linux`.
    pub os: String,
    /// Go's name, see [`arch`].
    pub arch: String,
    /// Flags that every processor has, sorted.
    pub cpu_features: Vec<String>,
    pub kernel_release: String,
}

/// Go's name of this machine's architecture, as in `SandboxConfig.spec.assets`: amd64, arm64.
pub fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Looks at this machine.
///
/// # Errors
/// When /proc cannot be read.
pub fn platform() -> io::Result<Host> {
    let mut cpuinfo = String::new();
    std::fs::File::open("/proc/cpuinfo")?.take(MAX_CPUINFO).read_to_string(&mut cpuinfo)?;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(Host {
        os: std::env::consts::OS.to_owned(),
        arch: arch().to_owned(),
        cpu_features: features(&cpuinfo),
        kernel_release: release.trim().to_owned(),
    })
}

/// Flags of all processors, those they have in common. x86 writes `flags`, Arm `Features`.
fn features(cpuinfo: &str) -> Vec<String> {
    let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let flags = lines.filter(|(key, _)| matches!(key.trim(), "flags" | "Features"));
    let sets = flags.map(|(_, words)| words.split_whitespace().collect::<BTreeSet<_>>());
    let common = sets.reduce(|a, b| a.intersection(&b).copied().collect()).unwrap_or_default();
    common.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_those_of_every_processor_sorted() {
        let x86 = "processor\t: 0\nflags\t\t: sse2 fpu avx\n\nprocessor\t: 1\nflags\t\t: fpu sse2\nvmx flags\t: vnmi\n";
        assert_eq!(features(x86), ["fpu", "sse2"]);
        assert_eq!(features("Features\t: fp asimd\n"), ["asimd", "fp"]);
        assert!(features("").is_empty());
    }

    #[test]
    fn this_machine_is_described() {
        let host = platform().unwrap();
        assert_eq!((host.os.as_str(), host.arch.as_str()), ("linux", arch()));
        assert!(!host.cpu_features.is_empty() && !host.kernel_release.is_empty(), "{host:?}");
    }
}
