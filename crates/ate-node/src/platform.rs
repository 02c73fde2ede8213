//! What this machine is, as a snapshot's manifest records it.

use std::{fs, io};

use ate_snapshot::manifest::Platform;

/// Reads the machine's architecture, CPU features and kernel release.
pub(crate) fn detect() -> io::Result<Platform> {
    Ok(Platform {
        os: "linux".to_owned(),
        arch: go_arch(std::env::consts::ARCH).to_owned(),
        cpu_features: cpu_features(&fs::read_to_string("/proc/cpuinfo")?),
        kernel_release: rustix::system::uname().release().to_string_lossy().into_owned(),
    })
}

/// Go's names, which the container world uses.
fn go_arch(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Features that *all* CPUs have: a restore may run on any of them.
fn cpu_features(cpuinfo: &str) -> Vec<String> {
    let of_each = cpuinfo.lines().filter_map(|line| {
        let (key, value) = line.split_once(':')?;
        matches!(key.trim(), "flags" | "Features").then(|| value.split_ascii_whitespace().collect::<Vec<_>>())
    });
    let mut common: Option<Vec<&str>> = None;
    for features in of_each {
        match &mut common {
            None => common = Some(features),
            Some(common) => common.retain(|f| features.contains(f)),
        }
    }
    let mut common: Vec<String> = common.unwrap_or_default().into_iter().map(str::to_owned).collect();
    common.sort();
    common.dedup();
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_features_of_every_cpu_count() {
        let cpuinfo = "processor : 0\nflags\t\t: sse2 fpu avx\n\nprocessor : 1\nflags\t\t: fpu sse2\n";
        assert_eq!(cpu_features(cpuinfo), ["fpu", "sse2"]);
        assert_eq!(cpu_features("Features : fp asimd"), ["asimd", "fp"]);
    }

    #[test]
    fn this_machine_can_be_described() {
        let platform = detect().unwrap();
        assert!(!platform.cpu_features.is_empty() && !platform.kernel_release.is_empty());
    }
}
